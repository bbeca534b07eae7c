"""Help: short first, all of it on request, every option with words, examples that run."""

from typing import Any

import pytest

from loopscope import cli
from loopscope.cli.arguments import FIRST, settings_of_a_run
from loopscope.cli.evaluate import EVALUATIONS
from loopscope.cli.options import options_of
from loopscope.cli.recipes import in_short
from loopscope.config.recipes import CONDITIONS, NAMED
from loopscope.config.sizes import SIZES
from tests.cli.fixtures import CLASSES, class_of


def shown(call: Any, capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    assert call(*typed) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_all_commands_are_here() -> None:
    parts = {f"evaluate {part}" for part in EVALUATIONS}
    assert set(CLASSES) == {*cli.COMMANDS, *parts} - {"evaluate"}


@pytest.mark.parametrize("command", CLASSES)
@pytest.mark.parametrize("columns", ["80", "140"])
def test_help_fits_the_screen_and_has_every_option_of_its_own(
    call: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = shown(call, capsys, *command.split(), "--help")
    lines = text.splitlines()
    assert lines[0].startswith(f"usage: loopscope {command}")
    table = lines[: lines.index("examples:")]
    assert max(map(len, table)) <= min(int(columns), 100)
    assert not any(line != line.rstrip() for line in lines)
    assert len(lines) <= 85, "short help is two screens at most"
    for option in options_of(class_of(command)):
        assert f"  {option.shown}" in text
    assert f"  loopscope {command}" in text


@pytest.mark.parametrize("command", CLASSES)
def test_every_option_has_words(command: str) -> None:
    for option in (*options_of(class_of(command)), *settings_of_a_run().options):
        assert len(option.words) > 10, option.name


@pytest.mark.parametrize("command", ["train", "study"])
def test_the_short_help_shows_what_is_needed_first(
    call: Any, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    text = shown(call, capsys, command, "-h")
    assert len(FIRST) == 10
    for name in (*FIRST, *CONDITIONS, *NAMED, *SIZES):
        assert name.replace("_", "-") in text
    assert "--training.betas" not in text
    hidden = len(settings_of_a_run().options) - 10
    assert f"{hidden} more settings: --help-all lists them" in " ".join(text.split())


def test_all_settings_and_those_of_one_section(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    everything = shown(call, capsys, "train", "--help-all")
    for option in settings_of_a_run().options:
        assert f"  {option.flag}" in everything
    attention = shown(call, capsys, "train", "--help-all", "model.attention")
    assert "--model.attention.qk-norm" in attention
    assert "--model.dim" not in attention
    model = shown(call, capsys, "study", "--help-all", "model")
    assert "--model.dim N" in model
    assert attention.strip() in model
    assert "--training.steps" not in model
    assert call("train", "--help-all", "modle") == 2
    assert "section 'modle' is not known; did you mean model?" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "option"), [("train", "--training.steps"), ("generate", "--new-tokens")])
def test_a_shell_gets_what_it_completes_words_with(
    call: Any, capsys: pytest.CaptureFixture[str], command: str, option: str
) -> None:
    assert option in shown(call, capsys, command, "--tyro-print-completion", "bash")


def test_help_is_a_word_too(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    usage = shown(call, capsys)
    assert shown(call, capsys, "help") == shown(call, capsys, "--help-all") == usage
    assert shown(call, capsys, "help", "report") == shown(call, capsys, "report", "--help")


@pytest.mark.parametrize("words", [[], ["--family", "unlooped-deep"]])
def test_recipes_fit_eighty_columns(
    call: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = shown(call, capsys, "recipes", *words)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert " 2.64M " in text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (43_934_208, "43.9M"),
        (999_600, "1.00M"),
        (1_434_652_672, "1.43B"),
        (120e9, "120B"),
        (1.2e13, "12.0T"),
    ],
)
def test_counts_in_three_digits(number: float, text: str) -> None:
    assert in_short(number) == text


def test_a_command_s_own_options_come_before_those_that_it_shares(
    call: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said = shown(call, capsys, "evaluate", "exits", "--help")
    places = [said.index(f"\n  {name} ") for name in ("PATH", "--rules", "--again", "--batch", "--device")]
    assert places == sorted(places)


def test_what_is_said_without_a_command_fits_eighty_columns(
    call: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call() == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
