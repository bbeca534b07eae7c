"""`loopscope plan` against steps that are taken: seconds and peak memory, predicted and measured.

    python -m benchmarks.plan                        # laptop size and 44M: minutes on one core
    python -m benchmarks.plan --only laptop          # those whose names have it

In every round two predictions are made, and a step is taken: all in one process and by the processor's clock, so that
others who work beside it slow all alike. One prediction is that of `--measure` (steps of few layers and loops, timed),
the other the roofline that GPUs are planned by, of this machine's products and sums. Memory is that of a process
of its own: weights and moments that are there, and what a step adds at its peak.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from benchmarks.environment import MEBI, elsewhere, environment, finish, table
from benchmarks.high_water import peak_of
from loopscope.config import RunConfig, recipe
from loopscope.jobs import measured_device, timed_step
from loopscope.jobs.device_timing import activated_per_second
from loopscope.model import LoopedTransformer
from loopscope.objectives import build_objective
from loopscope.plan.training_plan import plan_training
from loopscope.training import TrainingStep, build_optimizer, keep_freed_memory


@dataclass(frozen=True)
class Case:
    """A run whose steps are taken."""

    size: str
    condition: str
    batch: int
    precision: str
    training: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

    def config(self) -> RunConfig:
        """As it would be trained."""
        training = {"batch": self.batch, "precision": self.precision, "compile": False, **self.training}
        return recipe(self.size, self.condition, {"model": self.model, "training": training})


CASES = {
    "laptop bf16": Case("laptop", "dense/rmsnorm", 16, "bf16"),
    "laptop fp32": Case("laptop", "dense/rmsnorm", 16, "fp32"),
    "laptop terminal bf16": Case("laptop", "terminal/rmsnorm", 16, "bf16"),
    "laptop 8 loops bf16": Case("laptop", "dense/raw", 16, "bf16", model={"loops": 8}),
    "laptop checkpointed fp32": Case(
        "laptop", "dense/rmsnorm", 16, "fp32", {"gradient_checkpointing": "layer"}
    ),
    "laptop in 4 parts bf16": Case("laptop", "dense/rmsnorm", 64, "bf16", {"accumulation": 4}),
    "44m bf16": Case("published-44m", "dense/rmsnorm", 2, "bf16"),
    "44m fp32": Case("published-44m", "dense/rmsnorm", 2, "fp32"),
    "44m terminal bf16": Case("published-44m", "terminal/raw", 4, "bf16"),
}
"""Depths, exits, windows, precisions and sizes that the counts of `plan.step_time` have to get right together."""


def main() -> None:
    """Predict, measure, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases whose names have this")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", choices=CASES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.memory_of:
        finish({"bytes": peak_bytes(CASES[options.memory_of].config())}, {})
        return
    found: dict[str, dict[str, float]] = {}
    for name, case in CASES.items():
        if options.only in name:
            found[name] = compared(case.config(), options.rounds)
            found[name]["measured_bytes"] = elsewhere("plan", "--memory-of", name)["bytes"]
            found[name]["memory_error"] = found[name]["predicted_bytes"] / found[name]["measured_bytes"] - 1
    table(
        [
            *("run", "s timed", "roofline", "measured", "off", "roofline off"),
            *("MiB predicted", "measured", "off"),
        ],
        [[name, *_cells(figures)] for name, figures in found.items()],
    )
    worst = {
        error: max((figures[error] for figures in found.values()), key=abs)
        for error in ("time_error", "roofline_error", "memory_error")
    }
    finish({"benchmark": "plan", **worst, "clock": "processor", "cases": found}, environment())


def compared(config: RunConfig, rounds: int) -> dict[str, float]:
    """Predicted and measured seconds of a step; the error is the median of the rounds' own."""
    step = step_of(config)
    step()
    plans, seconds = [], []
    for _ in range(rounds):
        here = measured_device("cpu", 1, time.process_time)
        roofline, timed = plan_training(config, here), timed_step(config, time.process_time)
        began = time.process_time()
        step()
        taken = time.process_time() - began
        assert timed is not None, "there is room for a few layers"
        plans.append(roofline)
        parts = plan_training(config, here, timed=timed)
        seconds.append((parts.step_seconds, roofline.step_seconds, taken))
    return {
        "predicted_seconds": median(predicted for predicted, _, _ in seconds),
        "roofline_seconds": median(roofline for _, roofline, _ in seconds),
        "measured_seconds": median(taken for _, _, taken in seconds),
        "time_error": median(predicted / taken - 1 for predicted, _, taken in seconds),
        "roofline_error": median(roofline / taken - 1 for _, roofline, taken in seconds),
        "predicted_bytes": float(plans[0].memory_total),
        "matmul_peak": plans[0].time.flops / plans[0].step_seconds / plans[0].mfu,
        "activated_per_second": activated_per_second(torch.device("cpu"), time.process_time),
    }


def step_of(config: RunConfig, batch: int | None = None, sequence: int | None = None) -> Callable[[], None]:
    """A step of a run, on random tokens."""
    torch.manual_seed(0)
    model = LoopedTransformer(config.model).train()
    model.gradient_checkpointing = config.training.gradient_checkpointing
    optimizer = build_optimizer(model, config.training)
    return _step(model, optimizer, config, batch or config.training.batch, sequence or config.model.sequence)


def _step(model: Any, optimizer: Any, config: RunConfig, batch: int, sequence: int) -> Callable[[], None]:
    keep_freed_memory()  # as training does
    training = config.training
    step = TrainingStep(
        model, build_objective(config.objective), optimizer, training, torch.device("cpu"), training.precision
    )
    ids = torch.randint(config.model.vocabulary, (batch, sequence + 1))
    return lambda: step(ids[:, :-1], ids[:, 1:], (config.model.loops,)) and None


def peak_bytes(config: RunConfig) -> float:
    """Weights and moments of a run that has begun, and what a step adds at its peak. In a process of its own."""
    model = LoopedTransformer(config.model).train()
    model.gradient_checkpointing = config.training.gradient_checkpointing
    optimizer = build_optimizer(model, config.training)
    parts = config.training.accumulation
    for batch, sequence in ((parts, 8), (2 * parts, 16)):  # makes the optimizer's state, and the kernels
        _step(model, optimizer, config, batch, sequence)()
    held = [*model.parameters(), *(value for state in optimizer.state.values() for value in state.values())]
    full = _step(model, optimizer, config, config.training.batch, config.model.sequence)
    return peak_of(full) + sum(tensor.numel() * tensor.element_size() for tensor in held)


def _cells(figures: dict[str, float]) -> list[str]:
    return [
        f"{figures['predicted_seconds']:.3g}",
        f"{figures['roofline_seconds']:.3g}",
        f"{figures['measured_seconds']:.3g}",
        f"{figures['time_error']:+.0%}",
        f"{figures['roofline_error']:+.0%}",
        f"{figures['predicted_bytes'] / MEBI:,.0f}",
        f"{figures['measured_bytes'] / MEBI:,.0f}",
        f"{figures['memory_error']:+.0%}",
    ]


if __name__ == "__main__":
    main()
