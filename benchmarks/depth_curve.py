"""What a depth curve costs: one unroll per batch for all depths, beside one run of the model per depth.

    python -m benchmarks.depth_curve                              # 44M, 8 windows, loops 1 to 8
    python -m benchmarks.depth_curve --size laptop --pairs 3

Ours is `loopscope.evaluation.depth_curve`, with all that it reports. The baseline is what one writes first: for every
depth the model runs from its first loop, and all logits of the last go into the cross-entropy. Beside them the bare
unroll to the deepest loop, without a head and with one product of the head per exit: what no curve can do without. All
take the same model, batches and precision, in turn; a ratio is the median over the pairs, and the losses of both curves
are compared. Memory is the peak of one curve above the weights, each in a process of its own.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.environment import MEBI, elsewhere, environment, finish, table
from benchmarks.high_water import peak_of
from loopscope import unroll
from loopscope.config import recipe
from loopscope.evaluation import depth_curves
from loopscope.model import LoopedTransformer

Curve = Callable[[], list[float]]
"""Runs once; the loss at every depth."""


def main() -> None:
    """Time pairs of curves, measure memory, print a table and one line of JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    ways = _ways(options)
    if options.memory_of:
        print(peak_of(ways[options.memory_of]))
        return
    ours, plain = ways["one unroll"](), ways["a run per depth"]()  # warm up, and to compare
    apart = max(abs(one - other) for one, other in zip(ours, plain, strict=True))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.pairs):
        for name, curve in ways.items():
            began = time.perf_counter()
            curve()
            seconds[name].append(time.perf_counter() - began)
    memory = {name: elsewhere("depth_curve", "--memory-of", name) for name in ways}
    rows = [[name, f"{statistics.median(seconds[name]):.3f}", f"{memory[name] / MEBI:,.0f}"] for name in ways]
    table([f"loops 1 to {len(ours)}", "seconds", "peak, MiB"], rows)
    print()

    def ratio(one: str, other: str) -> float:
        pairs = zip(seconds[one], seconds[other], strict=True)
        return round(statistics.median(above / below for above, below in pairs), 3)

    finish(
        {
            "benchmark": "depth_curve",
            "size": options.size,
            "windows": options.windows,
            "batch": options.batch,
            "loops": len(ours),
            "pairs": options.pairs,
            "speedup_vs_baseline": ratio("a run per depth", "one unroll"),
            "over_bare_unroll": ratio("one unroll", "bare unroll"),
            "over_unroll_and_heads": ratio("one unroll", "unroll, a head product per exit"),
            "memory_ratio_vs_baseline": round(memory["one unroll"] / memory["a run per depth"], 3),
            "largest_loss_difference": apart,
            "seconds": {name: round(statistics.median(found), 4) for name, found in seconds.items()},
            "peak_mib": {name: round(found / MEBI) for name, found in memory.items()},
        },
        environment(dtype=options.dtype),
    )


def _ways(options: argparse.Namespace) -> dict[str, Curve]:
    config = recipe(options.size, "dense/rmsnorm").model
    torch.manual_seed(0)
    model = LoopedTransformer(config).eval()
    tokens = torch.randint(config.vocabulary, (options.windows, config.sequence + 1))
    batches = list(zip(tokens[:, :-1].split(options.batch), tokens[:, 1:].split(options.batch), strict=True))
    loops = options.loops or 2 * model.loops

    def in_precision(curve: Curve) -> Curve:
        def run() -> list[float]:
            with torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bf16"):
                return curve()

        return run

    def ours() -> list[float]:
        curve, *_ = depth_curves(model, batches, bytes_per_token=1.0, loops=loops)
        return [quality.loss for quality in curve.per_loop]

    @torch.no_grad()
    def bare(head: bool) -> list[float]:
        for input_ids, _ in batches:
            for state in unroll(model, input_ids, loops):
                if head:
                    state.logits()
        return []

    return {
        "one unroll": in_precision(ours),
        "bare unroll": in_precision(lambda: bare(head=False)),
        "unroll, a head product per exit": in_precision(lambda: bare(head=True)),
        "a run per depth": in_precision(lambda: plain_curve(model, batches, loops)),
    }


@torch.no_grad()
def plain_curve(model: LoopedTransformer, batches: list[tuple[Tensor, Tensor]], loops: int) -> list[float]:
    """Mean cross-entropy at every depth, each from a run of its own."""
    losses = []
    for depth in range(1, loops + 1):
        total = tokens = 0.0
        for input_ids, labels in batches:
            *_, last = unroll(model, input_ids, depth)
            logits = last.logits()
            total += F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum").item()
            tokens += labels.numel()
        losses.append(total / tokens)
    return losses


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="published-44m")
    parser.add_argument("--windows", type=int, default=8, help="of the size's own sequence")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--loops", type=int, help="the deepest; twice the trained depth by default")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
