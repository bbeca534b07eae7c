"""Runs per hour of a study: two runs at the same time with a thread each, and one after the other with two threads.

    python -m benchmarks.side_by_side                        # laptop size: about ten minutes on two idle cores
    python -m benchmarks.side_by_side --steps 300 --pairs 5

Each arm is the command that people type, on a study of two conditions and a text that is tokenized already, from its
start to its end: processes that start, training, the last evaluation. Arms take turns; the ratio is that of a pair, the
figure the median of pairs. `trained_ratio` leaves out all but training, as the runs' own records have it. Nothing else
may want the cores: whoever waits for one is counted.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.environment import environment, finish, table
from loopscope.results import load_results

CONDITIONS = "dense/rmsnorm,dense/raw"
ARMS = {"alone": ("1", 2), "together": ("2", 1)}
"""Runs at the same time, and threads of each."""


def main() -> None:
    """Measure pairs, print them, and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="laptop")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--more", default="", help="further flags of loopscope study, in one word")
    settings = parser.parse_args()
    rows, ratios, trained_ratios = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        _study(Path(folder) / "first", settings, *ARMS["alone"], steps=1)  # the text is tokenized once
        for pair in range(settings.pairs):
            order = list(ARMS) if pair % 2 == 0 else list(reversed(ARMS))
            spent = {name: _study(Path(folder) / f"{pair}-{name}", settings, *ARMS[name]) for name in order}
            ratios.append(spent["alone"][0] / spent["together"][0])
            trained_ratios.append(spent["alone"][1] / spent["together"][1])
            rows.append(
                [
                    str(pair + 1),
                    *(f"{spent[name][0]:.1f}" for name in ARMS),
                    f"{ratios[-1]:.3f}",
                    f"{trained_ratios[-1]:.3f}",
                ]
            )
    table(["pair", "one by one, s", "together, s", "runs per hour", "training alone"], rows)
    finish(
        {
            "benchmark": "side_by_side",
            "size": settings.size,
            "steps": settings.steps,
            "runs_per_hour_ratio": round(statistics.median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
            "trained_ratio": round(statistics.median(trained_ratios), 3),
            "pairs": settings.pairs,
            "cores": os.cpu_count(),
        },
        environment(),
    )


def _study(
    out: Path, settings: argparse.Namespace, at_once: str, threads: int, steps: int | None = None
) -> tuple[float, float]:
    """Seconds of a study of two runs, and those in which at least one was training, by the runs' own clocks."""
    free = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    command = [
        sys.executable,
        "-m",
        "loopscope",
        "study",
        "--quiet",
        "--size",
        settings.size,
        "--out",
        str(out),
    ]
    command += ["--conditions", CONDITIONS, "--seeds", "1", "--at-once", at_once]
    command += [
        f"--training.threads={threads}",
        f"--training.steps={steps or settings.steps}",
        *settings.more.split(),
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=free)
    seconds = time.perf_counter() - began
    trained = [run.seconds for run in load_results(out).runs]
    assert len(trained) == 2, "a run has failed"
    return seconds, sum(trained) if at_once == "1" else max(trained)


if __name__ == "__main__":
    main()
