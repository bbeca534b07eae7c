"""The training loop: it learns, resumes bit for bit, accumulates exactly, and stops on what is not finite."""

import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.model import LoopedTransformer, ModelConfig
from loopscope.objectives import build_objective
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Loss, Objective
from loopscope.results.layout import newest_checkpoint
from loopscope.training import loop as loop_module
from loopscope.training.config import TrainingConfig
from loopscope.training.hardware import resolve_device, resolve_precision
from loopscope.training.loop import step_seed, total_steps
from loopscope.training.metrics import read_metrics
from loopscope.training.optim import build_optimizer
from loopscope.training.step import TrainingStep

Trainer = Any


def losses(run: Path) -> dict[int, tuple[float, ...]]:
    return {
        record["step"]: (record["loss"], *record["l2_norm"], record["gradient_norm"])
        for record in read_metrics(run)
        if record["kind"] == "train"
    }


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [value.detach().clone() for value in model.state_dict().values()]


@pytest.mark.smoke
def test_it_learns_and_reports_every_loop(trainer: Trainer, tmp_path: Path) -> None:
    outcome, _ = trainer(steps=120, learning_rate=1e-2)
    assert outcome.failure is None
    assert [metrics.loop for metrics in outcome.per_loop] == [1, 2, 3]
    last = outcome.per_loop[-1]
    assert last.loss < 0.5 * math.log(17)
    assert last.perplexity == pytest.approx(math.exp(last.loss))
    assert last.bits_per_byte == pytest.approx(last.loss / math.log(2) / 2.0)
    assert last.l2_norm == pytest.approx(last.rms * 4, rel=1e-5)
    assert outcome.progress.tokens == 120 * 4 * 12
    records = read_metrics(tmp_path / "run")
    assert [r["step"] for r in records if r["kind"] == "train"] == [1, *range(3, 121, 3)]
    assert [r["step"] for r in records if r["kind"] == "evaluation"] == [120]


@pytest.mark.parametrize(
    "changes", [{}, {"accumulation": 2}, {"schedule": "cosine", "warmup": 4}, {"optimizer": "muon"}]
)
@pytest.mark.smoke
def test_resuming_repeats_the_uninterrupted_run_bit_for_bit(
    trainer: Trainer, tmp_path: Path, killed: Any, changes: dict[str, Any]
) -> None:
    settings = {"checkpoint_every": 4, "log_every": 1, **changes}
    _, whole = trainer("whole", **settings)
    killed("cut", 7, **settings)  # three steps after the checkpoint: they have to be repeated
    assert newest_checkpoint(tmp_path / "cut").name == "step-00000004"
    outcome, resumed = trainer("cut", **settings)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    assert outcome.progress.tokens == 12 * 4 * 12


def test_a_finished_run_that_is_resumed_only_evaluates(trainer: Trainer, tmp_path: Path) -> None:
    first, _ = trainer()
    again, _ = trainer()
    assert again.per_loop == first.per_loop
    assert [r["step"] for r in read_metrics(tmp_path / "run") if r["kind"] == "evaluation"] == [12]
    assert losses(tmp_path / "run").keys() == {1, 3, 6, 9, 12}


def test_accumulation_gives_the_gradient_of_the_whole_batch(trainer: Trainer) -> None:
    _, whole = trainer("whole", steps=1, model={"dropout": 0.0})
    _, parts = trainer("parts", steps=1, accumulation=4, model={"dropout": 0.0})
    for one, other in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


def test_a_part_of_a_batch_is_gone_before_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is kept keeps its graph, and that a chunk of logits: 80 MB a part at 44M."""
    config = TrainingConfig(accumulation=3, batch=3, precision="fp32")
    model = LoopedTransformer(ModelConfig(dim=16, heads=2, layers=1, vocabulary=32, sequence=8))
    objective, compute = build_objective(ObjectiveConfig(placement="dense")), Objective.__call__
    before: list[weakref.ref[Loss]] = []

    def watched(self: Objective, *states_and_labels: Any) -> Loss:
        assert all(part() is None for part in before)
        loss = compute(self, *states_and_labels)
        before.append(weakref.ref(loss))
        return loss

    monkeypatch.setattr(Objective, "__call__", watched)
    step = TrainingStep(model, objective, build_optimizer(model, config), config, torch.device("cpu"), "fp32")
    ids = torch.ones(3, 8, dtype=torch.long)
    loss, _ = step(ids, ids, (2,))
    assert len(before) == 3
    assert loss.total.isfinite()


def test_seeds_differ_and_repeat(trainer: Trainer, tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        trainer(folder, seed=seed)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


def test_a_loss_that_is_not_finite_stops_the_run(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blown up at step 6 from loop 2 on: the record names both, the checkpoint of step 4 stays readable."""
    from loopscope.model.looped import LoopedTransformer

    real, calls = LoopedTransformer.core, []

    def exploding(self: Any, hidden: torch.Tensor, loop: int, context: Any) -> torch.Tensor:
        if self.training:  # the monitor runs it too
            calls.append(loop)
        steps_begun = len([call for call in calls if call == 1])
        hidden = real(self, hidden, loop, context)
        return hidden * float("inf") if self.training and steps_begun >= 6 and loop >= 2 else hidden

    monkeypatch.setattr(LoopedTransformer, "core", exploding)
    outcome, _ = trainer(checkpoint_every=4, log_every=100)
    failure = outcome.failure
    assert (failure.step, failure.loop, failure.last_checkpoint) == (6, 2, "step-00000004")
    assert math.isfinite(failure.l2_norm[0])
    assert not math.isfinite(failure.l2_norm[1])
    assert "step 6, first at loop 2" in failure.message
    assert outcome.per_loop == ()
    assert [r["kind"] for r in read_metrics(tmp_path / "run")] == ["monitor", "train", "failure"]
    monkeypatch.setattr(LoopedTransformer, "core", real)
    assert trainer(checkpoint_every=4, log_every=100)[0].failure is None  # from the good checkpoint


def test_no_host_synchronisation_between_logged_steps(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`item` and `tolist` are how a step would wait for the device; counted per step."""
    counts: list[int] = []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__"):
        real = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *rest: Any, real: Any = real) -> Any:
            if counts:
                counts[-1] += 1
            return real(self, *rest)

        monkeypatch.setattr(torch.Tensor, name, counted)
    real_rate = loop_module.set_learning_rate
    monkeypatch.setattr(
        loop_module, "set_learning_rate", lambda *rest: (counts.append(0), real_rate(*rest))[1]
    )
    trainer(steps=10, log_every=5, model={"dropout": 0.0})
    quiet_steps = [counts[step - 1] for step in (2, 3, 4, 6, 7, 8, 9)]
    assert quiet_steps == [0] * 7
    assert counts[4] > 0  # step 5 is logged: the counter does count


def test_epochs_and_steps() -> None:
    assert total_steps(TrainingConfig(steps=7), 1000) == 7
    assert total_steps(TrainingConfig(epochs=2, batch=16), 100) == 13
    with pytest.raises(ValueError, match="both given"):
        TrainingConfig(steps=5, epochs=1)
    with pytest.raises(ValueError, match="accumulation 3 does not divide batch 16"):
        TrainingConfig(accumulation=3)


def test_checkpointing_by_name_and_by_the_flag_of_older_configs() -> None:
    for given, meant in ((True, "layer"), (False, "none"), ("loop", "loop")):
        assert TrainingConfig(gradient_checkpointing=given).gradient_checkpointing == meant
    with pytest.raises(ValueError, match="'none', 'layer' or 'loop'"):
        TrainingConfig(gradient_checkpointing="all")


def test_a_model_without_layers_to_compile_is_refused() -> None:
    from loopscope.recurrence import AbstractLoopedLM
    from loopscope.training.compile import compile_layers

    class Bare(AbstractLoopedLM):
        embed = core = carry = readout = head = None  # type: ignore[assignment]

    with pytest.raises(ValueError, match="Bare has no `run_layer`"):
        compile_layers(Bare())


def test_step_seeds_do_not_collide() -> None:
    seeds = {step_seed(seed, step) for seed in range(20) for step in range(500)}
    assert len(seeds) == 20 * 500


def test_devices_and_precisions() -> None:
    with pytest.raises(
        ValueError, match=r"training.device is 'warp:9', which cannot be used here \(torch knows no device"
    ):
        resolve_device("warp:9")
    assert resolve_precision("bf16", torch.device("cpu")) == "bf16"
    assert resolve_precision("auto", torch.device("cpu")) in ("fp32", "bf16")


@pytest.mark.smoke
def test_bf16_trains(trainer: Trainer) -> None:
    outcome, model = trainer(precision="bf16", steps=60, learning_rate=1e-2)
    assert outcome.per_loop[-1].loss < math.log(17)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


DEPTH = {
    "distribution": "lognormal-poisson",
    "mean": 3,
    "high": 6,
    "backprop": 2,
}


@pytest.mark.parametrize("per_sequence", [False, True])
def test_steps_of_drawn_depth_resume_bit_for_bit(
    trainer: Trainer, tmp_path: Path, killed: Any, per_sequence: bool
) -> None:
    """With sequences of a depth of their own, a batch in parts, and a start drawn at random."""
    settings: dict[str, Any] = {
        "checkpoint_every": 4,
        "log_every": 1,
        "accumulation": 2,
        "depth": {**DEPTH, "per_sequence": per_sequence},
        "model": {"start": "random", "injection": "concat"},
        "objective": {"placement": "terminal", "shortcut": {"weight": 0.1}},
    }
    _, whole = trainer("whole", **settings)
    killed("cut", 7, **settings)  # three steps after the checkpoint: they have to be repeated
    _, resumed = trainer("cut", **settings)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    records = [r for r in read_metrics(tmp_path / "whole") if r["kind"] == "train"]
    depths = [record.get("loops", 3) for record in records]
    assert len(set(depths)) > 1
    for record, depth in zip(
        records, depths, strict=True
    ):  # per-loop figures stay those of the trained depth
        assert len(record["l2_norm"]) == 3
        assert [norm is not None for norm in record["l2_norm"]] == [loop <= depth for loop in (1, 2, 3)]
    assert {"shortcut_consistency", "shortcut_cross_entropy"} <= set(
        records[depths.index(max(depths))]["terms"]
    )


def test_a_step_that_is_not_finite_is_found_at_any_depth(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopscope.model.looped import LoopedTransformer

    real = LoopedTransformer.core

    def exploding(self: Any, hidden: torch.Tensor, loop: int, context: Any) -> torch.Tensor:
        hidden = real(self, hidden, loop, context)
        return hidden * float("inf") if self.training and loop == 5 else hidden

    monkeypatch.setattr(LoopedTransformer, "core", exploding)
    outcome, _ = trainer(depth={"distribution": "uniform", "high": 6}, steps=40)
    assert outcome.failure.loop == 5
    assert len(outcome.failure.l2_norm) in (5, 6)


def test_loop_weights_move_while_training(trainer: Trainer, tmp_path: Path) -> None:
    objective = {"loop_weights": (1, 0, 0), "final_loop_weights": (0, 0, 1)}
    trainer(objective=objective, steps=5, log_every=1)
    records = [r for r in read_metrics(tmp_path / "run") if r["kind"] == "train"]
    read = [[loss is not None for loss in record["cross_entropy"]] for record in records]
    assert read == [[True, False, False], *[[True, False, True]] * 3, [False, False, True]]
    for record, share in zip(records, (0, 0.25, 0.5, 0.75, 1), strict=True):
        first, _, last = (loss or 0.0 for loss in record["cross_entropy"])
        assert record["loss"] == pytest.approx((1 - share) * first + share * last, rel=1e-5)


def test_compiling_asks_for_a_compiler_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopscope.training.compile import WORTH_COMPILING, is_fused

    cpu, long = torch.device("cpu"), 2 * WORTH_COMPILING
    (tmp_path / "g++").touch(mode=0o755)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert is_fused(True, cpu, None)
    assert is_fused("auto", cpu, long)
    assert not is_fused("auto", cpu, WORTH_COMPILING / 2)
    assert not is_fused("auto", cpu, None)
    assert not is_fused(False, cpu, long)
    assert not is_fused(True, torch.device("cuda"), long)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not is_fused("auto", cpu, long)
    with pytest.raises(ValueError, match=r"CXX names 'no-such-compiler'.*turn it off"):
        is_fused(True, cpu, long)
    monkeypatch.delenv("CXX")
    (tmp_path / "g++").unlink()
    with pytest.raises(ValueError, match="neither g"):
        is_fused(True, cpu, None)
