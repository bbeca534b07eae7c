"""`loopscope evaluate tasks` as a person meets it: scores by depth, what is kept, and mistakes in one sentence."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from loopscope.data.tokenizers import ByteTokenizer
from loopscope.interop.model_folder import save_model
from loopscope.report.page import write_report
from loopscope.results import load_tasks
from tests.fixtures import run_command
from tests.report.fixtures import without_files

pytest.importorskip("lm_eval")
from tests.evaluation.tasks.fixtures import byte_folder as byte_folder
from tests.evaluation.tasks.fixtures import byte_model
from tests.evaluation.tasks.fixtures import few_tasks as few_tasks
from tests.evaluation.tasks.fixtures import questions as questions


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    return partial(run_command, monkeypatch, "evaluate", "tasks")


@pytest.fixture
def folder(byte_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model of this test's own."""
    return Path(shutil.copytree(byte_folder, tmp_path / "model"))


@pytest.mark.usefixtures("blank_figures")
def test_scores_are_shown_kept_and_drawn(
    call: Any,
    folder: Path,
    questions: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert call(folder, "--tasks", "colours", "--include-path", questions, "--loops", "1,2,4") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    words = " ".join(shown.out.split())
    assert "4 ◂" in words
    assert "acc_norm ↑" in words
    assert "likelihoods of all depths from one unroll." in words
    kept = load_tasks(folder)
    assert kept is not None
    assert [(s.task, s.loops, len(s.metrics)) for s in kept.tasks] == [("colours", (1, 2, 4), 2)]
    # Another task, at other depths: the first stays. What is printed is the new one alone.
    more = ("--tasks", "endings", "--include-path", questions, "--loops", "2", "--json")
    assert call(folder, *more) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [scores["task"] for scores in printed["tasks"]] == ["endings"]
    kept = load_tasks(folder)
    assert kept is not None
    assert [(s.task, s.loops) for s in kept.tasks] == [("colours", (1, 2, 4)), ("endings", (2,))]
    without_files(monkeypatch)
    page = write_report(folder).read_text()
    assert "Benchmarks by depth" in page
    assert "colours at every depth" in page


def test_benchmarks_of_another_model_make_room(
    call: Any, folder: Path, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--tasks", "colours", "--include-path", questions, "--loops", "1", "--limit", "2")
    assert call(folder, *asked) == 0
    for name in ("config.yaml", "model.safetensors", "tokenizer.json", "manifest.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "tasks.json").rename(folder.parent / "tasks.json")
    save_model(byte_model(layers=2), folder, {}, {"tokenizer.json": ByteTokenizer().to_text()})
    (folder.parent / "tasks.json").rename(folder / "tasks.json")
    assert "trained depth" not in capsys.readouterr().out, "no column is it"
    assert call(folder, *asked) == 0
    assert "is kept as tasks.previous.json" in capsys.readouterr().err
    now, before = load_tasks(folder), load_tasks(folder / "tasks.previous.json")
    assert now is not None
    assert before is not None
    assert now.parameters > before.parameters
    assert (now.tasks[0].documents, now.tasks[0].of) == (2, 12)


@pytest.mark.usefixtures("few_tasks")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "colours", "--loops", "0"], "'0' is no depth: give whole numbers from 1"),
        (["--tasks", "colours", "--loops", "2,x"], "'x' is no depth"),
        (["--tasks", ""], "tasks is empty"),
        (["--tasks", "colors"], "did you mean 'colours'"),
        (["--tasks", "colours", "--limit", "0"], "limit is 0"),
        (["--tasks", "colours", "--fewshot", "-1"], "fewshot is -1; it must be a whole number from 0 up"),
        (["--tasks", "lines"], "neither a BOS nor an EOS token to stand there; name a text of one token"),
        (["--tasks", "lines", "--prefix", "ab"], "prefix is 'ab', which is 2 tokens"),
        (["--tasks", "endings", "--length", "4"], "task endings asks for up to 5 new tokens"),
        (["--tasks", "colours", "--length", "3"], "tokens, and model reads at most 3; --length says"),
    ],
)
def test_bad_input(
    call: Any,
    folder: Path,
    questions: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert call(folder, "--include-path", questions, *words) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1
    assert load_tasks(folder) is None


@pytest.mark.usefixtures("few_tasks")
def test_a_task_that_needs_a_network_is_refused_before_the_model_is_opened(
    call: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model is not there at all: the task is what is said first."""
    assert call("nowhere", "--tasks", "arc_easy") == 2
    shown = capsys.readouterr().err
    assert "task arc_easy needs data from the Hugging Face hub" in shown
    assert "--include-path" in shown
    assert len(shown.splitlines()) == 1


def test_without_the_harness_the_extra_is_named(
    call: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert call(folder, "--tasks", "colours") == 2
    assert "not installed: pip install 'loopscope[eval]'" in capsys.readouterr().err


def test_help_shows_an_example_and_never_loads_torch() -> None:
    script = "import sys; sys.argv = ['loopscope', 'evaluate', 'tasks', '--help']\nimport loopscope.cli\n"
    script += (
        "try:\n    loopscope.cli.main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "loopscope evaluate tasks runs/" in done.stdout
