"""`loopscope.generate` and `loopscope generate` as a person meets them: text, exits by name, mistakes."""

import io
import json
import re
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import loopscope
from loopscope.data.tokenizers import ByteTokenizer
from loopscope.evaluation.exits.rules import build_rule
from loopscope.generation.missing import STRATEGIES
from loopscope.jobs.generate import generate_text
from loopscope.jobs.opened import open_model
from tests.fixtures import run_command
from tests.jobs.fixtures import byte_folder, byte_model
from tests.test_recurrence import LinearCore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return byte_folder(tmp_path / "model")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    return partial(run_command, monkeypatch)


IDS = torch.tensor([[3, 14, 15, 92]])


@pytest.mark.parametrize(
    "rule", ["logit-margin", "kl", "shortlist-margin", "hidden-step", "direction-step", "gate"]
)
@pytest.mark.parametrize("missing", STRATEGIES)
def test_rules_of_evaluation_run_per_token(rule: str, missing: str) -> None:
    model = byte_model(exit_gate=True)
    full = loopscope.generate(model, IDS, 6)
    never = build_rule(rule).never
    made = loopscope.generate(model, IDS, 6, exit_rule=rule, threshold=never, missing=missing)
    assert made == full
    always = {"kl": 1e9, "hidden-step": 1e9, "direction-step": 2.0}.get(rule, 0.0)
    early = loopscope.generate(model, IDS, 6, exit_rule=rule, threshold=always, missing=missing)
    first = 2 if build_rule(rule).compares else 1  # those have no score at loop 1
    assert early.mean_loops == first
    middle = {"kl": 0.05, "hidden-step": 0.7, "direction-step": 0.5, "gate": 0.999}.get(rule, 3.0)
    if missing == "lazy":
        chosen = {"exit_rule": rule, "threshold": middle}
        assert loopscope.generate(model, IDS, 8, **chosen) == loopscope.generate(
            model, IDS, 8, cache=False, **chosen
        )
        assert early.tokens == loopscope.generate(model, IDS, 6, loops=first).tokens


def test_fixed_is_fixed_depth() -> None:
    model = byte_model()
    made = loopscope.generate(model, IDS, 6, exit_rule="fixed", threshold=2)
    assert made == loopscope.generate(model, IDS, 6, loops=2)


@pytest.mark.smoke
def test_text_with_the_models_own_tokenizer(folder: Path) -> None:
    subject = open_model(folder)
    made = generate_text(subject, ["one", "three"], 8, temperature=1.0, seed=1)
    alone = generate_text(subject, "three", 8, temperature=1.0, seed=2)
    assert made.texts[1] == alone.texts[0]
    assert made.texts[0] == ByteTokenizer().decode(made.tokens[0])
    assert max(map(max, made.tokens)) < 256, "entries without a tokenizer's text are never drawn"


def test_a_model_without_a_past_is_computed_anew_and_says_so_once() -> None:
    with pytest.warns(UserWarning, match="LinearCore keeps no keys and values") as seen:
        made = loopscope.generate(LinearCore(), torch.tensor([[1, 2]]), 5)
    assert len(seen) == 1
    assert made.tokens[0] == made.tokens[0][:1] * 5  # its states forget the input: the same token each time
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loopscope.generate(LinearCore(), torch.tensor([[1, 2]]), 5, cache=False)


@pytest.mark.smoke
def test_a_strangers_model_generates_what_ours_does() -> None:
    ours = byte_model()

    class Stranger(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = ours.token_embedding, ours.position_embedding
            self.layers, self.norm, self.lm_head = ours.layers, ours.reading.norm, ours.unembedding

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
            for _ in range(3):
                for layer in self.layers:
                    x = layer(x)
            return self.lm_head(self.norm(x))

    ids, mask = torch.tensor([[1, 2, 3, 4], [0, 0, 5, 6]]), torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    wrapped = loopscope.wrap(Stranger(), block="layers", readout="norm", head="lm_head")
    with pytest.warns(UserWarning, match="computed anew for every token"):
        theirs = loopscope.generate(wrapped, ids, 5, attention_mask=mask)
    assert theirs.tokens == loopscope.generate(ours, ids, 5, attention_mask=mask).tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"new_tokens": 0}, "new_tokens is 0; it must be a whole number from 1 up"),
        ({"new_tokens": True}, "new_tokens is True"),
        (
            {"new_tokens": 38},
            "the prompt has 4 tokens and new_tokens is 38; this model has 40 learned positions. "
            "Ask for at most 37 new tokens",
        ),
        ({"loops": 0}, "loops is 0; it must be a whole number from 1 up"),
        ({"missing": "lasy"}, "missing is 'lasy'; did you mean lazy?"),
        ({"missing": None}, "missing is None. It is one of lazy"),
        ({"missing": ["lazy", "fill"]}, "missing is ['lazy', 'fill']. It is one of lazy"),
        ({"exit_rule": "margin", "threshold": 1}, "unknown exit rule 'margin'"),
        ({"exit_rule": "oracle", "threshold": 1}, "knows the labels: a bound, not a rule to run"),
        ({"exit_rule": "kl"}, "exit rule 'kl' needs a threshold"),
        ({"exit_rule": "max-probability", "threshold": 1.5}, "threshold is 1.5; rule 'max-probability'"),
        ({"exit_rule": "gate", "threshold": 0.5}, "needs a model with an exit gate"),
        ({"threshold": 0.5}, "threshold is 0.5, but no exit_rule is named"),
        ({"temprature": 1}, "unknown option temprature"),
        ({"stop": "x"}, "there is no tokenizer to find it with"),
        ({"stop": ["x", ""], "tokenizer": ByteTokenizer()}, "stop holds ''"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(options: dict[str, Any], message: str) -> None:
    model = byte_model()
    model.core = None  # type: ignore[method-assign,assignment]
    if options.get("exit_rule") == "gate":
        model = byte_model()
    with pytest.raises(ValueError, match=re.escape(message)):
        loopscope.generate(model, IDS, **{"new_tokens": 5} | options)


def test_the_last_position_can_be_used() -> None:
    assert len(loopscope.generate(byte_model(), IDS, 37).tokens[0]) == 37


def test_where_nobody_says_how_many_as_many_are_made_as_fit_and_that_is_said() -> None:
    with pytest.warns(
        UserWarning, match="37 new tokens at most, not the usual 128: the prompt has 4 tokens"
    ) as said:
        made = loopscope.generate(byte_model(), IDS)
    assert len(made.tokens[0]) == 37
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(loopscope.generate(byte_model(positions="rotary"), IDS).tokens[0]) == 128


def test_the_command_makes_as_many_as_fit(
    call: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("generate", str(folder), "--prompt", "one") == 0
    shown = capsys.readouterr()
    assert "note: 38 new tokens at most, not the usual 128" in shown.err
    assert "38 tokens in " in shown.err
    assert call("generate", str(folder), "--prompt", "one", "--new-tokens", "39") == 2
    assert "Ask for at most 38 new tokens" in capsys.readouterr().err


def test_prompts_that_cannot_be_are_refused() -> None:
    model = byte_model()
    with pytest.raises(ValueError, match="the prompt is empty"):
        loopscope.generate(model, torch.zeros(1, 0, dtype=torch.int64))
    with pytest.raises(ValueError, match="the prompt has 41 tokens; this model has 40 learned positions"):
        loopscope.generate(model, torch.zeros(1, 41, dtype=torch.int64))
    with pytest.raises(ValueError, match="input_ids is a list"):
        loopscope.generate(model, [1, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model is a Linear"):
        loopscope.generate(torch.nn.Linear(2, 2), IDS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="from 3 to 999; this model has ids 0 to 299"):
        loopscope.generate(model, torch.tensor([[3, 999]]), 5)


def test_settings_without_effect_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="missing 'fill' has no effect: every token runs all loops"):
        loopscope.generate(byte_model(), IDS, 2, missing="fill")
    with pytest.warns(UserWarning, match="missing 'fill' has no effect: without a cache"):
        loopscope.generate(byte_model(), IDS, 2, missing="fill", cache=False, exit_rule="fixed", threshold=2)


def test_the_command_streams_text_and_says_what_it_cost(
    call: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("generate", str(folder), "--prompt", "one", "--new-tokens", "12") == 0
    shown = capsys.readouterr()
    expected = generate_text(open_model(folder), "one", 12)
    assert shown.out == expected.texts[0] + "\n"
    assert "12 tokens in " in shown.err
    assert "tokens/s, 3 loops, ended by length" in shown.err


def test_the_command_as_json_with_exits(call: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--exit-rule", "fixed", "--threshold", "2", "--new-tokens", "5", "--json"]
    assert call("generate", str(folder), "--prompt", "one", *flags) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["loops"] == [2] * 5
    assert shown["mean_loops"] == 2
    assert shown["depth"] == 3
    assert shown["missing"] == "lazy"
    assert len(shown["tokens"]) == 5
    assert shown["ended"] == "length"


def test_the_prompt_can_come_from_a_file_or_standard_input(
    call: Any,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "prompt.txt").write_text("one", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("one"))
    said = []
    for source in (
        ("--prompt", "one"),
        ("--prompt-file", str(tmp_path / "prompt.txt")),
        ("--prompt-file", "-"),
    ):
        assert call("generate", str(folder), *source, "--new-tokens", "6") == 0
        said.append(capsys.readouterr().out)
    assert len(set(said)) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give the text to go on with"),
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "x" * 41], "this model has 40 learned positions"),
        (["--prompt", "x", "--prompt-file", "y"], "give the text to go on with"),
        (["--prompt-file", "nowhere.txt"], "prompt-file nowhere.txt cannot be read"),
        (["--prompt", "x", "--threads", "0"], "threads is 0"),
        (["--prompt", "x", "--new-tokens", "0"], "new_tokens is 0"),
        (["--prompt", "x", "--temperature", "0"], "temperature is 0"),
        (["--prompt", "x", "--exit-rule", "gate", "--threshold", "0.5"], "exit gate"),
    ],
)
def test_mistakes_end_with_2_and_a_sentence(
    call: Any, folder: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("generate", str(folder), *flags) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
