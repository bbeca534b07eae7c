"""Train compiled, count graphs, print JSON: run by `test_fast_paths` in a process without its checks of shapes.

Three runs, one after the other and each from an empty compiler: importing torch and its compiler is half of their time.
"""

import json
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from torch._dynamo.utils import counters

from loopscope.objectives import linear_cross_entropy
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.ops import attention_dropout, dropout
from loopscope.ops.step_scope import step_scope
from loopscope.recurrence import unroll
from loopscope.training.compile import compile_layers
from loopscope.training.hardware import Precision
from loopscope.training.optim import build_optimizer
from loopscope.training.step import TrainingStep
from tests.training.test_fast_paths import CPU, LOOPS, STEPS, batch, fresh, settings


def main() -> None:
    """Print a dict with the runs' figures, as one line of JSON."""
    torch.set_num_threads(1)
    runs: list[tuple[str, Precision]] = [("layers", "fp32"), ("kernels", "fp32"), ("kernels", "bf16")]
    print(json.dumps({f"{what} {precision}": one(what, precision) for what, precision in runs}))


def one(what: str, precision: Precision) -> dict[str, Any]:
    """Of `what`: layers, or kernels."""
    torch.compiler.reset()
    counters.clear()
    model, config = fresh(), settings()
    if what == "layers":
        compile_layers(model)
    objective = build_objective(ObjectiveConfig(placement="dense"))
    step = TrainingStep(
        model, objective, build_optimizer(model, config), config, CPU, precision, what == "kernels"
    )
    losses = [float(step(*batch(number), (LOOPS,))[0].total) for number in range(STEPS)]
    graphs = [counters["stats"]["unique_graphs"]]
    for number, depth in enumerate((3, 1, 6, 2, 9, 4)):
        step(*batch(number), (depth,))
        graphs.append(counters["stats"]["unique_graphs"])
    model.eval()
    with torch.no_grad():
        model(batch(0)[0][:1, :5])  # another shape, in evaluation
    graphs.append(counters["stats"]["unique_graphs"])
    worst = with_dropout(precision) if what == "kernels" else 0.0
    breaks = sum(counters["graph_break"].values())
    return {"losses": losses, "graphs": graphs, "breaks": breaks, "with_dropout": worst}


def with_dropout(precision: Precision) -> float:
    """How far gradients of compiled kernels are from those of the formulas uncompiled, as a share of their norms."""
    model = fresh(dropout=0.2)
    objective = build_objective(ObjectiveConfig(placement="dense"))
    found = []
    with ExitStack() as stack:
        for module in (attention_dropout, dropout, linear_cross_entropy):
            # Both with masks by place, and the loss's own formula.
            stack.enter_context(patch.object(module, "fused", lambda: True))
        for fuse_elementwise in (True, False):
            torch.manual_seed(3)
            with step_scope(fuse_elementwise):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    loss = objective(unroll(model, batch(0)[0]), batch(0)[1]).total
                found.append(torch.autograd.grad(loss, list(model.parameters())))
    pairs = zip(*found, strict=True)
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


if __name__ == "__main__":
    main()
