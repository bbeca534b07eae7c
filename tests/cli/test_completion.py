"""Scripts for shells, sourced in the shells that are here."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loopscope.cli import COMMANDS, TRUST
from loopscope.cli.completion import (
    BEFORE,
    LISTS,
    NAMES,
    bash_script,
    fish_script,
    options_by_command,
    zsh_script,
)
from loopscope.cli.evaluate import EVALUATIONS
from loopscope.cli.options import options_of
from loopscope.evaluation.exits.rules import RULES
from loopscope.model.config.variants import CARRIES, INJECTIONS, READOUTS
from loopscope.objectives.placement_config import PLACEMENTS
from tests.cli.fixtures import CLASSES, class_of


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "loopscope.bash"
    path.write_text(bash_script())
    return path


def completed(script: Path, line: str, breaks: str = " \t\n\"'><=;|&(:") -> list[str]:
    """What bash offers for the end of a command line, a line each; `breaks` are what it takes words apart at."""
    code = (
        f"source '{script}'; COMP_LINE='{line}'; COMP_POINT={len(line)}; COMP_WORDBREAKS='{shell_text(breaks)}'; "
        '_loopscope 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    done = subprocess.run([bash, "--norc", "-c", code], capture_output=True, text=True, cwd=script.parent)
    assert done.stderr == ""
    return [word.rstrip() for word in done.stdout.splitlines() if word]


def shell_text(text: str) -> str:
    """A text within single quotes."""
    return text.replace("'", "'\\''")


def test_commands_and_parts(script: Path) -> None:
    assert set(completed(script, "loopscope ")) == {*COMMANDS, "help", *BEFORE}
    assert completed(script, "loopscope tr") == ["train"]
    assert set(completed(script, "loopscope evaluate ")) == {*EVALUATIONS, "--help"}
    assert completed(script, "loopscope completion f") == ["fish"]


def test_a_command_behind_words_that_every_command_takes(script: Path) -> None:
    assert completed(script, "loopscope help tr") == ["train"]
    assert completed(script, "loopscope --import mine tra") == ["train"]
    assert completed(script, "loopscope --import ") == []
    assert completed(script, f"loopscope {TRUST} audit --fa") == ["--fast"]
    assert completed(script, "loopscope audit --trust") == [TRUST]


def test_options_of_a_command_alone(script: Path) -> None:
    offered = completed(script, "loopscope audit --")
    assert {option.flag for option in options_of(class_of("audit")) if not option.positional} <= set(offered)
    assert not any(flag.startswith("--training.") for flag in offered)
    assert completed(script, "loopscope train --training.learning") == ["--training.learning-rate"]
    assert "--keep-in" in completed(script, "loopscope evaluate depth --k")


def test_values(script: Path) -> None:
    assert completed(script, "loopscope train --training.optimizer m") == ["muon"]
    assert completed(script, "loopscope train --training.optimizer=m") == ["muon"]
    assert completed(script, "loopscope train --size lap") == ["laptop"]
    assert completed(script, "loopscope study --log tensorboard,tr") == ["tensorboard,trackio"]
    assert completed(script, "loopscope train --condition dense/rmsnorm+p") == ["dense/rmsnorm+penalty"]
    assert completed(script, "loopscope generate runs/x --exit-rule di") == ["direction-step"]
    assert completed(script, "loopscope retrofit x --readout ra") == ["raw"]


def test_a_value_with_a_colon_is_completed_behind_it_where_bash_takes_words_apart_there(script: Path) -> None:
    line = "loopscope train --condition unlooped:dense/ra"
    assert completed(script, line) == ["dense/raw"]
    assert completed(script, line, breaks=" ") == ["unlooped:dense/raw"]


def test_files(script: Path) -> None:
    """After a switch, and where nothing is known of a value."""
    assert completed(script, "loopscope report loop") == ["loopscope.bash"]
    assert completed(script, "loopscope train --quiet loop") == ["loopscope.bash"]
    (script.parent / "two words.txt").touch()
    assert completed(script, "loopscope report two") == ["two words.txt"]


def test_words_that_are_offered_are_those_that_there_are() -> None:
    def shipped(names: Any) -> list[str]:
        return [name for name in names.shipped if name != "none"]

    for name, variants in (("readout", READOUTS), ("carry", CARRIES), ("injection", INJECTIONS)):
        assert NAMES[name] == shipped(variants), name
    assert set(NAMES["objective"]) == {name for name in PLACEMENTS.shipped if not name.startswith("gate-")}
    assert NAMES["rules"] == list(RULES)
    assert NAMES["exit_rule"] == [name for name in RULES if name != "oracle"]  # which reads the labels
    for name in LISTS:
        assert name in NAMES


def test_every_command_is_in_it() -> None:
    assert set(options_by_command()) == set(CLASSES)


@pytest.mark.parametrize(("shell", "make"), [("zsh", zsh_script), ("fish", fish_script)])
def test_other_shells_read_theirs(shell: str, make: object, tmp_path: Path) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"no {shell} here")
    file = tmp_path / "script"
    file.write_text(make())  # type: ignore[operator]
    done = subprocess.run([path, "-n", str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
