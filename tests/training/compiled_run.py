"""Train compiled, count graphs, print JSON: run by `test_fast_paths` in a process without its checks of shapes."""

import json
import sys

import torch
from torch._dynamo.utils import counters

from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.training.compiled import compile_layers
from loopscope.training.hardware import Precision
from loopscope.training.optim import build_optimizer
from loopscope.training.step import TrainingStep
from tests.training.test_fast_paths import CPU, LOOPS, STEPS, batch, fresh, settings


def main(what: str, precision: Precision) -> None:
    """Of `what`: layers, or kernels."""
    torch.set_num_threads(1)
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
    print(json.dumps({"losses": losses, "graphs": graphs, "breaks": sum(counters["graph_break"].values())}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])  # type: ignore[arg-type]
