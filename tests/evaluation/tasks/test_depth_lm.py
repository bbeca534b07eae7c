"""The model that lm-evaluation-harness asks: text by settings, exits by depth, and likelihoods of ends of texts."""

from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.data.tokenizers import ByteTokenizer, WordTokenizer
from loopscope.evaluation.depth.readings import one_unroll_serves
from loopscope.evaluation.tasks import text_scores
from loopscope.evaluation.tasks.text_scores import ScoredText, score_texts
from loopscope.interop.model_folder import save_model
from loopscope.jobs.evaluate_tasks import _writer
from loopscope.jobs.opened import open_model
from loopscope.jobs.task_tokenizer import OwnTokenizer, task_tokenizer
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import unroll

pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from loopscope.evaluation.tasks.depth_lm import DepthLM
from tests.evaluation.tasks.fixtures import byte_folder as byte_folder
from tests.evaluation.tasks.fixtures import byte_model
from tests.evaluation.tasks.fixtures import dory_folder as dory_folder
from tests.evaluation.tasks.plain_lm import PlainLM

BYTES = ByteTokenizer().to_text()


def test_text_of_a_batch_is_that_of_single_prompts_also_with_learned_positions(
    tmp_path: Path,
) -> None:
    """The harness pads prompts on their left, which shifts learned positions; here a row gets what it gets alone."""
    save_model(byte_model(positions="learned"), tmp_path / "model", {}, {"tokenizer.json": BYTES})
    opened = open_model(tmp_path / "model")
    tokenizer = task_tokenizer(opened)
    settings = {"until": ["\n"], "max_gen_toks": 6}
    prompts = [
        Instance("generate_until", {}, ("ab " * n, settings), 0, ("endings", n, 1)) for n in range(1, 7)
    ]

    def made(batch: int) -> list[str]:
        lm = DepthLM(opened.model, tokenizer, _writer(opened, tokenizer), (3,), 64, batch, "it")
        return lm.generate_until(prompts)

    assert made(1) == made(8)
    assert len(set(made(1))) > 1


def test_an_empty_text_has_nothing_to_score(byte_folder: Path) -> None:
    """As the harness's own model of transformers has it, also where no other text comes with it."""
    opened = open_model(byte_folder)
    tokenizer = task_tokenizer(opened, "\n")
    lm = DepthLM(opened.model, tokenizer, _writer(opened, tokenizer), (1, 3), 64, 8, "it")
    assert lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("",), 0, ("lines", 0, 1))]) == [0]


def test_a_prefix_that_is_an_unknown_token_is_none() -> None:
    words = WordTokenizer.train(["a rose is a rose\n"], 20, min_count=1)
    assert OwnTokenizer(words, "rose").prefix == words.encode("rose")[0]
    with pytest.raises(ValueError, match="prefix is 'tulip', which this model's tokenizer does not know"):
        OwnTokenizer(words, "tulip")


def test_settings_of_generation_are_read_as_the_harness_means_them(byte_folder: Path) -> None:
    opened = open_model(byte_folder)
    asked: list[Any] = []

    def write(rows: list[list[int]], loops: int, settings: Any, seed: int) -> list[str]:
        asked.append((loops, dict(settings), seed))
        return [f"{len(row)}, then\nmore" for row in rows]

    lm = DepthLM(opened.model, task_tokenizer(opened), write, (2,), 64, 2, "it")

    def request(text: str, **settings: Any) -> Any:
        return Instance("generate_until", {}, (text, settings), 0, ("t", 0, 1))

    drawn = {
        "do_sample": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 0,
        "until": "\n",
        "max_gen_toks": 4,
    }
    made = lm.generate_until([request("abc", **drawn), request("a", **drawn), request("ab", **drawn)])
    assert made == ["3, then", "1, then", "2, then"]  # longest first, and back in their order
    settings = {"new_tokens": 4, "stop": ("\n",), "eos": (), "temperature": 0.5, "top_p": 0.9}
    assert asked == [(2, settings, 0), (2, settings, 2)]
    asked.clear()
    assert lm.generate_until([request("x" * 80, temperature=0.0, max_gen_toks=60, num_beams=1)]) == [
        "4, then\nmore"
    ]
    assert asked == [(2, {"new_tokens": 60, "stop": (), "eos": ()}, 0)]
    assert lm.cut == {"t": 1}
    with pytest.raises(ValueError, match="task t asks generation for num_beams=4"):
        lm.generate_until([request("x", num_beams=4, max_gen_toks=4)])
    with pytest.raises(ValueError, match="a prompt of task t is empty"):
        lm.generate_until([request("", max_gen_toks=4)])


def test_the_harness_alone_fails_without_bos_and_eos(dory_folder: Path) -> None:
    """What is said in a sentence here, and asked first."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_file=str(dory_folder / "tokenizer.json"), pad_token="a")
    theirs = HFLM(pretrained=AutoModelForCausalLM.from_pretrained(dory_folder), tokenizer=bare, device="cpu")
    with pytest.raises(TypeError):
        theirs.loglikelihood([Instance("loglikelihood", {}, ("a", " b"), 0, ("t", 0, 1))])


def test_exits_on_the_way_that_are_others_are_not_taken_for_a_depth() -> None:
    class Counting(LoopedTransformer):
        """What a loop does depends on how many there are, and nothing says so."""

        def core(self, hidden: torch.Tensor, loop: int, context: Any) -> torch.Tensor:
            return super().core(hidden, loop, context) * (1 + 0.1 * context.loops)

    ids = torch.arange(12)[None]
    plain = byte_model()
    assert one_unroll_serves(plain, ids, (1, 2, 4))
    assert one_unroll_serves(plain.bfloat16(), ids, (1, 2, 4))
    counting = Counting(plain.config).eval()
    counting.load_state_dict(byte_model().state_dict())
    assert not one_unroll_serves(counting, ids, (1, 2, 4))
    scores = score_texts(counting, [ScoredText(tuple(range(9)), 3)], (1, 2), apart=True)
    *_, last = unroll(counting, torch.arange(8)[None], 1)
    expected = last.logits()[0].log_softmax(dim=-1)[-3:].gather(1, torch.tensor([[6], [7], [8]])).sum()
    assert scores[1][0].log_likelihood == pytest.approx(float(expected.detach()), rel=1e-5)


def test_texts_that_share_an_input_are_run_once_and_scored_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other lengths too, and whichever chunk of the head's a place falls into."""
    model, rows = byte_model(), []
    embed = model.embed
    model.embed = lambda ids: rows.append(ids) or embed(ids)  # type: ignore[method-assign]
    monkeypatch.setattr(text_scores, "CHUNK_ELEMENTS", 3 * 256)
    same = tuple(range(3, 12))
    texts = [ScoredText((*same, 20), 1), ScoredText((*same, 30), 4), ScoredText((5, 6, 7), 2)]
    found = score_texts(model, texts, (2,), batch=8)[2]
    assert [tuple(ids.shape) for ids in rows] == [(1, 1), (1, 9), (1, 2)]  # the vocabulary is asked first
    for text, score in zip(texts, found, strict=True):
        alone = PlainLM(model, 2).score(list(text.tokens[: -text.scored]), list(text.tokens[-text.scored :]))
        assert score == pytest.approx(alone, rel=1e-5)
    with pytest.raises(ValueError, match="labels go from 300 to 300; this model has ids 0 to 255"):
        score_texts(model, [ScoredText((1, 300), 1)], (2,))
