"""One process of several: loads checkpoints into a model in shards and holds it, whole again, against their files; then
trains on a disk that is full for a while, in this process or another.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… python sharded_ranks.py FOLDER CHECKPOINT…
"""

import errno
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.results.layout import OPTIMIZER, WEIGHTS, checkpoint_folders
from loopscope.results.tensor_file import read_tensors
from loopscope.training.checkpoint import take_snapshot, verify
from loopscope.training.config import TrainingConfig
from loopscope.training.distributed.fsdp import FSDPWrapper
from loopscope.training.distributed.process_group import joined
from loopscope.training.distributed.ranks import Ranks
from loopscope.training.distributed.sharded_checkpoint import load_sharded
from loopscope.training.optim import build_optimizer
from tests.training.distributed.training_ranks import trained
from tests.training.distributed.whole_state import WholeState
from tests.training.fixtures import SEQUENCE, VOCABULARY

SHAPE = {"dim": 16, "heads": 2, "layers": 2, "loops": 3, "vocabulary": VOCABULARY, "sequence": SEQUENCE}


def loaded(checkpoint: Path, muon: bool, ranks: Ranks) -> int:
    """Load a checkpoint into a fresh model in shards; how many of its tensors came out as they are in its files."""
    torch.manual_seed(99)
    model = LoopedTransformer(ModelConfig(**SHAPE, dropout=0.0))  # type: ignore[arg-type]
    FSDPWrapper(model, torch.device("cpu"), ranks, "step")
    optimizer = build_optimizer(model, TrainingConfig(optimizer="muon" if muon else "adamw"))
    load_sharded(checkpoint, model, optimizer, ranks)
    whole = WholeState(model, optimizer, ranks.first)
    if not ranks.first:
        return 0
    verify(checkpoint)
    snapshot = take_snapshot(checkpoint, None, whole, whole.optimizer, {})  # type: ignore[arg-type]
    count = 0
    for kind, found in ((WEIGHTS, snapshot.weights), (OPTIMIZER, snapshot.optimizer)):
        expected = read_tensors(checkpoint / kind)
        assert expected.keys() == found.keys(), expected.keys() ^ found.keys()
        for name, tensor in expected.items():
            assert tensor.dtype == found[name].dtype, name
            assert torch.equal(tensor, found[name]), name
            count += 1
    return count


def full_for_a_while(folder: Path, ranks: Ranks, how: str, on: int) -> dict[str, Any]:
    """Train while the disk refuses what one process writes of step 4; what was said and is left."""
    real = HuggingFaceStorageWriter.write_data

    def refused(self: Any, *rest: Any) -> Any:
        if "step-00000004" in str(self.path) and ranks.rank == on:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, *rest)

    HuggingFaceStorageWriter.write_data = refused  # type: ignore[method-assign]
    settings = {"parallel": "fsdp", "steps": 7, "checkpoint_every": 2, "keep_last": 9, "save": how}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        trained({"name": f"full-{how}-{on}", "training": settings}, folder, ranks)
    HuggingFaceStorageWriter.write_data = real  # type: ignore[method-assign]
    return {
        "said": [str(w.message) for w in warned if "not saved" in str(w.message)],
        "kept": [path.name for path in checkpoint_folders(folder / f"full-{how}-{on}")],
        "there": sorted(path.name for path in (folder / f"full-{how}-{on}" / "checkpoints").iterdir()),
    }


def main(folder: Path, checkpoints: list[Path]) -> None:
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ranks:
        found: dict[str, Any] = {str(path): loaded(path, "muon" in str(path), ranks) for path in checkpoints}
        if ranks.world == 2:
            for how in ("waiting", "background"):
                for on in (0, 1):
                    found[f"{how} {on}"] = full_for_a_while(folder, ranks, how, on)
        if ranks.first:
            (folder / "held.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
