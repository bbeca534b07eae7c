"""How folders of transformers are loaded: in which type, onto which devices. Said for the process, or for a call."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loopscope.optional_packages import require

MAPS = ("auto", "balanced", "balanced_low_0", "sequential", "cpu", "cuda", "mps")
"""Device maps that have a name; or `cuda:1`, or a JSON object of parts and devices."""
LoadedType = Literal["auto", "float32", "bfloat16"]
LOADED_TYPES: tuple[LoadedType, ...] = ("auto", "float32", "bfloat16")
_BYTES = {"F64": 8, "F32": 4, "I64": 8, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
"""Of a number in safetensors, by the name of its type there; 1 where none is named."""
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Loading:
    """How a folder is loaded.

    Attributes:
        dtype: the type of its weights in memory; `auto` as they are stored. Audits measure in fp32 in any case.
        device_map: what `from_pretrained` takes, as text; None: all on the CPU.

    Raises:
        ValueError: a type or a map that there is not, or a map without accelerate, which places the parts.
    """

    dtype: LoadedType = "auto"
    device_map: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in LOADED_TYPES:
            raise ValueError(f"dtype is {self.dtype!r}; choose one of {', '.join(LOADED_TYPES)}")
        self.placement()
        if self.device_map is not None:
            require(f"device-map {self.device_map!r}", "accelerate")

    def placement(self) -> str | Mapping[str, Any] | None:
        """Return the device map as `from_pretrained` takes it."""
        text = self.device_map
        if text is None or text in MAPS or re.fullmatch(r"(cuda|mps|xpu):\d+", text):
            return text
        try:
            parts = json.loads(text)
        except ValueError:
            parts = None
        if not isinstance(parts, dict) or not parts:
            raise ValueError(
                f"device-map is {text!r}; give {', '.join(MAPS)}, cuda:1, or a JSON object such as "
                '\'{"model.layers.0": "cuda:0", "": "cpu"}\''
            )
        if "disk" in parts.values():
            raise ValueError(
                f"device-map is {text!r}; parts on the disk cannot be read as audits, curves and generation read them: "
                "name devices, or leave device-map out"
            )
        return parts


@contextmanager
def without_bars() -> Iterator[None]:
    """No progress bars of transformers meanwhile."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


_chosen = [Loading()]


def load_with(dtype: LoadedType = "auto", device_map: str | None = None) -> None:
    """Load folders of transformers so from now on in this process: what `--dtype` and `--device-map` say."""
    _chosen[:] = [Loading(dtype, device_map)]


def chosen_loading() -> Loading:
    """Return what the process was told."""
    return _chosen[0]


def weight_bytes(files: Sequence[Path], dtype: LoadedType) -> int:
    """Return the bytes of the weights in safetensors files as they are loaded, from the files' headers alone.

    Raises:
        ValueError: a file without a header: cut short, or something else.
    """
    total = 0
    for file in files:
        for kind, shape in tensors_in(file).values():
            given = {"float32": 4, "bfloat16": 2}.get(dtype) if kind in _FLOATS else None
            total += math.prod(shape) * (given or _BYTES.get(kind, 1))
    return total


def tensors_in(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of every tensor of a safetensors file by name, from its header alone.

    Raises:
        ValueError: a file without a header: cut short, or something else.
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(length, 100_000_000)))
        return {
            name: (str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is cut short or no safetensors file; download it again") from error
