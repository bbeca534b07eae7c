"""What gathering shared layers once a step is worth: tokens a second against FSDP2 as it comes, over processes.

    python -m benchmarks.distributed --size published-44m --loops 8 --processes 2

Both ways train the same model from the same weights on the same batches, step by step in turn, in the same processes
(gloo, on this machine's CPU): what else the machine does falls on both. Their losses are compared. A step's time is
that of the slowest process. The first step of each warms up.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.environment import environment, table
from loopscope.config import recipe
from loopscope.model import LoopedTransformer
from loopscope.objectives import build_objective
from loopscope.training import TrainingConfig, TrainingStep, build_optimizer
from loopscope.training.distributed import Ranks, joined
from loopscope.training.distributed.fsdp import FSDPWrapper

CPU = torch.device("cpu")
WAYS = {"once a step": "step", "FSDP2 as it comes": "loop"}


def main() -> None:
    """Start the processes, or be one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="published-44m")
    parser.add_argument("--loops", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2, help="sequences per process")
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="per process")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    options = parser.parse_args()
    if "RANK" not in os.environ:
        start(options.processes)
        return
    torch.set_num_threads(options.threads)
    with joined(CPU) as ranks:
        seconds, losses = measured(options, ranks)
        if ranks.first:
            report(options, seconds, losses)


def start(processes: int) -> None:
    """Run this command in so many processes; the first one's output is ours."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "benchmarks.distributed", *sys.argv[1:]]
    started = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(rank)})
        for rank in range(processes)
    ]
    statuses = [process.wait() for process in started]
    if any(statuses):
        raise SystemExit(1)


def measured(
    options: argparse.Namespace, ranks: Ranks
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of every step, and its loss, by the way that weights are gathered."""
    shape = {"loops": options.loops, "sequence": options.sequence, "dropout": 0.0}
    config = recipe(options.size, "dense/rmsnorm", {"model": shape})
    training = TrainingConfig(batch=options.batch * ranks.world, precision=options.precision)
    steps: dict[str, TrainingStep] = {}
    for name, reshard in WAYS.items():
        torch.manual_seed(0)
        model = LoopedTransformer(config.model).train()
        wrapper = FSDPWrapper(model, CPU, ranks, reshard)  # type: ignore[arg-type]
        optimizer = build_optimizer(model, training)
        objective = build_objective(config.objective)
        steps[name] = TrainingStep(
            model, objective, optimizer, training, CPU, options.precision, False, ranks, wrapper
        )
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    losses: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(options.rounds + 1):
        torch.manual_seed(number * ranks.world + ranks.rank)
        ids = torch.randint(config.model.vocabulary, (options.batch, options.sequence + 1))
        for name in WAYS if number % 2 else reversed(WAYS):
            ranks.wait()
            began = time.perf_counter()
            loss, _ = steps[name](ids[:, :-1], ids[:, 1:], (options.loops,))
            took = max(ranks.all_told(time.perf_counter() - began))
            losses[name].append(float(loss.total))
            if number:
                seconds[name].append(took)
    return seconds, losses


def report(
    options: argparse.Namespace, seconds: dict[str, list[float]], losses: dict[str, list[float]]
) -> None:
    """Print a table for people, and a line of JSON."""
    tokens = options.batch * options.processes * options.sequence
    speed = {name: tokens / statistics.median(took) for name, took in seconds.items()}
    ours, plain = WAYS
    rows = [
        [name, f"{statistics.median(took):.2f} s", f"{speed[name]:,.0f}", f"{speed[name] / speed[plain]:.2f}"]
        for name, took in seconds.items()
    ]
    table(["weights of shared layers are gathered", "step", "tokens/s", "times"], rows)
    pairs = list(zip(seconds[ours], seconds[plain], strict=True))
    found: dict[str, Any] = {
        **environment(dtype=options.precision),
        **{
            name: getattr(options, name)
            for name in ("size", "loops", "processes", "batch", "sequence", "threads")
        },
        "tokens_per_second": {WAYS[name]: round(value, 1) for name, value in speed.items()},
        "speedup": round(speed[ours] / speed[plain], 3),
        "speedup_of_each_round": [round(plain_took / own, 3) for own, plain_took in pairs],
        "largest_loss_difference": max(
            abs(one - other) for one, other in zip(losses[ours], losses[plain], strict=True)
        ),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
