"""A schedule of objectives from the command line to the page: trained, gone on with, audited, shown."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loopscope.config.own_conditions import own_recipe
from loopscope.jobs import run_study
from loopscope.report import write_report
from loopscope.results import RunPhase, load_results
from loopscope.results.layout import AUDIT
from tests.fixtures import run_command
from tests.jobs.fixtures import OVER, TINY
from tests.report.fixtures import Tags, figure_data, without_files

PHASES = [{"until": 0.75, "placement": "dense", "norm_penalty": 0.01}, {"placement": "terminal"}]
EIGHT = {**OVER["training"], "steps": 8, "monitor_every": 4, "checkpoint_every": 2, "evaluate_every": 2}
SHARED: dict[str, Any] = {**OVER, "data": TINY["data"], "training": EIGHT}
VARIANT = {"condition": "dense/rmsnorm", "objective": {"schedule": PHASES}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A condition by name and a variant with a schedule, trained and audited."""
    folder = tmp_path_factory.mktemp("scheduled")
    values = {**SHARED, "size": "laptop", "variants": {"released": VARIANT}}
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        words = ["study", "--config", folder / "study.yaml", "--quiet", "--seeds", "1", "--out", folder / "s"]
        assert run_command(patch, *words, "--conditions", "dense/rmsnorm,released") == 0
        yield folder / "s"


def run_of(study: Path) -> Path:
    return next(path.parent for path in study.rglob("config.yaml") if "schedule" in path.read_text())


def test_a_variant_of_a_study_has_a_schedule(study: Path) -> None:
    runs = {run.condition: run for run in load_results(study).runs}
    assert runs["dense/rmsnorm"].phases == ()
    assert runs["released"].phases == (
        RunPhase(1, 1, 6, "dense + norm_penalty"),
        RunPhase(2, 7, 8, "terminal"),
    )
    assert (
        "Trained on dense + norm_penalty (steps 1-6), then terminal (steps 7-8)." in runs["released"].lines()
    )
    written = yaml.safe_load((run_of(study) / "config.yaml").read_text())["objective"]
    assert written.keys() == {"schedule"}
    assert [phase["placement"] for phase in written["schedule"]] == ["dense", "terminal"]
    with pytest.raises(ValueError, match="shortcut beside schedule"):  # what runs share is not dropped unsaid
        own_recipe("laptop", "released", VARIANT, {"objective": {"shortcut": {"weight": 0.1}}})
    assert (
        len(run_study("laptop", ["released"], [0], study, SHARED, True, True, {"released": VARIANT}).runs)
        == 2
    )


def test_an_audit_judges_the_last_phase_and_names_the_others(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(study)
    assert run_command(monkeypatch, "audit", run, "--sequences", "2") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "judged under the last phase, terminal (steps 7-8); not under dense + norm_penalty (steps 1-6)."
        in said
    )
    assert "Judged under its own objective, terminal." in said
    report = json.loads((run / AUDIT).read_text())
    assert (report["objective"], report["verdict"]) == ("terminal", "blind")
    assert run_command(monkeypatch, "audit", run, "--fast", "--objective", "dense+norm_penalty=0.01") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "VISIBLE" in said.upper()
    assert "last phase" not in said


@pytest.mark.usefixtures("blank_figures")
def test_the_page_marks_the_switch_and_says_it(study: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        without_files(patch)
        text = write_report(study, tmp_path / "page.html").read_text()
    words = " ".join(" ".join(Tags(text).words).split())
    assert "released was trained on dense + norm_penalty (steps 1-6), then terminal (steps 7-8)." in words
    figures = figure_data(text)
    for key in ("scale-last-loop", "learning"):
        lines = [
            shape for shape in figures[key]["layout"]["shapes"] if shape.get("x0") == shape.get("x1") == 7
        ]
        assert len(lines) == 1, key
    texts = [note["text"] for note in figures["scale-last-loop"]["layout"]["annotations"]]
    assert "released: terminal" in texts
    panels = [
        shape["xref"] for shape in figures["scale-per-loop"]["layout"]["shapes"] if shape.get("x0") == 7
    ]
    assert panels == ["x2"]  # the panel of the condition that switches


def test_from_flags_and_made_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SHARED))
    out = tmp_path / "run"
    words = ["train", "--config", tmp_path / "run.yaml", "--out", out, "--condition", "mine"]
    flags = ["--model.readout.kind", "rmsnorm", "--objective.schedule", json.dumps(PHASES)]
    assert run_command(monkeypatch, *words, *flags) == 0
    capsys.readouterr()
    assert run_command(monkeypatch, "train", "--out", out, "--resume", "--training.steps", "16") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "phase 1 of objective.schedule (dense + norm_penalty) now ends at step 12, not 6" in said
    (run,) = load_results(out).runs
    assert [(phase.number, phase.first, phase.last) for phase in run.phases] == [
        (1, 1, 6),
        (2, 7, 8),
        (1, 9, 12),
        (2, 13, 16),
    ]
    for flag, message in (
        ("--objective.placement=dense", "placement beside schedule"),
        ("--objective.schedule=[{until: 0.5}, {placement: terminal}]", "belongs to another config"),
        ("--objective.schedule=[{until: 0.5", "schedule"),
    ):
        assert run_command(monkeypatch, "train", "--out", out, "--resume", flag) == 2
        assert message in " ".join(capsys.readouterr().err.split())
