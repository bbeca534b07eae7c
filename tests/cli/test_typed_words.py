"""What is typed, held against the options: given again it adds or is refused, and every mistake is one sentence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import tyro

from loopscope.cli.arguments import parse, with_config
from loopscope.cli.generate import Generate
from loopscope.cli.options import options_of
from loopscope.cli.study import Study
from loopscope.cli.typed_words import checked_words
from tests.fixtures import TINY


@dataclass(frozen=True)
class Base:
    """Options that others inherit."""

    count: int | None = None
    """How many. A number."""


@dataclass(frozen=True)
class Some(Base):
    """A command."""

    path: tyro.conf.Positional[Path] = Path()
    """Where."""
    out: Path = Path("there")
    """Folder."""
    conditions: str = "a"
    """Names."""
    stop: tuple[str, ...] = ()
    """Texts."""
    pair: tuple[float, float] = (0.0, 1.0)
    """Two numbers."""
    kind: Literal["one", "two"] = "one"
    """Of two."""
    fast: bool | Literal["auto"] = "auto"
    """Whether."""
    keep: bool = True
    """Keep it."""


def parsed(*typed: str) -> Some:
    return parse(Some, "some", typed)


def test_values_are_what_tyro_makes_of_them() -> None:
    got = parsed("x", "--count=3", "--stop", "a", "-", "--pair", "-1", "1e-3", "--kind", "two", "--no-keep")
    assert got == Some(
        count=3,
        path=Path("x"),
        stop=("a", "-"),
        pair=(-1.0, 0.001),
        kind="two",
        keep=False,
        out=Path("there"),
    )
    assert parsed("--stop=--x", "--fast", "True", "--count", "None") == Some(stop=("--x",), fast=True)
    assert parsed("--conditions", "") == Some(conditions="")


def test_names_and_texts_that_are_given_again_add() -> None:
    assert parsed("--conditions", "a,b", "--conditions=c").conditions == "a,b,c"
    assert parsed("--stop", "a", "--keep", "--stop", "b", "--stop=c").stop == ("a", "b", "c")
    _, _, over = with_config(
        Study, "study", ["--out", "x", *TINY, "--data.corpus=files", "--data.files", "a", "--data.files=b"]
    )
    assert over["data"]["files"] == ["a", "b"]


@pytest.mark.parametrize("word", ["null", "None"])
def test_a_setting_is_emptied_by_yamls_word_and_by_pythons(word: str) -> None:
    """Messages and pages say null, since settings stand in YAML; a text that a command takes may be that word."""
    _, config, _ = with_config(
        Study,
        "study",
        ["--out", "x", *TINY, "--training.evaluate-windows", word, f"--data.validation-split={word}"],
    )
    assert (config.training.evaluate_windows, config.data.validation_split) == (None, None)
    assert parse(Generate, "generate", ["runs/x", "--prompt", "null"]).prompt == "null"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--count 1 --count 2", "--count is given twice ('1', then '2'); give it once"),
        ("--count=1 --count=1", "--count is given twice"),
        ("--keep --no-keep", "--keep is given twice ('--keep', then '--no-keep')"),
        ("--pair 1 2 --pair 3 4", "--pair is given twice"),
        ("--count", "--count needs a value: --count N"),
        (
            "--count --keep",
            "--count needs a value: --count N; where the value begins with -, write --count=--keep",
        ),
        ("--pair 1", "--pair needs 2 values: --pair X X"),
        ("--count three", "--count is 'three'; it must be a whole number"),
        ("--count 1.5", "--count is '1.5'; it must be a whole number"),
        ("--pair 1 x", "--pair is 'x'; it must be a number"),
        ("--kind tow", "--kind is 'tow'; it is one of one, two; did you mean two?"),
        ("--fast yes", "--fast is 'yes'; it is one of True, False, auto"),
        ("--keep=yes", "--keep takes no value; write --keep, or --no-keep for its opposite"),
        ("--no-count", "unknown option --no-count"),
        ("--counts 3", "unknown option --counts; did you mean --count?"),
        ("-o x", "unknown option -o; did you mean --out?"),
        ("--verysilly", "unknown option --verysilly. loopscope some --help says more"),
        ("x y", "'y' is one word too many: loopscope some takes PATH"),
    ],
)
def test_mistakes(typed: str, message: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        parsed(*typed.split())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named_with_its_words() -> None:
    with pytest.raises(ValueError, match=r"--out is missing: Folder of the study\. loopscope study --help"):
        with_config(Study, "study", [])


@pytest.mark.parametrize("command", ["train", "study"])
@pytest.mark.parametrize(
    "typed", [["--training.steps", "2", "--training.steps", "3"], ["--size", "laptop", "--size=x"]]
)
def test_a_setting_of_a_run_given_twice_is_refused_before_a_folder_is_made(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, typed: list[str]
) -> None:
    assert call(command, "--out", str(tmp_path / "x"), *typed) == 2
    assert "is given twice" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_conditions_that_are_given_one_by_one_are_all_named() -> None:
    words = checked_words("study", options_of(Study), ["--out=x", "--conditions", "a", "--conditions", "b,c"])
    assert words == ["--out=x", "--conditions=a,b,c"]
