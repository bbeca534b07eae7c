"""Train compiled, count graphs, print JSON: run by `test_compiled` in a process without its checks of shapes.

Two golden runs, and one of compiled layers, one after the other and each from an empty compiler. A C++ compiler takes
a second or more for every kernel, so all that is asked of kernels is asked of those that the golden runs need anyway.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch._dynamo.utils import counters

from loopscope.model.looped import LoopedTransformer
from loopscope.objectives import linear_cross_entropy
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.ops import attention_dropout, dropout
from loopscope.ops.step_scope import step_scope
from loopscope.recurrence import AbstractLoopedLM, unroll
from loopscope.training.compile import compile_layers
from loopscope.training.hardware import Precision
from loopscope.training.optim import build_optimizer
from loopscope.training.step import TrainingStep
from tests.training import golden
from tests.training.test_fast_paths import CPU, LOOPS, batch, fresh, settings

KERNELS: dict[str, tuple[str, Precision]] = {
    "dense/rmsnorm bf16 fused": ("dense/rmsnorm", "bf16"),
    "ouro fp32 fused": ("ouro", "fp32"),
}
"""Golden runs, by title: with dropout and without it."""

DROPOUT = golden.FAMILIES["dense/rmsnorm"]
STEPS = 20


def main() -> None:
    """Print a dict with the runs' figures, as one line of JSON."""
    torch.set_num_threads(1)
    found = {title: kernels(*which) for title, which in KERNELS.items()}
    print(json.dumps({**found, "layers": layers()}))


def kernels(family: str, precision: Precision) -> dict[str, Any]:
    """A golden run with compiled chains; the same of formulas uncompiled; and gradients with dropout."""
    counters.clear()
    record, model, step = golden.run(family, precision, True)
    found = {"record": record, **graphs(model, step, golden.batch)}
    found["with_dropout"] = with_dropout(family, precision)
    with masks_by_place():
        found["uncompiled"] = floats(golden.run(family, precision, False).record["losses"])
        found["fp32"] = floats(golden.run(family, "fp32", False).record["losses"])
    return {**found, "losses": floats(record["losses"])}


def floats(losses: list[str]) -> list[float]:
    return [float.fromhex(loss) for loss in losses]


def layers() -> dict[str, Any]:
    """Losses of a run with layers compiled, and of one without."""
    losses: dict[str, list[float]] = {}
    for which in ("uncompiled", "losses"):
        torch.compiler.reset()
        counters.clear()
        model, config = fresh(), settings()
        if which == "losses":
            compile_layers(model)
        objective = build_objective(ObjectiveConfig(placement="dense"))
        step = TrainingStep(model, objective, build_optimizer(model, config), config, CPU, "fp32")
        losses[which] = [float(step(*batch(number), (LOOPS,))[0].total) for number in range(STEPS)]
    return {**losses, **graphs(model, step, batch)}


def graphs(model: AbstractLoopedLM, step: TrainingStep, windows: Any) -> dict[str, Any]:
    """How many there are after a run; then after each of some steps of drawn depth, and an evaluation."""
    counts = [counters["stats"]["unique_graphs"]]
    for number, depth in enumerate((3, 1, 6, 2, 9, 4)):
        step(*windows(number), (depth,))
        counts.append(counters["stats"]["unique_graphs"])
    model.eval()
    with torch.no_grad():
        model(windows(0)[0][:1, :5])  # another shape
    counts.append(counters["stats"]["unique_graphs"])
    return {"graphs": counts, "breaks": sum(counters["graph_break"].values())}


@contextmanager
def masks_by_place() -> Iterator[None]:
    """Where nothing is compiled either: dropout as compiled chains draw it, and their formula of the loss."""
    with ExitStack() as stack:
        for module in (attention_dropout, dropout, linear_cross_entropy):
            stack.enter_context(patch.object(module, "fused", lambda: True))
        yield


def with_dropout(family: str, precision: Precision) -> float:
    """How far gradients of compiled kernels are from those of the formulas uncompiled, as a share of their norms."""
    config = golden.config_of(family)
    torch.manual_seed(0)
    model = LoopedTransformer(config.model.model_copy(update={"dropout": DROPOUT})).train()
    objective = build_objective(config.objective)
    input_ids, labels = golden.batch(0)
    found = []
    with masks_by_place():
        for fuse_elementwise in (True, False):
            torch.manual_seed(3)
            with step_scope(fuse_elementwise):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    loss = objective(unroll(model, input_ids), labels).total
                found.append(torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True))
    pairs = zip(*found, strict=True)
    return max(float((one - other).norm() / other.norm()) for one, other in pairs if float(other.norm()))


if __name__ == "__main__":
    main()
