"""The monitor as a callback of the Hugging Face Trainer: figures where the trainer's go, and not a bit changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import HrmTextConfig, HrmTextForCausalLM, Trainer, TrainerCallback

import loopscope
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.monitor.hf_callback import ScaleMonitorCallback
from loopscope.monitor.monitor import ScaleMonitor
from loopscope.objectives.objective import Objective
from loopscope.objectives.placements import Dense, Terminal
from loopscope.recurrence import unroll
from tests.training.fixtures import trainer_arguments

VOCABULARY, SEQUENCE = 17, 12
DATA = [(torch.arange(SEQUENCE + 1) + start) % VOCABULARY for start in range(64)]


class ForTrainer(nn.Module):
    """A looped model with the loss that a Trainer wants."""

    def __init__(self, looped: LoopedTransformer) -> None:
        super().__init__()
        self.looped = looped

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        states = unroll(self.looped, input_ids[:, :-1])
        return {"loss": Objective(Dense())(states, labels[:, 1:]).total}


class Reports(TrainerCallback):
    """What a tracker such as tensorboard is given."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.seen.append(dict(logs))


def make(
    folder: Path, dataset: Any = None, steps: int = 30, model: nn.Module | None = None, **settings: Any
) -> tuple[Trainer, ScaleMonitor]:
    torch.manual_seed(0)
    looped = LoopedTransformer(
        ModelConfig(
            dim=32,
            heads=2,
            layers=1,
            loops=3,
            vocabulary=VOCABULARY,
            sequence=SEQUENCE,
            dropout=0.1,
            initialisation="published",
            **settings,
        )
    )
    arguments = trainer_arguments(folder, steps, learning_rate=3e-3, save_strategy="steps", save_steps=20)
    items = [{"input_ids": tokens, "labels": tokens} for tokens in DATA]
    trainer = Trainer(model=model or ForTrainer(looped), args=arguments, train_dataset=dataset or items)
    return trainer, ScaleMonitor(looped, every=5, budget=None)


def losses(trainer: Trainer) -> list[tuple[int, float, float]]:
    return [(e["step"], e["loss"], e["grad_norm"]) for e in trainer.state.log_history if "loss" in e]


def monitored(trainer: Trainer) -> dict[int, dict[str, float]]:
    return {e["step"]: e for e in trainer.state.log_history if "loopscope/growth" in e}


@pytest.mark.smoke
def test_figures_reach_trackers_and_training_is_the_same(tmp_path: Path) -> None:
    alone, _ = make(tmp_path / "alone")
    alone.train()
    trainer, monitor = make(tmp_path / "watched")
    reports = Reports()
    trainer.add_callback(reports)
    trainer.add_callback(ScaleMonitorCallback(trainer, monitor))
    with pytest.warns(UserWarning, match="has grown and the loss does not see it") as caught:
        trainer.train()
    assert len([w for w in caught if "has grown" in str(w.message)]) == 1
    assert losses(trainer) == losses(alone)
    assert len(losses(trainer)) == 30
    found = monitored(trainer)
    assert list(found) == [1, 5, 10, 15, 20, 25, 30]
    assert {entry["loopscope/blind"] for entry in found.values()} == {1.0}
    assert [entry["loopscope/rms_loop_3"] for entry in found.values()] == [
        check.rms[-1] for check in monitor.history
    ]
    assert {"loopscope/carry_loop_1", "loopscope/exposure_loop_3"} <= set(found[30])
    assert len([logs for logs in reports.seen if "loopscope/rms_loop_1" in logs]) == 7
    assert all(isinstance(value, float | int) for entry in found.values() for value in entry.values())


def test_a_resumed_training_does_not_warn_again(tmp_path: Path) -> None:
    trainer, monitor = make(tmp_path, steps=20)
    trainer.add_callback(ScaleMonitorCallback(trainer, monitor))
    with pytest.warns(UserWarning, match="has grown"):
        trainer.train()
    again, resumed = make(tmp_path, steps=30)
    again.add_callback(ScaleMonitorCallback(again, resumed))
    said: list[str] = []
    resumed.tell = said.append
    again.train(resume_from_checkpoint=True)
    assert said == []
    assert [check.step for check in resumed.history] == [1, 5, 10, 15, 20, 25, 30]
    assert resumed.history[0].rms == monitor.history[0].rms
    assert resumed.history[-1].growth > 0.5


def test_a_model_whose_loss_sees_its_scale_is_left_in_peace(tmp_path: Path) -> None:
    trainer, monitor = make(tmp_path, readout="raw")
    said: list[str] = []
    monitor.tell = said.append
    trainer.add_callback(ScaleMonitorCallback(trainer, monitor))
    trainer.train()
    assert {check.verdict for check in monitor.history} == {"visible"}
    assert said == []


def test_a_probe_of_ones_own(tmp_path: Path) -> None:
    trainer, monitor = make(tmp_path, steps=1)
    probe = torch.stack(DATA[3:5])
    trainer.add_callback(ScaleMonitorCallback(trainer, monitor, probe=probe))
    trainer.train()
    looped = monitor.model.eval()
    expected = [s.hidden.detach().square().mean(-1).sqrt().mean() for s in unroll(looped, probe[:, :-1])]
    assert monitor.history[0].rms == pytest.approx([float(size) for size in expected], rel=1e-5)


def test_labels_beside_their_own_tokens_are_shifted(tmp_path: Path) -> None:
    """As transformers has them; without the shift every label would be its own input, and the monitor would say so."""
    trainer, monitor = make(tmp_path, steps=1)
    said: list[str] = []
    monitor.tell = said.append
    callback = ScaleMonitorCallback(trainer, monitor)
    trainer.add_callback(callback)
    trainer.train()
    assert callback.tokens is not None
    input_ids, labels = callback.tokens
    assert torch.equal(input_ids, torch.stack(DATA[:2])[:, :-1])
    assert torch.equal(labels, torch.stack(DATA[:2])[:, 1:])
    assert len(monitor.history) == 1
    assert said == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.smoke
def test_a_model_of_transformers_through_adapt(tmp_path: Path, dtype: torch.dtype) -> None:
    """HRM-Text as it is, trained by its own loss, also with weights in half precision; a norm ends its stack."""

    def train(watched: bool) -> tuple[Trainer, ScaleMonitor | None]:
        torch.manual_seed(0)
        model = HrmTextForCausalLM(
            HrmTextConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                head_dim=16,
                num_attention_heads=2,
                H_cycles=3,
                L_cycles=2,
            )
        ).to(dtype)
        trainer, _ = make(tmp_path, steps=6, model=model)
        if not watched:
            trainer.train()
            return trainer, None
        monitor = ScaleMonitor(loopscope.adapt(model), Objective(Terminal()), every=3, budget=None)
        trainer.add_callback(ScaleMonitorCallback(trainer, monitor))
        trainer.train()
        return trainer, monitor

    alone, _ = train(watched=False)
    trainer, monitor = train(watched=True)
    assert losses(trainer) == losses(alone)
    assert monitor is not None
    assert [check.verdict for check in monitor.history] == ["removed"] * 3


class Stream(torch.utils.data.IterableDataset[dict[str, Tensor]]):
    """Training data that can only be read in order."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return ({"input_ids": tokens, "labels": tokens} for tokens in DATA)


def test_what_it_cannot_do_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, monitor = make(tmp_path, dataset=Stream(), steps=1)
    trainer.add_callback(ScaleMonitorCallback(trainer, monitor))
    with pytest.raises(ValueError, match="is a Stream, whose first sequences cannot be read"):
        trainer.train()
    trainer, monitor = make(tmp_path, steps=1)
    trainer.add_callback(ScaleMonitorCallback(trainer, monitor))
    monkeypatch.setattr(trainer, "is_deepspeed_enabled", True)
    callback = trainer.callback_handler.callbacks[-1]
    with pytest.raises(ValueError, match="shards its weights by FSDP1 or DeepSpeed"):
        callback.on_train_begin(trainer.args, trainer.state, trainer.control)
