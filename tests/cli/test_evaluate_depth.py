"""`loopscope evaluate depth` and `compare` as a person meets them: on runs, studies, model folders and last.pt."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from loopscope.report.page import write_report
from loopscope.results import load_comparison, load_evaluation, load_results
from tests.fixtures import TINY, run_command
from tests.report.fixtures import without_files


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    return partial(run_command, monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two conditions, three seeds."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCOPE_CACHE", str(folder / "cache"))
        names = "dense/rmsnorm,dense/final-only"
        out = str(folder / "study")
        arguments = ["study", "--conditions", names, "--seeds", "3", "--out", out, "--quiet", *TINY]
        arguments.append("--training.precision=fp32")  # as evaluation measures
        assert run_command(patch, *arguments) == 0
    return folder


@pytest.fixture
def study(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the study of this test's own."""
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(trained / "cache"))
    return Path(shutil.copytree(trained / "study", tmp_path / "study"))


def test_a_run(call: Any, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = study / "dense_final-only" / "seed-1"
    assert call("evaluate", "depth", path) == 0
    shown = capsys.readouterr().out
    assert "at depth: loop k is the last of k loops" in shown
    assert "2 ◂ trained" in shown
    assert "One seed" in shown
    kept = load_evaluation(path)
    assert kept is not None
    assert (kept.condition, kept.seed, kept.trained_loops) == ("dense/final-only", 1, 2)
    at_depth, as_trained = kept.depth
    assert len(at_depth.per_loop) == 4
    assert kept.prognosis is not None
    assert f"foretold, more loops: {kept.prognosis.fate}" in shown
    # Told from a few of the same windows: two loops past a depth of two are twice as many.
    measured = at_depth.per_loop[3].loss - at_depth.per_loop[1].loss
    assert kept.prognosis.at[0].change == pytest.approx(measured, abs=0.05)
    # What training measured at its end, on the same windows.
    for entry, expected in zip(as_trained.per_loop, load_results(path).runs[0].per_loop, strict=False):
        assert entry.loss == pytest.approx(expected.loss, rel=1e-5)
        assert entry.l2_norm == pytest.approx(expected.l2_norm, rel=1e-5)


def test_a_study_as_json_and_deeper(call: Any, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert call("evaluate", "depth", study, "--loops", "6", "--windows", "4", "--json") == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [(m["condition"], m["seed"]) for m in models] == [
        (name, seed) for name in ("dense/rmsnorm", "dense/final-only") for seed in (0, 1, 2)
    ]
    assert all(len(m["depth"][0]["per_loop"]) == 6 and m["windows"] == 4 for m in models)


def test_a_model_folder_and_a_published_checkpoint(
    call: Any, study: Path, fixtures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model,) = (study / "dense_rmsnorm" / "seed-0" / "checkpoints").iterdir()
    source = fixtures / "dense_final_only"
    text = study.parent / "text.txt"
    text.write_text("The recurrence adds to the state in every loop. " * 400)
    assert (
        call(
            "evaluate", "depth", model, source / "last.pt", "--data", text, "--windows", "3", "--length", "16"
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "8 " in shown
    assert not (source / "evaluation.json").exists()


def test_comparing_a_study(call: Any, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", "compare", study, "--time") == 0
    shown = capsys.readouterr().out
    assert "What the data separates" in shown
    assert "µs per token" in shown
    found = load_comparison(study)
    assert found is not None
    assert found.conditions == ("dense/rmsnorm", "dense/final-only")
    assert len(found.differences) == 4
    assert all(d.seeds == 3 and d.p is not None for d in found.differences)
    assert all(o.seconds_per_token and o.flops_per_token for o in found.options)
    evaluated = load_evaluation(study / "dense_rmsnorm" / "seed-2")
    assert evaluated is not None


@pytest.mark.usefixtures("blank_figures")
def test_a_comparison_of_several_folders_may_be_kept_and_has_a_page(
    call: Any,
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [study / name / "seed-0" for name in ("dense_rmsnorm", "dense_final-only")]
    assert call("evaluate", "compare", *runs, "--loops", "2", "--keep-in", tmp_path / "new" / "kept") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Every loop's figures are in comparison.json" in shown
    assert "At equal FLOPs per byte of text" in shown
    assert "from the config: dense/rmsnorm, dense/final-only" in shown
    found = load_comparison(tmp_path / "new" / "kept")
    assert found is not None
    assert found.equal_flops
    assert load_comparison(study) is None
    without_files(monkeypatch)
    page = write_report(tmp_path / "new" / "kept").read_text()
    assert "dense/rmsnorm, dense/final-only compared" in page
    assert "who is ahead at equal FLOPs" in page
    assert "Not audited" not in page
    (tmp_path / "file").write_text("")
    assert call("evaluate", "compare", *runs, "--keep-in", tmp_path / "file") == 2
    assert "file, a file; name a folder" in capsys.readouterr().err


def test_a_comparison_uses_what_was_evaluated(
    call: Any, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("evaluate", "depth", study, "--loops", "3") == 0
    measured: list[Any] = []
    monkeypatch.setattr("loopscope.jobs.evaluate_compare.depth_of", lambda *given: measured.append(given))
    assert call("evaluate", "compare", study, "--loops", "3", "--json") == 0
    assert not measured
    shown = capsys.readouterr().out
    assert len(json.loads(shown[shown.rindex('{\n "conditions"') :])["differences"]) == 3


def test_unfinished_runs_are_left_out_and_named(
    call: Any, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "dense_rmsnorm" / "seed-1" / "result.json").unlink()
    assert call("evaluate", "compare", study) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "dense_rmsnorm/seed-1 is left out: not finished." in shown
    assert "2 seeds: fewer than 3" in shown


def test_a_comparison_is_cut_to_the_depth_asked_for(
    call: Any, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tests that nobody asked for would be corrected for."""
    assert call("evaluate", "depth", study, "--loops", "5") == 0
    assert call("evaluate", "compare", study, "--loops", "2", "--time") == 0
    found = load_comparison(study)
    assert found is not None
    assert [entry.loop for entry in found.differences] == [1, 2]
    assert found.settings["tests"] == "2"
    assert len(found.options) == 4
    kept = load_evaluation(study / "dense_rmsnorm" / "seed-0")
    assert kept is not None
    assert len(kept.depth[0].per_loop) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["depth"], "give a path to evaluate"),
        (["depth", "RUN", "--loops", "0"], "loops is 0; it must be a whole number from 1 up"),
        (["depth", "RUN", "--batch", "0"], "batch is 0"),
        (["depth", "RUN", "--windows", "-1"], "windows is -1"),
        (["depth", "RUN", "--device", "warp"], "device is 'warp'"),
        (["depth", "RUN", "--length", "17"], "learned positions"),
        (["depth", "nowhere"], "nowhere does not exist"),
        (["depht", "RUN"], "did you mean 'depth'?"),
        (["compare", "RUN"], "a comparison needs two conditions with completed runs"),
        (["compare", "STUDY", "--loops", "0"], "loops is 0"),
        (
            ["compare", "STUDY", "--conditions", "dense/raw,dense/rmsnorm"],
            "condition of these runs 'dense/raw'",
        ),
        (["compare", "STUDY", "--conditions", "dense/rmsnorm"], "needs two conditions with completed runs"),
    ],
)
def test_bad_input(
    call: Any, study: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    places = {"RUN": study / "dense_rmsnorm" / "seed-0", "STUDY": study}
    assert call("evaluate", *(str(places.get(word, word)) for word in arguments)) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert not list(study.rglob("evaluation.json"))
    assert not list(study.rglob("comparison.json"))


@pytest.mark.parametrize("part", [[], ["depth"], ["compare"]])
def test_help_shows_an_example_and_never_loads_torch(part: list[str]) -> None:
    script = f"import sys; sys.argv = ['loopscope', 'evaluate', *{part!r}, '--help']\nimport loopscope.cli\n"
    script += (
        "try:\n    loopscope.cli.main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "loopscope evaluate" in done.stdout
    assert "runs/" in done.stdout


def test_an_evaluation_of_other_text_is_not_lost(
    call: Any, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study / "dense_rmsnorm" / "seed-0"
    assert call("evaluate", "depth", path, "--windows", "4") == 0
    assert "is kept as" not in capsys.readouterr().err
    assert call("evaluate", "depth", path, "--windows", "2") == 0
    assert "windows 4" in capsys.readouterr().err
    now, before = load_evaluation(path), load_evaluation(path / "evaluation.previous.json")
    assert now is not None
    assert before is not None
    assert (now.windows, before.windows) == (2, 4)
    assert len(before.depth[0].window_loss[0]) == 4
