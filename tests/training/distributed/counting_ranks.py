"""One process of several: the collectives of one training step, counted where PyTorch calls them.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… python counting_ranks.py FOLDER
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.training.config import TrainingConfig
from loopscope.training.distributed.batch_share import own_rows
from loopscope.training.distributed.parallel import parallelize
from loopscope.training.distributed.process_group import joined
from loopscope.training.distributed.ranks import Ranks
from loopscope.training.optim import build_optimizer
from loopscope.training.step import TrainingStep
from tests.training.fixtures import SEQUENCE, VOCABULARY, Counting

CPU = torch.device("cpu")
LAYERS = 2


class Collectives(TorchDispatchMode):
    """Counts what is exchanged, by name. PyTorch's `CommDebugMode` loses its place where a layer is called again."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "c10d" in func.namespace:
            self.counts[func._opname] += 1
        return func(*args, **(kwargs or {}))


def counted(loops: int, reshard: str, parts: int, way: str, ranks: Ranks) -> dict[str, Any]:
    """What the second step exchanges, by the collective's name; whether shards are all that it leaves."""
    shape = {"dim": 16, "heads": 2, "layers": LAYERS, "vocabulary": VOCABULARY, "sequence": SEQUENCE}
    torch.manual_seed(0)
    model = LoopedTransformer(ModelConfig(**{**shape, "loops": loops, "dropout": 0.0})).train()
    settings = {"batch": 8, "precision": "fp32", "accumulation": parts, "fsdp_reshard": reshard}
    config = TrainingConfig(**settings)
    objective = build_objective(ObjectiveConfig())
    optimizer = build_optimizer(model, config)
    wrapper, optimizer = parallelize(way, model, optimizer, [objective], config, CPU, ranks, Counting())
    step = TrainingStep(model, objective, optimizer, config, CPU, "fp32", False, ranks, wrapper)
    found: dict[str, int] = {}
    for number in range(2):
        ids, labels = Counting().batch(0, number, 0, 8)
        rows = own_rows(8, parts, ranks)
        with Collectives() as seen:
            step(ids[rows], labels[rows], (loops,))
        found = dict(seen.counts)
    left = [isinstance(parameter, DTensor) for parameter in model.parameters()]
    return {"counts": found, "let go": all(left)}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined(CPU) as ranks:
        found = {
            f"{way} {reshard} {loops} loops {parts} parts": counted(loops, reshard, parts, way, ranks)
            for way, reshard, loops, parts in (
                ("fsdp", "step", 2, 1),
                ("fsdp", "step", 8, 1),
                ("fsdp", "step", 8, 2),
                ("fsdp", "loop", 2, 1),
                ("fsdp", "loop", 8, 1),
                ("ddp", "step", 8, 1),
                ("ddp", "step", 8, 2),
            )
        }
        if ranks.first:
            (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
