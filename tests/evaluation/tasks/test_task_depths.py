"""Scores at several depths from one unroll are those of lm-evaluation-harness on the model at each depth by itself."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from loopscope.data.tokenizers import ByteTokenizer
from loopscope.interop.load import load
from loopscope.interop.model_folder import save_model
from loopscope.jobs.evaluate_tasks import TaskSettings, measure_tasks, open_tasks, usual_depths
from loopscope.results import TaskEvaluation

pytest.importorskip("lm_eval")
from lm_eval.models.huggingface import HFLM

from tests.evaluation.tasks.fixtures import byte_folder as byte_folder
from tests.evaluation.tasks.fixtures import byte_model, harness_run, write_tasks
from tests.evaluation.tasks.fixtures import dory_folder as dory_folder
from tests.evaluation.tasks.fixtures import questions as questions
from tests.evaluation.tasks.fixtures import quick_harness as quick_harness
from tests.evaluation.tasks.plain_lm import PlainLM

DEPTHS = (1, 2, 4, 8)
NAMES = ("colours", "lines", "lasts", "endings")
BYTES = ByteTokenizer().to_text()


def measured(path: Path, questions: Path, batch: int = 3, **over: Any) -> TaskEvaluation:
    settings = TaskSettings(
        **{"tasks": NAMES, "loops": DEPTHS, "include_path": questions, "prefix": "\n", **over}
    )
    return measure_tasks(path, open_tasks(settings), settings, batch=batch)


def values(evaluation: TaskEvaluation, loop: int) -> dict[str, dict[str, float | None]]:
    """As the harness has them, of one depth."""
    found: dict[str, dict[str, float | None]] = {}
    for scores in evaluation.tasks:
        place = scores.loops.index(loop)
        of = found.setdefault(scores.task, {})
        for metric in scores.metrics:
            of[f"{metric.name},{metric.filter}"] = metric.values[place]
            of[f"{metric.name}_stderr,{metric.filter}"] = metric.errors[place]
    return found


def assert_equal(ours: dict[str, dict[str, float | None]], theirs: dict[str, Any]) -> None:
    """All of theirs, to the last digit where a score counts, to rounding where it is a likelihood."""
    for task, of in theirs.items():
        for key, value in of.items():
            if "," not in key:
                continue
            mine = ours[task][key]
            if value in (None, "N/A"):
                assert mine is None, key
            elif key.split(",")[0].removesuffix("_stderr") in ("acc", "acc_norm", "exact_match"):
                assert mine == value, (task, key)
            else:
                assert mine == pytest.approx(float(value), rel=1e-5), (task, key)


@pytest.mark.usefixtures("quick_harness")
def test_one_unroll_scores_what_a_run_per_depth_does(byte_folder: Path, questions: Path) -> None:
    made = measured(byte_folder, questions)
    model = load(byte_folder)
    runs = {loops: harness_run(PlainLM(model, loops), questions, NAMES) for loops in DEPTHS}
    for loops, theirs in runs.items():
        assert set(theirs) == set(NAMES)
        assert_equal(values(made, loops), theirs)
    # Depths differ, or the test would show nothing.
    assert len({tuple(sorted(map(str, of["lines"].values()))) for of in runs.values()}) == len(DEPTHS)
    assert [(s.task, s.kind, s.one_unroll, s.documents) for s in made.tasks] == [
        ("colours", "multiple_choice", True, 12),
        ("lines", "loglikelihood_rolling", True, 12),
        ("lasts", "loglikelihood", True, 12),
        ("endings", "generate_until", False, 12),
    ]


def test_batches_are_single_requests(byte_folder: Path, questions: Path) -> None:
    one, eight = (measured(byte_folder, questions, batch) for batch in (1, 8))
    for loops in DEPTHS:
        assert_equal(values(one, loops), {task: dict(of) for task, of in values(eight, loops).items()})
    assert values(one, 2)["colours"] == values(eight, 2)["colours"]


def test_likelihoods_cost_one_unroll(
    byte_folder: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many calls of the shared stack as the deepest alone makes."""
    from loopscope.model.looped import LoopedTransformer

    calls = []
    core = LoopedTransformer.core
    monkeypatch.setattr(
        LoopedTransformer, "core", lambda model, *given: calls.append(given[1]) or core(model, *given)
    )
    measured(byte_folder, questions, tasks=("colours",), loops=(8,))
    alone = len(calls)
    calls.clear()
    measured(byte_folder, questions, tasks=("colours",))
    # One more: whether one unroll serves is asked with one text, with a run to each depth.
    assert len(calls) == alone + 8 + sum(DEPTHS)


@pytest.mark.usefixtures("quick_harness")
def test_a_context_too_long_is_cut_on_its_left_and_counted(byte_folder: Path, questions: Path) -> None:
    names, longest = ("colours", "lines"), 40
    made = measured(byte_folder, questions, tasks=names, length=longest)
    theirs = harness_run(PlainLM(load(byte_folder), 4, longest), questions, names)
    assert_equal(values(made, 4), theirs)
    rows = json.loads((questions / "documents.json").read_text())
    too_long = [
        len(f"{row['question']} {choice}") > longest + 1
        for row in rows
        for choice in dict.fromkeys(row["choices"])
    ]
    colours, lines = made.tasks
    assert (colours.cut, lines.cut, made.longest) == (sum(too_long), 0, longest)
    assert 0 < sum(too_long) < len(too_long)


def test_depths_that_are_usual() -> None:
    assert usual_depths(1) == (1, 2)
    assert usual_depths(4) == (1, 2, 4, 8)
    assert usual_depths(6) == (1, 2, 4, 6, 8, 12)


@pytest.mark.usefixtures("quick_harness")
@pytest.mark.smoke
def test_a_model_of_transformers_is_scored_as_the_harness_scores_it(
    dory_folder: Path, tmp_path: Path
) -> None:
    """The harness's own model of transformers, set to each depth: tokens, BOS, cuts, windows and text."""
    from transformers import AutoModelForCausalLM

    depths, few = (1, 3), write_tasks(tmp_path / "few", 3)
    made = measured(dory_folder, few, loops=depths, prefix=None)
    assert made.longest == 64
    for loops in depths:
        theirs = (
            AutoModelForCausalLM.from_pretrained(dory_folder, num_recurrent_loops=loops) if False else None
        )
        module = AutoModelForCausalLM.from_pretrained(dory_folder)
        module.config.n_recurrent_loops = loops
        theirs = HFLM(pretrained=module.eval(), tokenizer=str(dory_folder), batch_size=1, device="cpu")
        assert_equal(values(made, loops), harness_run(theirs, few, NAMES))


def test_facts_of_the_harness(byte_folder: Path, questions: Path) -> None:
    """A trailing space of the context belongs to the answer; a metric that is no mean has a bootstrapped error."""
    from loopscope.evaluation.tasks.depth_lm import DepthLM
    from loopscope.jobs.opened import open_model
    from loopscope.jobs.task_tokenizer import task_tokenizer

    opened = open_model(byte_folder)
    lm = DepthLM(opened.model, task_tokenizer(opened), lambda *given: (), (1,), 64, 8, "it")
    assert lm._encode_pair("a ", "b") == ([ord("a")], [ord(" "), ord("b")])
    made = measured(byte_folder, questions, tasks=("lasts",))
    perplexity, accuracy = made.tasks[0].metrics
    assert (perplexity.name, perplexity.higher_is_better, accuracy.higher_is_better) == (
        "perplexity",
        False,
        True,
    )
    assert all(error is not None and error > 0 for error in perplexity.errors)
    assert all(math.isfinite(value) for value in perplexity.values)


def test_a_model_whose_states_know_the_depth_is_run_at_each(tmp_path: Path, questions: Path) -> None:
    model = byte_model(loop_embedding="modulation")
    assert model.depth_conditioned
    save_model(model, tmp_path / "model", {}, {"tokenizer.json": BYTES})
    made = measured(tmp_path / "model", questions, tasks=("colours", "lines"))
    assert not any(scores.one_unroll for scores in made.tasks)


def test_a_published_checkpoint_is_scored_and_its_folder_left_alone(fixtures: Path, questions: Path) -> None:
    made = measured(fixtures / "dense_rmsnorm" / "last.pt", questions, tasks=("colours",), prefix=None)
    assert [scores.loops for scores in made.tasks] == [DEPTHS]
    assert not (fixtures / "dense_rmsnorm" / "tasks.json").exists()
