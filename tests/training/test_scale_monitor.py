"""The monitor in Loopscope's own training loop: on by default, kept in the metrics, silent after a resume."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.monitor.alarm import CALL
from loopscope.monitor.monitor import ScaleMonitor
from loopscope.training import scale_monitor as run_monitor
from loopscope.training.config import TrainingConfig
from loopscope.training.metrics import read_metrics
from loopscope.training.progress import ProgressDisplay

Trainer = Any
SETTINGS: dict[str, Any] = {
    "steps": 40,
    "log_every": 1,
    "checkpoint_every": 30,
    "learning_rate": 3e-3,
    "model": {"initialisation": "published", "dropout": 0.1},
}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every line that stays on the display. The runs here check everything at every turn: a step takes 10 ms."""
    lines: list[str] = []
    monkeypatch.setattr(ProgressDisplay, "say", lambda self, text: lines.append(text))
    monkeypatch.setattr(run_monitor, "ScaleMonitor", partial(ScaleMonitor, budget=None))
    return lines


def of_kind(run: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run) if record["kind"] == kind]


def losses(run: Path) -> list[tuple[Any, ...]]:
    return [(r["step"], r["loss"], *r["l2_norm"], r["gradient_norm"]) for r in of_kind(run, "train")]


def warnings_in(lines: list[str]) -> list[str]:
    return [line for line in lines if "has grown and the loss does not see it" in line]


def test_it_is_on_by_default_and_can_be_turned_off(trainer: Trainer, tmp_path: Path) -> None:
    assert TrainingConfig().monitor_every == 20
    trainer("on", steps=2)
    (check,) = of_kind(tmp_path / "on", "monitor")
    assert check["step"] == 1
    assert len(check["rms"]) == 3
    for folder, off in (("zero", 0), ("none", None)):
        trainer(folder, steps=2, monitor_every=off)
        assert of_kind(tmp_path / folder, "monitor") == []
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        TrainingConfig(monitor_every=-1)


def test_a_run_is_the_same_with_and_without_and_warns_once(
    trainer: Trainer, tmp_path: Path, shown: list[str]
) -> None:
    _, watched = trainer("with", **SETTINGS, monitor_every=5)
    _, alone = trainer("without", **SETTINGS, monitor_every=0)
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    for name, value in watched.state_dict().items():
        assert torch.equal(value, alone.state_dict()[name])
    checks = of_kind(tmp_path / "with", "monitor")
    assert [check["step"] for check in checks] == [1, *range(5, 41, 5)]
    assert {check["verdict"] for check in checks} == {"blind"}
    (warning,) = [check["warning"] for check in checks if check["warning"]]
    said = warning.replace(CALL, f"`loopscope audit {tmp_path / 'with'}`")
    assert said != warning  # a run has a command for it
    assert warnings_in(shown) == [f"train: {said}"]


def test_a_resumed_run_repeats_the_bits_and_not_the_warning(
    trainer: Trainer, tmp_path: Path, shown: list[str], killed: Any
) -> None:
    """Killed at step 34, resumed from step 30; and killed before any checkpoint, so that all is said again."""
    trainer("whole", **SETTINGS, monitor_every=5)

    def figures(folder: str) -> list[dict[str, Any]]:
        return [{**check, "seconds": 0} for check in of_kind(tmp_path / folder, "monitor")]

    for folder, step, said in (("late", 34, 1), ("early", 28, 2)):
        shown.clear()
        killed(folder, step, **SETTINGS, monitor_every=5)
        trainer(folder, **SETTINGS, monitor_every=5)
        assert losses(tmp_path / folder) == losses(tmp_path / "whole")
        assert figures(folder) == figures("whole")
        assert len(warnings_in(shown)) == said
