"""A run that goes on: longer than it was to be, or on another machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from loopscope.config.recipes import recipe
from loopscope.jobs.resumption import resumed, started_again
from loopscope.jobs.study import run_study
from loopscope.jobs.train import execute
from loopscope.results.layout import AUDIT, CONFIG, PREVIOUS_AUDIT, WEIGHTS, newest_checkpoint
from loopscope.training.metrics import read_metrics

OVER: dict[str, Any] = {
    "model": {
        "dim": 16,
        "heads": 2,
        "layers": 1,
        "loops": 2,
        "vocabulary": 64,
        "sequence": 16,
        "dropout": 0.1,
    },
    "data": {
        "max_bytes": 40_000,
        "max_validation_bytes": 3_000,
        "tokenizer": {"kind": "word", "vocabulary": 64},
    },
    "training": {"batch": 4, "log_every": 1, "final_windows": 8, "precision": "fp32", "monitor_every": 0},
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("LOOPSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def tiny(**training: Any) -> Any:
    settings = {**OVER["training"], "threads": 1, **training}
    return recipe("laptop", "dense/rmsnorm", {**OVER, "training": settings})


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = newest_checkpoint(run)
    assert checkpoint is not None
    return load_file(checkpoint / WEIGHTS)


def losses(run: Path) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_metrics(run) if record["kind"] == "train"}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 steps, done. Nobody changes it."""
    run = tmp_path_factory.mktemp("short") / "run"
    execute(tiny(steps=4, warmup=2), run, quiet=True)
    return run


def copied(run: Path, to: Path) -> Path:
    for path in run.rglob("*"):
        if path.is_file():
            (to / path.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
            (to / path.relative_to(run)).write_bytes(path.read_bytes())
    return to


def test_a_run_made_longer_is_the_run_that_was_as_long_from_the_start(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, whole = copied(short, tmp_path / "run"), tmp_path / "whole"
    (run / AUDIT).write_text("of step 4")
    with pytest.warns(
        UserWarning, match="audit.json was of step-00000004; it is kept as audit.previous.json"
    ):
        result = execute(tiny(steps=6, warmup=2), run, resume=True)
    assert not (run / AUDIT).exists()
    assert (run / PREVIOUS_AUDIT).read_text() == "of step 4"
    said = " ".join(capsys.readouterr().err.split())
    assert "goes on from step 4 of 6 (step-00000004)" in said
    assert "longer: 6 steps instead of 4, as if it had been so long from the start" in said
    straight = execute(tiny(steps=6, warmup=2), whole, quiet=True)
    assert result.per_loop == straight.per_loop
    assert losses(run) == losses(whole)
    assert result.steps == 6
    found, expected = weights(run), weights(whole)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert yaml.safe_load((run / CONFIG).read_text())["training"]["steps"] == 6


def test_it_is_made_longer_when_asked_to_and_never_shorter(short: Path, tmp_path: Path) -> None:
    run = copied(short, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="already holds this run; add --resume"):
        execute(tiny(steps=6, warmup=2), run, quiet=True)
    for changes, message in (
        ({"steps": 3}, "training.steps: 4 there, 3 now"),
        ({"epochs": 9.0, "steps": None}, "training.epochs: None there, 9.0 now"),
        ({"steps": 6, "warmup": 3}, r"\(training.warmup: 2 there, 3 now\)"),
    ):
        with pytest.raises(ValueError, match=message):
            execute(tiny(**{"warmup": 2, **changes}), run, resume=True, quiet=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_was_auto_is_taken_from_the_folder(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(short, tmp_path / "run")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    config = tiny(steps=4, warmup=2, threads=None, precision="auto")
    with pytest.warns(
        UserWarning, match=r"goes on with .*threads 1, as it began \(this machine would take .*threads 7"
    ):
        result = execute(config, run, resume=True, quiet=True)
    assert result.config["training"]["threads"] == 1
    assert result.config["training"]["precision"] == "fp32"
    assert yaml.safe_load((run / CONFIG).read_text())["training"]["threads"] == 1


def test_where_it_computes_may_be_named_and_a_device_may_be_gone(short: Path, tmp_path: Path) -> None:
    run = copied(short, tmp_path / "run")
    named = resumed(tiny(steps=4, threads=2), run)
    assert named.config.training.threads == 2
    assert "threads 2 (1 until now), and bits may differ" in named.notes[0]
    assert resumed(tiny(steps=4), run).notes == ()
    values = yaml.safe_load((run / CONFIG).read_text())
    values["training"]["device"] = "cuda:77"
    (run / CONFIG).write_text(yaml.safe_dump(values))
    gone = resumed(tiny(steps=4), run)
    assert gone.config.training.device != "cuda:77"
    assert "began on cuda:77, which is not here" in gone.notes[0]
    with pytest.raises(ValueError, match="training.device is 'cuda:77', which cannot be used here"):
        resumed(tiny(steps=4, device="cuda:77"), run)


def test_a_study_is_made_longer_run_by_run(tmp_path: Path) -> None:
    def study(folder: str, steps: int, *conditions: str) -> Any:
        over = {**OVER, "training": {**OVER["training"], "threads": 1, "steps": steps}}
        return run_study("laptop", conditions, [0], tmp_path / folder, over, quiet=True)

    study("study", 2, "dense/raw", "dense/rmsnorm")
    with pytest.warns(UserWarning, match=r"1 of its runs are not named .*first: dense_raw.seed-0"):
        longer = study("study", 3, "dense/rmsnorm")
    assert {run.condition: run.steps for run in longer.runs} == {"dense/raw": 2, "dense/rmsnorm": 3}
    whole = study("whole", 3, "dense/raw", "dense/rmsnorm")
    both = study("study", 3, "dense/raw", "dense/rmsnorm")
    assert {run.condition: run.per_loop for run in both.runs} == {
        run.condition: run.per_loop for run in whole.runs
    }
    assert yaml.safe_load((tmp_path / "study" / "study.yaml").read_text())["over"]["training"]["steps"] == 3
    with pytest.raises(ValueError, match=r"belongs to another config \(training.steps: 3 there, 2 now\)"):
        study("study", 2, "dense/raw")


def test_a_job_that_a_scheduler_starts_again_goes_on_with_the_words_of_the_first_time(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(short, tmp_path / "run")
    with pytest.raises(ValueError, match="add --resume"):
        execute(tiny(steps=4, warmup=2), run, quiet=True)
    for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
        for count, again in (("0", False), ("", False), ("1", True), ("x", False)):
            assert started_again({name: count}) is again
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert execute(tiny(steps=4, warmup=2), run, quiet=True).steps == 4
    assert execute(tiny(steps=4, warmup=2), tmp_path / "new", quiet=True).steps == 4
