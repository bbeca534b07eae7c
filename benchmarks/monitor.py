"""What the scale monitor costs at its defaults, as a share of training time.

    python -m benchmarks.monitor                                  # laptop and 44M: about ten minutes on two cores
    python -m benchmarks.monitor --sizes laptop --pairs 40

Steps of one model alternate, without the monitor and with it, in the precision that training would use here; the
monitor counts only the steps that it goes with. `spent`, the overhead, is the time inside the monitor over the time
of those steps, which is what the budget bounds. `with / without` is the ratio of the median steps themselves: what the
monitor does to the steps between its checks, within the machine's noise. A check of each kind is then timed by itself,
and how far apart verdicts are at that cost follows from the budget.
"""

import argparse
import math
import statistics
import time
from contextlib import nullcontext
from typing import Any

import torch

from benchmarks.environment import environment, finish, table
from loopscope import unroll
from loopscope.config import recipe
from loopscope.model import LoopedTransformer
from loopscope.monitor import ScaleMonitor
from loopscope.objectives import build_objective
from loopscope.training import build_optimizer, resolve_precision

BATCHES = {"laptop": 16, "published-44m": 4}
PAIRS = {"laptop": 60, "published-44m": 21}
"""Enough for several checks at laptop size; the published one is slow, and 21 hold the first check and one more."""
ALONE = 3
"""Checks of each kind that are timed by themselves."""


def main() -> None:
    """Measure each size, print a table, and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--pairs", type=int, help="steps each way; by default what the size needs")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    precision = resolve_precision("auto", torch.device("cpu"))
    found = {size: measure(size, options.pairs or PAIRS[size], precision) for size in options.sizes}
    headings = [
        *("size", "batch", "step, s", "scale, s", "verdict, s"),
        *("checks", "verdicts", "spent", "with / without", "steps a verdict"),
    ]
    rows = [
        [
            size,
            f"{f['batch']} × {f['sequence']}",
            *(f"{f[name]:.4g}" for name in ("step_seconds", "scale_seconds", "verdict_seconds")),
            f"{f['checks']} in {f['pairs']}",
            str(f["verdicts"]),
            f"{f['spent']:.2%}",
            f"{f['with_over_without']:.3f}",
            str(f["steps_between_verdicts"]),
        ]
        for size, f in found.items()
    ]
    table(headings, rows)
    finish({"benchmark": "monitor", "sizes": found}, environment(dtype=precision))


def measure(size: str, pairs: int, precision: str) -> dict[str, Any]:
    """One size: alternating steps, then checks by themselves."""
    config = recipe(size, "dense/rmsnorm")
    torch.manual_seed(0)
    model, objective = LoopedTransformer(config.model), build_objective(config.objective)
    optimizer = build_optimizer(model, config.training)
    batch, sequence = BATCHES[size], config.model.sequence
    tokens = torch.randint(config.model.vocabulary, (batch, sequence + 1))
    ids, labels = tokens[:, :-1], tokens[:, 1:]

    def step() -> float:
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            loss = objective(unroll(model, ids), labels)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.clip)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began

    def check(monitor: ScaleMonitor, number: int) -> float:
        began = time.perf_counter()
        monitor.step(number, ids, labels)
        return time.perf_counter() - began

    step()  # warm up
    monitor = ScaleMonitor(model, objective, tell=lambda text: None)
    without, beside, spent = [], [], []
    for number in range(1, pairs + 1):
        without.append(step())
        monitor.budget.restart()  # the step without it pays for nothing
        beside.append(step())
        spent.append(check(monitor, number))
    scales = [check(ScaleMonitor(model, objective), 1) for _ in range(ALONE)]
    verdicts = [check(ScaleMonitor(model, objective, budget=None), 1) for _ in range(ALONE)]
    step_seconds, verdict = statistics.median(without), statistics.median(verdicts)
    share = monitor.budget.share or 1.0
    return {
        "batch": batch,
        "sequence": sequence,
        "pairs": pairs,
        "every": monitor.every,
        "budget": share,
        "step_seconds": step_seconds,
        "scale_seconds": statistics.median(scales),
        "verdict_seconds": verdict,
        "checks": len(monitor.history),
        "verdicts": sum(entry.verdict is not None for entry in monitor.history),
        "spent": sum(spent) / sum(beside),
        "with_over_without": statistics.median(beside) / step_seconds,
        "steps_between_verdicts": monitor.every
        * max(1, math.ceil(verdict / (share * step_seconds) / monitor.every)),
    }


if __name__ == "__main__":
    main()
