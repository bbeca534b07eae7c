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
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from benchmarks.environment import MEBI, again, elsewhere, environment, finish, table
from benchmarks.steps import build, peak_memory
from benchmarks.workers import serve, workers
from loopscope.ops.dispatch import OPERATIONS, cpu_ops, without_op

NOTHING = "nothing"
WAYS = (*(name for name in OPERATIONS if name != "one_token"), "fuse_elementwise", "all")
TOGETHER = 4
"""Ways whose processes are there at a time, beside the one with all on: they hold their memory until the last ends."""

WORTH = 0.02
"""An operation that saves neither this share of time nor of memory is to be deleted."""


def main() -> None:
    """Time rounds of steps, measure memory, print a row for each way, end with one line of JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    if options.memory_of or options.serve:
        way, name = (options.memory_of or options.serve).split("@")
        options.compile = options.compile if way != "fuse_elementwise" else False
        with turned_off(way):
            if options.memory_of:
                print(peak_memory(name, options, torch.device("cpu")))
            else:
                serve(lambda: build([name], options, torch.device("cpu"))[name])
        return
    ways = WAYS if options.only is None else tuple(options.only.split(","))
    precisions = ("fp32", "bf16") if options.dtype == "both" else (options.dtype,)
    lost: dict[str, dict[str, dict[str, float]]] = {dtype: {} for dtype in precisions}
    base: dict[str, dict[str, float]] = {dtype: {} for dtype in precisions}
    for dtype in precisions:
        if options.what != "memory":
            lost[dtype]["time"], base[dtype]["seconds"] = _times(f"ours {dtype}", ways, options)
        if options.what != "time":
            lost[dtype]["memory"], base[dtype]["peak_mib"] = _memory(f"ours {dtype}", ways)
        print(
            f"\n{dtype}, all on: " + ", ".join(f"{name} {value:,.3f}" for name, value in base[dtype].items())
        )
        rows = [[way, *(f"{values[way]:+.1%}" for values in lost[dtype].values())] for way in ways]
        table(["off", *(f"{name} lost" for name in lost[dtype])], rows)
    spared = worth_nothing(ways, lost)
    print(f"\nsave less than {WORTH:.0%} in every cell: {', '.join(spared) or 'none'}")
    finish(
        {
            "benchmark": "ops",
            "size": options.size,
            "batch": options.batch,
            "pairs": options.pairs,
            "all_on": base,
            "lost": lost,
            "worth_nothing": spared,
        },
        environment("cpu", options.dtype),
    )


def worth_nothing(ways: Sequence[str], lost: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Return the operations that save too little in every cell, of [dtype][time or memory][way]."""
    cells = [values for by_name in lost.values() for values in by_name.values()]
    return [way for way in ways if way in OPERATIONS and all(values[way] < WORTH for values in cells)]


def _times(name: str, ways: Sequence[str], options: argparse.Namespace) -> tuple[dict[str, float], float]:
    """Return the share of time that a step loses by way, and the seconds of the step with all on."""
    ratios: dict[str, float] = {}
    base: list[float] = []
    for start in range(0, len(ways), TOGETHER):
        some = ways[start : start + TOGETHER]
        commands = {way: again("ops", "--serve", f"{way}@{name}") for way in (NOTHING, *some)}
        with workers(commands) as steps:
            rounds = [{way: step() for way, step in steps.items()} for _ in range(options.pairs)]
        for way in some:
            ratios[way] = round(statistics.median(one[way] / one[NOTHING] for one in rounds) - 1, 3)
        base += [one[NOTHING] for one in rounds]
    return ratios, round(statistics.median(base), 4)


def _memory(name: str, ways: Sequence[str]) -> tuple[dict[str, float], float]:
    """Return the share by which a step's peak memory grows by way, and the MiB of the step with all on."""
    base = elsewhere("ops", "--memory-of", f"{NOTHING}@{name}")
    peaks = {way: elsewhere("ops", "--memory-of", f"{way}@{name}") for way in ways}
    return {way: round(peak / base - 1, 3) for way, peak in peaks.items()}, round(base / MEBI, 1)


def turned_off(way: str) -> AbstractContextManager[None]:
    """Return a context in which one operation is off, or all, or nothing."""
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
    parser.add_argument("--what", choices=["both", "time", "memory"], default="both")
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
        options.size, options.batch, options.sequence, options.pairs = "laptop", 2, 32, 2
        options.compile, options.threads = False, 1
    return options


if __name__ == "__main__":
    main()
