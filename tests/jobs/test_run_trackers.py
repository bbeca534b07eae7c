"""One run with trackers: the same bits as without, and what each tracker has of it. The libraries are the real ones."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from loopscope.jobs.run_trackers import add_to_trackers
from loopscope.jobs.study import run_study
from loopscope.jobs.train import execute
from loopscope.results.layout import WEIGHTS, newest_checkpoint, run_folder
from loopscope.training.loggers import logger_group
from loopscope.training.loggers.base import AbstractLogger
from tests.fixtures import refusal
from tests.jobs.fixtures import TINY, cache, tiny  # noqa: F401 (a fixture)

pytest.importorskip("tensorboard", reason="extra `log`")
pytest.importorskip("trackio", reason="extra `log`")


def weights(run: Path) -> bytes:
    checkpoint = newest_checkpoint(run)
    assert checkpoint is not None
    return (checkpoint / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without trackers."""
    run = tmp_path_factory.mktemp("bare") / "run"
    execute(tiny(), run, quiet=True)
    return run


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two trackers, cut at its second step and gone on with."""
    run = tmp_path_factory.mktemp("logged") / "run"
    log = {"log": ["tensorboard", "trackio"]}
    execute(tiny(training={**log, "steps": 2}), run, quiet=True)
    execute(tiny(training=log), run, resume=True, quiet=True)
    return run


def test_training_is_the_same_bit_for_bit(bare: Path, logged: Path) -> None:
    assert weights(logged) == weights(bare)


def test_tensorboard_has_one_tag_with_a_run_per_loop(logged: Path) -> None:
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    found = EventMultiplexer().AddRunsFromDirectory(str(logged))
    found.Reload()
    runs = found.Runs()
    assert set(runs) == {"tensorboard", "tensorboard/loop-1", "tensorboard/loop-2"}
    kept = [json.loads(line) for line in (logged / "metrics.jsonl").read_text().splitlines()]
    norms = {entry["step"]: entry["l2_norm"] for entry in kept if entry["kind"] == "train"}
    for loop in (1, 2):
        points = found.Scalars(f"tensorboard/loop-{loop}", "loops/scale_rms")
        values = {point.step: point.value for point in points}
        assert len(points) == len(values) == 4  # each step once, also those around the checkpoint
        assert values == pytest.approx({step: norm[loop - 1] / 4 for step, norm in norms.items()})
    assert {"train/loss", "train/learning_rate", "train/gradient_norm", "train/tokens_per_second"} <= set(
        runs["tensorboard"]["scalars"]
    )
    texts = {tag for tag in runs["tensorboard"]["tensors"] if tag.endswith("text_summary")}
    named = {"config.yaml", "result.json", "static verdict", "result"}
    assert {f"{name}/text_summary" for name in named} <= texts


def test_trackio_has_one_metric_with_a_run_per_loop(logged: Path) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    kept = json.loads((logged / "trackers.json").read_text())
    name = f"run-{kept['identity']}"
    runs = [run for run in SQLiteStorage.get_runs("loopscope") if run.startswith(name)]
    assert sorted(runs) == [name, f"{name} loop 1", f"{name} loop 2"]
    rows = SQLiteStorage.get_logs("loopscope", f"{name} loop 2")
    assert [row["step"] for row in rows if "loops/scale_rms" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "loops/validation_loss" in row] == [2, 4]
    assert any("static verdict" in row for row in SQLiteStorage.get_logs("loopscope", name))


def test_what_is_measured_later_reaches_the_same_run(logged: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "page.html").write_text("<p>a page</p>")
    add_to_trackers(logged, {"verdict": "**blind** at every loop"}, tmp_path / "page.html")
    found = EventAccumulator(str(logged / "tensorboard"))
    found.Reload()
    (text,) = found.Tensors("verdict/text_summary")
    assert text.tensor_proto.string_val == [b"**blind** at every loop"]
    blobs = [path for path in Path(os.environ["TRACKIO_DIR"]).rglob("artifacts/**/*") if path.is_file()]
    assert b"<p>a page</p>" in [path.read_bytes() for path in blobs]
    add_to_trackers(tmp_path, {"verdict": "of no run"})  # nothing is there: nothing happens


def test_a_logger_that_fails_changes_no_bit(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopscope.training.loggers.tensorboard import TensorboardLogger

    class Full(TensorboardLogger):
        def numbers(self, step: int, values: Any) -> None:
            if step == 2:
                raise OSError(28, "No space left on device")
            super().numbers(step, values)

    kinds: dict[str, type[AbstractLogger]] = {
        "tensorboard": Full,
        "trackio": AbstractLogger,
    }  # cannot be made
    monkeypatch.setattr(logger_group, "logger_class", kinds.__getitem__)
    with pytest.warns(UserWarning, match="the logger tensorboard failed") as said:
        result = execute(tiny(training={"log": ["tensorboard", "trackio"]}), tmp_path / "run", quiet=True)
    told = [str(warning.message) for warning in said if "the logger" in str(warning.message)]
    assert ["tensorboard" in text or "trackio" in text for text in told] == [True, True]
    assert result.status == "completed"
    assert weights(tmp_path / "run") == weights(bare)


def test_a_thread_of_trackio_that_fails_is_told_once(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SQLiteStorage, "bulk_log", full)
    with pytest.warns(UserWarning, match="the logger trackio failed .*could not be kept") as said:
        execute(tiny(training={"log": ["trackio"]}), tmp_path / "run", quiet=True)
    assert sum("trackio" in str(warning.message) for warning in said) == 1
    assert weights(tmp_path / "run") == weights(bare)


def test_wandb_offline(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="extra `log`")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    execute(tiny(training={"log": "wandb"}), run, quiet=True)
    assert weights(run) == weights(bare)
    identity = json.loads((run / "trackers.json").read_text())["identity"]
    (written,) = run.glob(f"wandb/offline-run-*/run-{identity}.wandb")
    text = written.read_bytes()
    for name in (b"loops/scale_rms/loop_2", b"by_loop/scale_rms", b"train/gradient_norm", b"static verdict"):
        assert name in text, name
    assert f"config-{identity}".encode() in text  # an artifact
    (table,) = run.glob("wandb/offline-run-*/files/media/table/by_loop/scale_rms_table_4_*.json")
    rows = json.loads(table.read_text())["data"]
    assert {row[1] for row in rows} == {"loop 1", "loop 2"}


def test_one_that_is_not_installed_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = logger_group.import_module

    def gone(name: str) -> Any:
        if name == "wandb":
            raise ModuleNotFoundError("No module named 'wandb'")
        return real(name)

    monkeypatch.setattr(logger_group, "import_module", gone)
    config = tiny(training={"log": ["wandb"]})
    for work in (
        lambda: execute(config, tmp_path / "run", quiet=True),
        lambda: run_study("laptop", ["dense/raw"], [0], tmp_path / "study", {"training": {"log": ["wandb"]}}),
    ):
        assert "pip install 'loopscope[log]'" in (refusal(work) or "")
    assert list(tmp_path.iterdir()) == []


def test_a_study_may_have_other_trackers_when_it_goes_on(tmp_path: Path) -> None:
    over = {name: dict(values) for name, values in TINY.items()}
    out = tmp_path / "grid"
    run_study("laptop", ["dense/raw"], [0], out, over, quiet=True)
    over["training"]["log"] = ["tensorboard"]
    run_study("laptop", ["dense/raw", "dense/rmsnorm"], [0], out, over, quiet=True)
    assert not (run_folder(out, "dense/raw", 0) / "tensorboard").exists()  # it is done
    kept = json.loads((run_folder(out, "dense/rmsnorm", 0) / "trackers.json").read_text())
    assert (kept["project"], kept["name"]) == ("grid", "dense_rmsnorm-seed-0")
