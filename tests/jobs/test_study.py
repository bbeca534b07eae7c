"""One study on the embedded corpus, tiny: what is done is skipped, failures are results, a killed one goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from loopscope.jobs import study as study_module
from loopscope.jobs.study import plan, run_study
from loopscope.jobs.train import finished
from loopscope.results import load_results
from tests.jobs.fixtures import TINY, cache  # noqa: F401 (a fixture)


def study(out: Path, **changes: Any) -> Any:
    settings = {"size": "laptop", "conditions": ["dense/rmsnorm", "dense/raw"], "seeds": [0, 1], **changes}
    over = settings.pop("over", TINY)
    return run_study(out=out, over=over, quiet=True, **settings)


def test_a_study_skips_what_is_done_grows_and_refuses_another_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    first = study(out)
    assert [(r.condition, r.seed, r.status) for r in first.runs] == [
        ("dense/rmsnorm", 0, "completed"),
        ("dense/rmsnorm", 1, "completed"),
        ("dense/raw", 0, "completed"),
        ("dense/raw", 1, "completed"),
    ]
    assert load_results(out) == first
    trained: list[str] = []
    real = study_module.execute

    def counted(config: Any, *rest: Any, **named: Any) -> Any:
        trained.append(f"{config.condition} {config.training.seed}")
        return real(config, *rest, **named)

    monkeypatch.setattr(study_module, "execute", counted)
    assert [run.per_loop for run in study(out).runs] == [run.per_loop for run in first.runs]
    assert trained == []
    grown = study(out, conditions=["dense/raw", "terminal/rmsnorm"], seeds=[1, 2])
    assert trained == ["terminal/rmsnorm 1", "dense/raw 2", "terminal/rmsnorm 2"]
    assert len(grown.runs) == 7
    with pytest.raises(ValueError, match=r"belongs to another config \(training.steps: 4 there, 3 now\)"):
        study(out, over={**TINY, "training": {**TINY["training"], "steps": 3}})
    assert load_results(out) == grown


def test_a_run_that_diverges_or_fails_is_a_result_and_the_grid_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopscope.model.readouts.raw import RawReadout

    real = study_module.execute

    def failing(config: Any, *rest: Any, **named: Any) -> Any:
        if config.condition == "terminal/rmsnorm":
            raise RuntimeError("out of memory, say")
        return real(config, *rest, **named)

    monkeypatch.setattr(study_module, "execute", failing)
    monkeypatch.setattr(RawReadout, "forward", lambda self, hidden, loop, loops: hidden * float("nan"))
    names = ["dense/raw", "terminal/rmsnorm", "dense/rmsnorm"]
    results = study(tmp_path / "study", conditions=names, seeds=[0])
    by_name = {run.condition: run for run in results.runs}
    assert {name: run.status for name, run in by_name.items()} == {
        "dense/raw": "diverged",
        "terminal/rmsnorm": "failed",
        "dense/rmsnorm": "completed",
    }
    assert by_name["dense/raw"].failure.step == 1
    assert by_name["dense/raw"].failure.loop == 1
    assert "RuntimeError: out of memory, say" in by_name["terminal/rmsnorm"].failure.message
    json.loads((tmp_path / "study" / "results.json").read_text(), parse_constant=pytest.fail)
    assert finished(tmp_path / "study" / "dense_raw" / "seed-0") is not None


def test_a_study_killed_at_any_file_goes_on(tmp_path: Path) -> None:
    """States that a kill can leave behind: no result yet, no checkpoint yet, a config half written."""
    out = tmp_path / "study"
    first = study(out, seeds=[0])
    run = out / "dense_raw" / "seed-0"
    for damage in ("result.json", "checkpoints", "metrics.jsonl"):
        (run / "result.json").unlink(missing_ok=True)
        shutil.rmtree(run / damage) if (run / damage).is_dir() else (run / damage).unlink(missing_ok=True)
        again = study(out, seeds=[0])
        assert [r.per_loop for r in again.runs] == [r.per_loop for r in first.runs]
    shutil.rmtree(run)
    run.mkdir()
    (run / ".config.yaml.writing").write_text("mod")
    assert study(out, seeds=[0]).runs[1].per_loop == first.runs[1].per_loop


def test_a_plan_is_checked_before_anything_runs(tmp_path: Path) -> None:
    assert [
        (c.condition, c.training.seed) for c in plan("laptop", ["dense/raw", "terminal/raw"], [0, 1])
    ] == [
        ("dense/raw", 0),
        ("terminal/raw", 0),
        ("dense/raw", 1),
        ("terminal/raw", 1),
    ]
    for conditions, seeds, message in (
        ([], [0], "name at least one"),
        (["dense/raw"] * 2, [0], "each once"),
        (["dense/raw"], [], "name at least one"),
        (["dense/rwa"], [0], "did you mean 'dense/raw'"),
    ):
        with pytest.raises(ValueError, match=message):
            run_study("laptop", conditions, seeds, tmp_path / "x", quiet=True)
    assert not (tmp_path / "x").exists()


def test_a_study_from_before_the_monitor_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "study"
    first = study(out, conditions=["dense/raw"], seeds=[0])
    run = out / "dense_raw" / "seed-0"
    old = yaml.safe_load((run / "config.yaml").read_text())
    assert old["training"].pop("monitor_every") == 20
    (run / "config.yaml").write_text(yaml.safe_dump(old))
    assert study(out, conditions=["dense/raw"], seeds=[0]).runs == first.runs  # done: skipped
    (run / "result.json").unlink()
    assert study(out, conditions=["dense/raw"], seeds=[0]).runs[0].per_loop == first.runs[0].per_loop
    assert yaml.safe_load((run / "config.yaml").read_text())["training"]["monitor_every"] == 20


def test_a_failed_run_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = study_module.execute

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the machine was busy")

    monkeypatch.setattr(study_module, "execute", failing)
    assert study(tmp_path / "study", conditions=["dense/raw"], seeds=[0]).runs[0].status == "failed"
    monkeypatch.setattr(study_module, "execute", real)
    assert study(tmp_path / "study", conditions=["dense/raw"], seeds=[0]).runs[0].status == "completed"


def test_a_run_whose_gradient_is_not_cut_has_a_result_of_its_own(tmp_path: Path) -> None:
    """JSON has no infinity: the record's `clip` is null, and the run's is not."""
    over = {**TINY, "training": {**TINY["training"], "clip": float("inf")}}
    for _ in range(2):
        results = study(tmp_path / "study", conditions=["dense/raw"], seeds=[0], over=over)
        assert [run.status for run in results.runs] == ["completed"]
    assert finished(tmp_path / "study" / "dense_raw" / "seed-0") is not None
