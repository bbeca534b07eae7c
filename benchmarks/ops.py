"""What each fast operation for a CPU is worth: a training step with it off alone, beside the step with all on.

    python -m benchmarks.ops                          # 44M, 8 × 256, fp32 and bf16: about an hour on two cores
    python -m benchmarks.ops --dtype bf16 --only swiglu,linear
    python -m benchmarks.ops --small                  # a smoke test of the benchmark itself

Every way lives in a process of its own, of which one works at a time, and in every round each takes a step after one
of the step with all on: a busy machine slows both. Time is the median over rounds of the ratio within a round. Memory
is the peak of a step above weights and optimizer state, again each in a process of its own. Steps are fused as those
of a long run are (`training.compile`), but for the row `fuse_elementwise`; the row `all` is `training.cpu_ops: off`.
"""

import argparse
import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from benchmarks.environment import MEBI, again, elsewhere, environment, finish, table
from benchmarks.steps import build, peak_memory
from benchmarks.workers import serve, workers
from loopscope.ops.dispatch import OPERATIONS, cpu_ops, without_op

NOTHING = "nothing"
WAYS = (*OPERATIONS, "fuse_elementwise", "all")
WORTH = 0.02
"""An operation that saves neither this share of time nor of memory is to be deleted."""


def main() -> None:
    """Time rounds of steps, measure memory, print a row for each way, end with one line of JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    if options.memory_of or options.serve:
        way, name = (options.memory_of or options.serve).split("@")
        with _off(way, options):
            if options.memory_of:
                print(peak_memory(name, options, torch.device("cpu")))
            else:
                serve(lambda: build([name], options, torch.device("cpu"))[name])
        return
    ways = WAYS if options.only is None else options.only.split(",")
    precisions = ("fp32", "bf16") if options.dtype == "both" else (options.dtype,)
    times: dict[str, dict[str, float]] = {}
    seconds: dict[str, float] = {}
    memory: dict[str, dict[str, float]] = {}
    for dtype in precisions:
        name = f"ours {dtype}"
        times[dtype], seconds[dtype] = _times(name, ways, options)
        base = elsewhere("ops", "--memory-of", f"{NOTHING}@{name}")
        peaks = {way: elsewhere("ops", "--memory-of", f"{way}@{name}") for way in ways}
        memory[dtype] = {way: round(peak / base - 1, 3) for way, peak in peaks.items()}
        print(f"\n{dtype}: {seconds[dtype]:.3f} s a step and {base / MEBI:,.0f} MiB with all on")
        rows = [[way, f"{times[dtype][way]:+.1%}", f"{memory[dtype][way]:+.1%}"] for way in ways]
        table(["off", "time", "peak memory"], rows)
    spared = [
        way for way in ways if way in OPERATIONS and all(_small(way, times, memory, d) for d in precisions)
    ]
    print(f"\nneither {WORTH:.0%} of time nor of memory: {', '.join(spared) or 'none'}")
    finish(
        {
            "benchmark": "ops",
            "size": options.size,
            "batch": options.batch,
            "pairs": options.pairs,
            "seconds": {dtype: round(value, 4) for dtype, value in seconds.items()},
            "time_lost": times,
            "memory_lost": memory,
            "worth_nothing": spared,
        },
        environment("cpu", options.dtype),
    )


def _times(name: str, ways: Sequence[str], options: argparse.Namespace) -> tuple[dict[str, float], float]:
    """Return the share of time that a step loses by way, and the seconds of the step with all on."""
    ratios, base = {}, []
    # Two at a time: all workers hold their memory until the last one ends.
    for way in ways:
        commands = {one: again("ops", "--serve", f"{one}@{name}") for one in (NOTHING, way)}
        with workers(commands) as steps:
            pairs = [(steps[NOTHING](), steps[way]()) for _ in range(options.pairs)]
        ratios[way] = round(statistics.median(off / on for on, off in pairs) - 1, 3)
        base += [on for on, _ in pairs]
    return ratios, statistics.median(base)


def _small(
    way: str, times: dict[str, dict[str, float]], memory: dict[str, dict[str, float]], dtype: str
) -> bool:
    return times[dtype][way] < WORTH and memory[dtype][way] < WORTH


def _off(way: str, options: argparse.Namespace) -> AbstractContextManager[None]:
    if way == "fuse_elementwise":
        options.compile = False
    if way in OPERATIONS:
        return without_op(way)
    return cpu_ops("off") if way == "all" else nullcontext()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="published-44m")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5, help="rounds, each with one step on either side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["both", "fp32", "bf16"], default="both")
    parser.add_argument("--only", help=f"some ways, with commas: {', '.join(WAYS)}")
    parser.add_argument("--small", action="store_true", help="a tiny size, two rounds, not fused")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only and (unknown := set(options.only.split(",")) - set(WAYS)):
        parser.error(f"--only names {', '.join(sorted(unknown))}; there are {', '.join(WAYS)}")
    if options.pairs < 1:
        parser.error(f"--pairs is {options.pairs}; give 1 or more (5 for figures to publish)")
    options.compile, options.sequence, options.dropout, options.checkpointing = "auto", None, None, "none"
    if options.small:
        options.size, options.batch, options.sequence, options.pairs = "laptop", 2, 16, 2
        options.compile, options.threads = False, 1
    return options


if __name__ == "__main__":
    main()
