"""One process of several: trains a plan of tiny models, one after the other, and writes what each showed.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… python training_ranks.py FOLDER
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Loss, Objective, build_objective
from loopscope.results.layout import WEIGHTS, newest_checkpoint
from loopscope.results.tensor_file import read_tensors
from loopscope.training.config import TrainingConfig
from loopscope.training.distributed.process_group import joined
from loopscope.training.distributed.ranks import ALONE, Ranks
from loopscope.training.loop import TrainingData, train
from loopscope.training.metrics import read_metrics
from loopscope.training.stop_request import TrainingStoppedError
from tests.training.fixtures import SEQUENCE, VOCABULARY, Counting, validation


class Uneven(Counting):
    """Sequences of which other parts are ignored: one row in four altogether."""

    def batch(
        self, seed: int, step: int, rank: int, batch_size: int, world: int = 1
    ) -> tuple[Tensor, Tensor]:
        inputs, labels = super().batch(seed, step, rank, batch_size, world)
        labels = labels.clone()
        for row in range(len(labels)):
            labels[row, : 3 * (row % 5)] = -100
        return inputs, labels


class Stopping(Counting):
    """Asks one process to stop when it reads a batch."""

    def __init__(self, at: int) -> None:
        self.at = at

    def batch(
        self, seed: int, step: int, rank: int, batch_size: int, world: int = 1
    ) -> tuple[Tensor, Tensor]:
        if step == self.at and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(seed, step, rank, batch_size, world)


class Poisoned(Objective):
    """An objective whose loss is not a number in one process, from one call on."""

    calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Loss:
        loss = super().__call__(*args, **kwargs)
        self.calls += len(args[1]) > 1  # one row: tried before training
        if self.calls <= 3 or os.environ.get("RANK") != "1":
            return loss
        bad = loss.total * torch.nan
        return Loss(
            bad,
            dict.fromkeys(loss.terms, bad),
            loss.cross_entropy,
            loss.l2_norm,
            loss.mean_square,
            loss.dim,
        )


def windows_of(case: dict[str, Any]) -> Any:
    """What a case trains on."""
    if "stop_at" in case:
        return Stopping(case["stop_at"])
    return Uneven() if case.get("uneven") else Counting()


def trained(case: dict[str, Any], folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Train one case in its folder: losses, gradients' norms, evaluations and last weights, as its files have them."""
    settings = {
        "steps": 4,
        "batch": 8,
        "log_every": 1,
        "precision": "fp32",
        "device": "cpu",
        "monitor_every": 0,
    }
    config = TrainingConfig(**{**settings, **case.get("training", {})})
    torch.manual_seed(config.seed)
    shape = {"dim": 16, "heads": 2, "layers": 2, "loops": 3, "vocabulary": VOCABULARY, "sequence": SEQUENCE}
    model = LoopedTransformer(ModelConfig(**{**shape, "dropout": 0.0, **case.get("model", {})}))
    model.gradient_checkpointing = config.gradient_checkpointing
    minimised: Any = ObjectiveConfig(**case.get("objective", {}))
    if case.get("poisoned"):
        built = build_objective(minimised)
        minimised = Poisoned(built.placement, built.penalties)
    data = TrainingData(train=windows_of(case), validation=validation, bytes_per_token=2.0)
    run = folder / case.get("folder", case["name"])
    stopped = None
    try:
        outcome = train(model, minimised, data, config, run, {}, quiet=True, ranks=ranks)
    except TrainingStoppedError as stop:
        stopped = [stop.step, stop.signal]
    ranks.wait()
    if not ranks.first:
        return {"stopped": stopped, "failure": None if stopped else str(outcome.failure)}
    records = read_metrics(run)
    steps = [record for record in records if record["kind"] == "train"]
    checkpoint = newest_checkpoint(run)
    weights = read_tensors(checkpoint / WEIGHTS) if checkpoint else {}
    return {
        "stopped": stopped,
        "failure": None if stopped else str(outcome.failure),
        "failures": [record for record in records if record["kind"] == "failure"],
        "losses": [record["loss"] for record in steps],
        "terms": [record["terms"] for record in steps],
        "cross_entropy": [record["cross_entropy"] for record in steps],
        "l2_norm": [record["l2_norm"] for record in steps],
        "gradient_norm": [record["gradient_norm"] for record in steps],
        "tokens": [record["tokens"] for record in steps],
        "evaluation": [[entry["loss"], entry["rms"]] for entry in (records[-1].get("per_loop") or [])],
        "monitor": [(r["rms"], r["verdict"]) for r in records if r["kind"] == "monitor"],
        "checkpoint": checkpoint.name if checkpoint else None,
        "weights": {name: weight.double().flatten().tolist() for name, weight in weights.items()},
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ranks:
        found = {}
        for case in json.loads((folder / "plan.json").read_text()):
            mine = trained(case, folder, ranks)
            found[case["name"]] = {**mine, "ranks": ranks.all_told([mine["stopped"], mine["failure"]])}
        if ranks.first:
            (folder / "found.json").write_text(json.dumps(found))


def alone(folder: Path, plan: list[dict[str, Any]]) -> dict[str, Any]:
    """What the same plan shows in this one process."""
    return {case["name"]: trained(case, folder, ALONE) for case in plan}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
