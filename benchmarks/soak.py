"""Whether a process that goes on and on keeps its size: training, evaluations, saves, audits, one after the other.

    python -m benchmarks.soak                  # 10 minutes
    python -m benchmarks.soak --minutes 0.2    # to see that it runs

Every round trains a run a little further from its newest checkpoint, opens it, reads every depth, audits it, writes its
page, and begins the next run after a few rounds. Sampled after each: resident memory, the bytes that the C library has
handed out and not got back (glibc; a leak raises them, holes between them do not), Python's own blocks, and open file
handles. Their slopes are those of the second half (a process grows while it warms up): least squares, with an interval
of 95 % by block bootstrap, since neighbouring samples are not independent; and the median over all pairs, which a leak
raises and one step of the allocator does not.
"""

import argparse
import ctypes
import gc
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.environment import MEBI, environment, finish, table
from loopscope.config import recipe
from loopscope.jobs import audit_paths, execute, measure_depth
from loopscope.report import write_report

OVER: dict[str, Any] = {
    "model": {"dim": 64, "heads": 2, "layers": 1, "loops": 3, "vocabulary": 512, "sequence": 64},
    "data": {"max_bytes": 400_000, "max_validation_bytes": 20_000, "tokenizer": {"vocabulary": 512}},
}
TRAINING = {"batch": 8, "log_every": 5, "threads": 1, "final_windows": 16, "checkpoint_every": 5}
STEPS = 10
"""Of a round."""
ROUNDS_OF_A_RUN = 4
BLOCKS = 8
DRAWS = 2000


def main() -> None:
    """Work for so many minutes, then say what grew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LOOPSCOPE_CACHE"] = f"{folder}/cache"
        began = time.monotonic()
        while (now := time.monotonic() - began) < 60 * options.minutes or len(samples) < 4:
            one_round(Path(folder), len(samples))
            gc.collect()
            samples.append((now, *(read() for read in SAMPLED.values())))
    figures = {name: grown(samples, place) for place, name in enumerate(SAMPLED, 1)}
    table(
        ["of the process", "first", "half way", "last", "a minute", "interval of 95 %"],
        [[name, *_cells(samples, place, figures[name])] for place, name in enumerate(SAMPLED, 1)],
    )
    finish(
        {
            "benchmark": "soak",
            "minutes": samples[-1][0] / 60,
            "rounds": len(samples),
            "samples": {
                name: [round(sample[place], 3) for sample in samples[:: max(1, len(samples) // 20)]]
                for place, name in enumerate(SAMPLED, 1)
            },
            "slope_per_minute": figures,
            "median_slope_per_minute": {
                name: median_slope(samples, place) for place, name in enumerate(SAMPLED, 1)
            },
        },
        environment(),
    )


def one_round(folder: Path, number: int) -> None:
    """Train further, evaluate, audit, report."""
    place, part = divmod(number, ROUNDS_OF_A_RUN)
    run = folder / f"run-{place}"
    training = {**TRAINING, "steps": STEPS * (part + 1), "seed": place}
    execute(
        recipe("laptop", "dense/rmsnorm", {**OVER, "training": training}), run, resume=part > 0, quiet=True
    )
    measure_depth(run, 4)
    list(audit_paths([run], sequences=2))
    write_report(run, run / "report.html")
    if part == ROUNDS_OF_A_RUN - 1:
        shutil.rmtree(run)


def grown(samples: Sequence[Sequence[float]], place: int) -> tuple[float, float, float]:
    """Slope a minute over the second half, and its interval."""
    half = samples[len(samples) // 2 :]
    points = [(sample[0] / 60, sample[place]) for sample in half]
    size = max(2, len(points) // BLOCKS)
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    numbers = random.Random(0)
    drawn = sorted(
        slope([point for block in numbers.choices(blocks, k=len(blocks)) for point in block])
        for _ in range(DRAWS)
    )
    return slope(points), drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS) - 1]


def median_slope(samples: Sequence[Sequence[float]], place: int) -> float:
    """The median slope a minute between two samples of the second half (Theil and Sen)."""
    points = [(sample[0] / 60, sample[place]) for sample in samples[len(samples) // 2 :]]
    return median((y - b) / (x - a) for (a, b), (x, y) in combinations(points, 2))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line of least squares; 0 of points at one time."""
    count = len(points)
    x, y = (sum(values) / count for values in zip(*points, strict=True))
    spread = sum((each - x) ** 2 for each, _ in points)
    return sum((each - x) * (value - y) for each, value in points) / spread if spread else 0.0


def resident() -> float:
    """MiB of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MEBI


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h, from glibc 2.33 on."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def handed_out() -> float:
    """MiB that the C library's allocator has handed out and not got back; nan where it does not say."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return float("nan")
    mallinfo.restype = _Mallinfo
    found = mallinfo()
    return float(found.uordblks + found.hblkhd) / MEBI


def handles() -> float:
    """Files and sockets that are open."""
    return float(len(os.listdir("/proc/self/fd")) - 1)


SAMPLED: dict[str, Callable[[], float]] = {
    "resident MiB": resident,
    "MiB handed out": handed_out,
    "thousand Python blocks": lambda: sys.getallocatedblocks() / 1000,
    "handles": handles,
}


def _cells(samples: Sequence[Sequence[float]], place: int, found: Sequence[float]) -> list[str]:
    values = [f"{samples[at][place]:.1f}" for at in (0, len(samples) // 2, -1)]
    return [*values, f"{found[0]:+.3g}", f"{found[1]:+.3g} to {found[2]:+.3g}"]


if __name__ == "__main__":
    main()
