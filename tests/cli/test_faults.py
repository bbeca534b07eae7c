"""Full disks, limits, and names that are too long, on every command: one sentence, and what was saved is whole."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from loopscope.jobs import run_study
from loopscope.results import load_evaluation
from loopscope.results.layout import run_folder
from tests.fixtures import TINY
from tests.jobs.fixtures import OVER
from tests.results.fixtures import file_limit

LONG = "x" * 300


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A study of two runs, evaluated once."""
    patch = pytest.MonkeyPatch()
    patch.setenv("LOOPSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
    out = tmp_path_factory.mktemp("study")
    run_study("laptop", ["dense/raw", "dense/rmsnorm"], [0], out, OVER, quiet=True)
    yield out
    patch.undo()


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "study"))


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--out", LONG, *TINY],
        ["study", "--out", LONG, *TINY],
        ["audit", LONG],
        ["evaluate", "depth", LONG],
        ["evaluate", "exits", LONG],
        ["evaluate", "compare", LONG],
        ["generate", LONG, "--prompt", "x"],
        ["report", LONG],
        ["import-published", LONG, "out"],
    ],
    ids=lambda words: " ".join(words[:2]).replace(LONG, ""),
)
def test_a_name_that_is_too_long_is_a_sentence(
    words: list[str],
    call: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*words) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("loopscope: ")
    assert "the name is longer than the file system takes" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "cache"])


def test_training_into_a_full_disk_is_a_sentence_and_goes_on_when_there_is_room(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert call("train", "--out", out, *TINY, "--quiet", "--training.steps=1") == 0  # fills the token cache
    shutil.rmtree(out)
    capsys.readouterr()
    with file_limit(20_000):  # room for the config, and for no weights
        assert call("train", "--out", out, *TINY, "--quiet") == 2
    said = capsys.readouterr().err.splitlines()[-1]  # after notes on the text
    assert said.startswith(
        f"loopscope: {out / 'checkpoints' / 'step-00000003'}: the file would be larger than"
    )
    assert list((out / "checkpoints").iterdir()) == []
    assert call("train", "--out", out, *TINY, "--quiet", "--resume") == 0


def test_what_was_measured_is_shown_where_it_cannot_be_kept(
    study: Path, call: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = (run_folder(study, name, 0) for name in ("dense/raw", "dense/rmsnorm"))
    assert call("evaluate", "depth", run, "--windows", 4) == 0
    before = files(study)
    for words, kept in (
        (["audit", run, "--sequences", 1], "the audit of dense/raw was measured but not kept"),
        (["evaluate", "depth", run, "--windows", 5], "the evaluation of dense/raw was measured but not kept"),
        (
            ["evaluate", "exits", other, "--windows", 5, "--pairs", 0],
            "the evaluation of dense/rmsnorm was measured",
        ),
    ):
        capsys.readouterr()
        with file_limit(300):
            assert call(*words) == 0
        said = capsys.readouterr()
        assert kept.split(" ")[3] in said.out
        (note,) = [line for line in said.err.splitlines() if "not kept" in line]
        assert kept in note
        assert "the file would be larger" in note
        assert files(study) == before
    assert call("evaluate", "depth", run, "--windows", 5) == 0
    previous = load_evaluation(run / "evaluation.previous.json")
    assert previous is not None
    assert previous.windows == 4


@pytest.mark.parametrize("words", [["report"], ["evaluate", "compare"]], ids=" ".join)
def test_pages_and_comparisons_that_cannot_be_written(
    words: list[str], study: Path, call: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] == "evaluate":
        assert call("evaluate", "depth", study, "--windows", 4) == 0
    before = files(study)
    capsys.readouterr()
    with file_limit(300):
        assert call(*words, study) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"loopscope: {study}")
    assert "the file would be larger than" in said
    assert {path: content for path, content in files(study).items() if path in before} == before


def test_an_import_that_fails_leaves_no_folder(
    fixtures: Path, call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models" / "dense"
    with file_limit(2000):
        assert call("import-published", fixtures / "dense_rmsnorm" / "last.pt", out) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"loopscope: {out}: the file would be larger than")
    assert list(out.parent.iterdir()) == []
    assert call("import-published", fixtures / "dense_rmsnorm" / "last.pt", out) == 0


def test_an_ingestion_into_a_full_disk_names_the_cache_and_leaves_nothing(
    call: Any, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with file_limit(2000):
        assert call("train", "--out", tmp_path / "run", *TINY, "--quiet") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"loopscope: {cache}/stdlib-word-")
    assert "the file would be larger than" in said
    assert list(cache.iterdir()) == []
    assert not (tmp_path / "run").exists()
