"""How long training waits for a checkpoint, written in the background or waited for, and what the writing slows.

    python -m benchmarks.saving                    # 44M: weights and two moments, 527 MB; about a minute
    python -m benchmarks.saving --size laptop --rounds 3

Rounds alternate: a save that is waited for, one in the background. What the training would do meanwhile is a matrix
product of its own, over and over; how many fewer of them a second there are while a checkpoint is written is the share
that the writing takes.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.environment import environment, finish, table
from loopscope.config import recipe
from loopscope.model import LoopedTransformer
from loopscope.training import build_optimizer
from loopscope.training.checkpoint import Progress
from loopscope.training.checkpoint_saver import CheckpointSaver
from loopscope.training.distributed.wrapper import OneProcess
from loopscope.training.optimizer_state import state_bytes

WAYS = ("waiting", "background")
ALONE = 1.0
"""Seconds of products timed with nothing beside."""


def main() -> None:
    """Save by turns, and time what training waits for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="published-44m")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, help="on the disk that is asked about; a temporary one otherwise"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = recipe(options.size)
    model = LoopedTransformer(config.model)
    optimizer = build_optimizer(model, config.training)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    size = state_bytes(model, optimizer)
    side = torch.randn(512, 512)

    def products(seconds: float, until: CheckpointSaver | None = None) -> tuple[int, float]:
        """Count products for so long, or until nothing is being written; and the seconds that they took."""
        began, count = time.perf_counter(), 0
        while until.busy if until else time.perf_counter() - began < seconds:
            side @ side
            count += 1
        return count, time.perf_counter() - began

    stalls: dict[str, list[float]] = {way: [] for way in WAYS}
    writes, shares = list[float](), list[float]()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        savers = {
            way: CheckpointSaver(
                folder, {}, config.training.model_copy(update={"save": way}), OneProcess(model)
            )
            for way in WAYS
        }
        for step in range(1, options.rounds + 2):
            for place, way in enumerate(WAYS):
                saver, progress = savers[way], Progress(2 * step + place, 0, 0.0)
                alone, took = products(ALONE)
                began = time.perf_counter()
                saver.save(progress, optimizer)
                stall = time.perf_counter() - began
                beside, meanwhile = products(0.0, saver) if way == "background" else (0, 0.0)
                saver.wait()
                if step == 1:
                    continue  # warm-up
                stalls[way].append(stall)
                if way == "background":
                    writes.append(meanwhile)
                    if meanwhile > 0:
                        shares.append(1 - (beside / meanwhile) / (alone / took))
    medians = {way: statistics.median(values) for way, values in stalls.items()}
    share = statistics.median(shares) if shares else 0.0
    ratio = medians["waiting"] / medians["background"]
    print(f"{size / 1e6:.0f} MB, {options.rounds} rounds")
    table(
        ["save", "training waits, s", "written for, s", "products lost meanwhile"],
        [
            ["waiting", f"{medians['waiting']:.3f}", "", ""],
            [
                "background",
                f"{medians['background']:.3f}",
                f"{statistics.median(writes):.2f}",
                f"{share:.0%}",
            ],
        ],
    )
    finish(
        {
            "benchmark": "saving",
            "size": options.size,
            "bytes": size,
            "stall_seconds": medians,
            "ratio": ratio,
            "written_seconds": statistics.median(writes),
            "products_lost": share,
        },
        environment(),
    )


if __name__ == "__main__":
    main()
