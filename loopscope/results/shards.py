"""Weights and optimizer state in shards: several safetensors files, each with a share of every tensor.

torch.distributed.checkpoint writes and reads them in its safetensors format: where a share begins stands in each
file's own header, so there is no index beside, and no pickle anywhere. Names are that format's, and `results.layout`
knows them.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopscope.results.layout import shard_paths

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader


def read_shards(folder: str | Path, kind: str) -> dict[str, "Tensor"]:
    """Read all tensors of a kind, whole, into memory. Works in any process, among others or alone.

    Args:
        kind: the file that they stand for: of the weights, or of the optimizer.

    Raises:
        ValueError: a file is cut short or damaged, or a share is missing; names the folder.
    """
    import torch
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = reader_of(folder, kind)
    with damage_named(folder):
        found: dict[str, Any] = dict(reader.read_metadata().state_dict_metadata)
        _check_whole(found, folder)
        tensors = {name: torch.empty(data.size, dtype=data.properties.dtype) for name, data in found.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def reader_of(folder: str | Path, kind: str) -> "HuggingFaceStorageReader":
    """Return what torch.distributed.checkpoint reads the tensors of a kind with, in one file or in shards."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    folder = Path(folder)
    whole = folder / kind
    paths = [str(path) for path in ([whole] if whole.is_file() else shard_paths(folder, kind))]
    reader = HuggingFaceStorageReader(str(folder))
    reader.fs.ls = lambda path: paths  # type: ignore[method-assign]  # else it takes all files of the folder
    return reader


@contextmanager
def damage_named(folder: str | Path) -> Iterator[None]:
    """Turn what a damaged file raises inside into a ValueError that names the folder."""
    from safetensors import SafetensorError
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        known = next((each for each in causes if isinstance(each, OSError)), None)
        if known is not None:
            raise known from error
        raise ValueError(f"{folder} cannot be read: {causes[0]}; restore it from a copy") from error
    except (SafetensorError, KeyError, AssertionError, TypeError) as error:
        raise ValueError(f"{folder} has shards that are damaged ({error}); restore it from a copy") from error


def _check_whole(found: dict[str, Any], folder: str | Path) -> None:
    """Refuse tensors of which a share is missing: torch would leave that part as it was."""
    for name, data in found.items():
        covered = sum(chunk.sizes.numel() for chunk in data.chunks)
        if covered != data.size.numel():
            raise ValueError(
                f"{folder} has {covered:,} of the {data.size.numel():,} numbers of {name} in its shards; restore the "
                "missing ones from a copy"
            )
