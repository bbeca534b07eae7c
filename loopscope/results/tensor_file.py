"""Reading and writing safetensors, with a message that names the file.

The one place where that library's errors become ours: damage is a ValueError, a full disk the OSError that it is. The
library is loaded with the first call.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from loopscope.results.faults import concerning
from loopscope.results.layout import shard_paths
from loopscope.results.shards import read_shards

if TYPE_CHECKING:
    from torch import Tensor


def read_tensors(path: str | Path) -> dict[str, "Tensor"]:
    """Read a safetensors file into memory, or the shards that stand for it.

    Raises:
        ValueError: missing, cut short, damaged, or of another format; names the file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file() and shard_paths(path.parent, path.name):
        return read_shards(path.parent, path.name)
    if not path.is_file():
        raise ValueError(f"{path} is missing; restore it from a copy, or use another folder")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is cut short or damaged, or no safetensors file ({error}); restore it from a copy"
        ) from error
    return tensors


def write_tensors(tensors: Mapping[str, "Tensor"], path: str | Path) -> None:
    """Write tensors as one safetensors file.

    Raises:
        OSError: the system refused, as it would any other file: a full disk, a limit, a name that is too long.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with concerning(path):
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
