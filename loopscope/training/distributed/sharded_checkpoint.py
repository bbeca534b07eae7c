"""A checkpoint of a model in shards: every process writes its share, and reads one, of however many there were.

torch.distributed.checkpoint writes safetensors: a file of weights and one of optimizer state per process, with where a
share begins in its header. Of its formats that is the one without a pickle, on reading too. Every process hashes what
it wrote; the first one writes the rest (config, tokenizer, `state.json` with all hashes) and gives the folder its name.
A kill at any moment leaves the checkpoint before.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from loopscope.results.layout import (
    OPTIMIZER,
    SHARD_OF,
    WEIGHTS,
    checkpoint_folder,
    shard_kind,
    shard_rank,
    unfinished,
)
from loopscope.results.manifest import check_files, sha256_of
from loopscope.results.shards import damage_named, reader_of
from loopscope.results.tied_weights import tie_problem, ties_of
from loopscope.training.checkpoint import TIES, Retention, Snapshot, finish_folder, folder_begun, remove_older
from loopscope.training.distributed.process_group import LONGEST_WAIT
from loopscope.training.distributed.ranks import Ranks
from loopscope.training.optimizer_state import AnyOptimizer

Refusal = tuple[int | None, str]
"""Number and words of what the system, or a library, refused on one process."""


def ranks_for_saves(ranks: Ranks) -> Ranks:
    """Return the same processes with a group of their own to talk through. All of them call it."""
    return replace(ranks, control=dist.new_group(backend="gloo", timeout=LONGEST_WAIT))


class ShardedSave:
    """One save of all processes, begun. In the background the shares are copied first, and training may go on.

    Args:
        snapshot: its tensors are this process' shares.
        ranks: the processes, with a group for saves alone: another thread may be using theirs.
    """

    def __init__(
        self, run: str | Path, snapshot: Snapshot, kept: Retention, ranks: Ranks, background: bool
    ) -> None:
        self.run, self.snapshot, self.kept, self.ranks = run, snapshot, kept, ranks
        self.final = checkpoint_folder(run, snapshot.progress.step)
        self.folder = ExitStack()
        self.refused: Refusal | None = None
        self.future: Any = None
        self.there = ranks.told(self.final.is_dir())  # the same step again, after a resume: it is complete
        if self.there:
            return
        if ranks.first:
            try:
                self.folder.enter_context(folder_begun(self.final))
            except (OSError, ValueError) as error:
                self.refused = _refusal(error)
        if refused := ranks.told(self.refused):
            self.refused = refused
            return
        names = dict.fromkeys(snapshot.weights, SHARD_OF[WEIGHTS])
        names |= dict.fromkeys(snapshot.optimizer, SHARD_OF[OPTIMIZER])
        writer = HuggingFaceStorageWriter(str(unfinished(self.final)), names, save_distributed=True)
        tensors = {**snapshot.weights, **snapshot.optimizer}
        if background:
            self.future = async_save(tensors, storage_writer=writer, process_group=ranks.control)
            return
        try:
            save(tensors, storage_writer=writer, process_group=ranks.control)
        except CheckpointException as error:  # every process has it
            self.refused = _refusal(error)

    def finish(self) -> None:
        """Wait until the shares are written, and give the folder its name. All processes call it, and end alike.

        Raises:
            OSError: the system refused on one of them; nothing of the checkpoint is left.
            ValueError: something else did.
        """
        if self.there:
            return
        own: dict[str, str] = {}
        try:
            if self.future is not None and self.refused is None:
                self.future.result()
            if self.refused is None:
                own = self._own_hashes()
        except (CheckpointException, OSError) as error:
            self.refused = _refusal(error)
        told = self.ranks.all_told((own, self.refused))
        refused = next((refusal for _, refusal in told if refusal is not None), None)
        if self.ranks.first:
            refused = self._named(refused, {name: one for hashes, _ in told for name, one in hashes.items()})
        if refused := self.ranks.told(refused):
            raise _error(refused, self.final)

    def _own_hashes(self) -> dict[str, str]:
        return {
            path.name: sha256_of(path)
            for path in unfinished(self.final).iterdir()
            if shard_kind(path.name) and shard_rank(path.name) == self.ranks.rank
        }

    def _named(self, refused: Refusal | None, hashes: dict[str, str]) -> Refusal | None:
        """Finish the folder, or take it away; return what was refused."""
        try:
            with self.folder:
                if refused is not None:
                    raise _error(refused, self.final)
                finish_folder(unfinished(self.final), self.run, self.snapshot, hashes)
            remove_older(self.run, self.kept)
        except (OSError, ValueError) as error:
            shutil.rmtree(unfinished(self.final), ignore_errors=True)
            return refused or _refusal(error)
        return None


def load_sharded(checkpoint: str | Path, model: nn.Module, optimizer: AnyOptimizer, ranks: Ranks) -> None:
    """Restore the weights and the optimizer's state of a model in shards, in place: each process reads its own.

    The checkpoint may be of any number of processes, or of one in whole files.

    Raises:
        ValueError: tensors that are missing, unknown, of another shape or not tied as the model's; names them.
    """
    checkpoint = Path(checkpoint)
    table = check_files(checkpoint, ()) or {}
    with damage_named(checkpoint):
        found: dict[str, Any] = dict(reader_of(checkpoint, WEIGHTS).read_metadata().state_dict_metadata)
    check_shards(checkpoint, model, found, table.get(TIES) or {})
    weights = {name: tensor for name, tensor in model.state_dict().items() if name in found}
    parameters = dict(model.named_parameters())
    state: dict[str, Tensor] = {}
    with damage_named(checkpoint):
        load(weights, storage_reader=reader_of(checkpoint, WEIGHTS), process_group=ranks.control)
        found = dict(reader_of(checkpoint, OPTIMIZER).read_metadata().state_dict_metadata)
    for name, data in found.items():
        parameter = parameters[name.rsplit("/", 1)[0]]
        like = parameter.detach() if data.size == parameter.shape and parameter.ndim else None
        kind = data.properties.dtype
        state[name] = (
            torch.empty(data.size, dtype=kind) if like is None else torch.empty_like(like, dtype=kind)
        )
    with damage_named(checkpoint):
        load(state, storage_reader=reader_of(checkpoint, OPTIMIZER), process_group=ranks.control)
    optimizer.state.clear()
    device = next(iter(parameters.values())).device
    for name, value in state.items():
        parameter_name, key = name.rsplit("/", 1)
        parameter = parameters[parameter_name]
        optimizer.state[parameter][key] = value if value.ndim else value.to(device)


def check_shards(
    checkpoint: str | Path, model: nn.Module, found: Mapping[str, Any], ties: Mapping[str, str]
) -> None:
    """Refuse shards that are not this model's: torch would pass over what it does not know.

    Args:
        found: what they hold, by tensor's name.
        ties: which names stand for one tensor, as the checkpoint says.

    Raises:
        ValueError: names the tensors.
    """
    here: dict[str, Tensor] = model.state_dict()
    if problem := tie_problem(found, here, ties, ties_of(here)):
        raise ValueError(f"{checkpoint} {problem}")
    problems = [f"missing {name}" for name in here if name not in found]
    problems += [f"unknown {name}" for name in found if name not in here]
    problems += [
        f"{name} is {tuple(found[name].size)} there, {tuple(tensor.shape)} here"
        for name, tensor in here.items()
        if name in found and found[name].size != tensor.shape
    ]
    if problems:
        raise ValueError(f"{checkpoint} does not fit this model: {'; '.join(problems[:5])}")


def _refusal(error: BaseException) -> Refusal:
    if isinstance(error, CheckpointException):
        causes = [cause for cause, _ in error.failures.values()]
        error = next((cause for cause in causes if isinstance(cause, OSError)), causes[0])
    return (error.errno if isinstance(error, OSError) else None, str(error))


def _error(refused: Refusal, final: Path) -> OSError | ValueError:
    number, words = refused
    return ValueError(words) if number is None else OSError(number, os.strerror(number), str(final))
