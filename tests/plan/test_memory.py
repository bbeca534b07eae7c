"""What a run must at least hold, against the tensors that it does hold; and the refusal before anything is written."""

from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig
from loopscope.jobs import machine
from loopscope.machine_limits import machine_bytes
from loopscope.model.looped import LoopedTransformer
from loopscope.plan.memory import check_memory, least_training_bytes
from loopscope.training.optim import build_optimizer
from tests.fixtures import TINY


def tiny(**training: Any) -> RunConfig:
    model = {"dim": 16, "heads": 2, "layers": 2, "vocabulary": 64, "sequence": 8}
    data = {"tokenizer": {"kind": "word", "vocabulary": 64}}
    return recipe(
        "laptop", "dense/rmsnorm", {"model": model, "data": data, "training": {"batch": 1, **training}}
    )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_least_is_what_weights_gradients_and_moments_take(optimizer: str) -> None:
    config = tiny(optimizer=optimizer)
    model = LoopedTransformer(config.model)
    build = build_optimizer(model, config.training)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    build.step()
    held = sum(2 * 4 * parameter.numel() for parameter in model.parameters())
    moments = [value for state in build.state.values() for value in state.values() if torch.is_tensor(value)]
    held += sum(4 * value.numel() for value in moments if value.numel() > 1)
    least = least_training_bytes(config)
    batch = 8 * (16 + 2 * 16)
    assert least <= held + batch
    assert least == held + batch if optimizer == "adamw" else least > 0.7 * held


def test_the_machine_says_how_much_it_has() -> None:
    found = machine_bytes()
    assert found is None or 2**27 < found < 2**60


def test_what_does_not_fit_is_refused_with_both_figures() -> None:
    config = tiny()
    check_memory(config, least_training_bytes(config))
    check_memory(config, None)
    with pytest.raises(
        ValueError, match=r"takes 0\.\d+ GB at the very least.*this machine has 1e-06 GB.*model\.dim \(16\)"
    ):
        check_memory(config, 1000)


@pytest.mark.parametrize("command", ["train", "study"])
def test_no_folder_is_made_for_a_run_that_cannot_be(
    call: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setattr(machine, "machine_bytes", lambda: 1000)
    assert call(command, "--out", str(tmp_path / "x"), *TINY) == 2
    assert "at the very least" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "cache").exists()
