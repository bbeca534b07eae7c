"""Scripts for shells, sourced in the shells that are here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from loopscope.cli import COMMANDS
from loopscope.cli.completion import bash_script, fish_script, options_by_command, zsh_script
from loopscope.cli.evaluate import EVALUATIONS
from loopscope.cli.options import options_of
from tests.cli.fixtures import CLASSES, class_of


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "loopscope.bash"
    path.write_text(bash_script())
    return path


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words of a command line."""
    line = " ".join(f"'{word}'" for word in words)
    code = (
        f"source '{script}'; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _loopscope 2>/dev/null; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    done = subprocess.run([bash, "--norc", "-c", code], capture_output=True, text=True, cwd=script.parent)
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_parts(script: Path) -> None:
    assert set(completed(script, "loopscope", "")) == {*COMMANDS, "--help", "--version"}
    assert completed(script, "loopscope", "tr") == ["train"]
    assert set(completed(script, "loopscope", "evaluate", "")) == {*EVALUATIONS, "--help"}
    assert completed(script, "loopscope", "completion", "f") == ["fish"]


def test_options_of_a_command_alone(script: Path) -> None:
    offered = completed(script, "loopscope", "audit", "--")
    assert {option.flag for option in options_of(class_of("audit")) if not option.positional} <= set(offered)
    assert not any(flag.startswith("--training.") for flag in offered)
    assert completed(script, "loopscope", "train", "--training.learning") == ["--training.learning-rate"]
    assert "--keep-in" in completed(script, "loopscope", "evaluate", "depth", "--k")


def test_values(script: Path) -> None:
    assert completed(script, "loopscope", "train", "--training.optimizer", "m") == ["muon"]
    assert completed(script, "loopscope", "train", "--training.optimizer", "=", "m") == ["muon"]
    assert completed(script, "loopscope", "train", "--size", "lap") == ["laptop"]
    assert completed(script, "loopscope", "study", "--log", "tensorboard,tr") == ["tensorboard,trackio"]
    # After a switch, and where nothing is known of a value: files.
    assert completed(script, "loopscope", "report", "loop") == ["loopscope.bash"]
    assert completed(script, "loopscope", "train", "--quiet", "loop") == ["loopscope.bash"]


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
