"""What an export came to, read from its folder: files with their sizes, depth, verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopscope.interop.huggingface.export.exported_folder import check_export, export_settings
from loopscope.interop.huggingface.loading import tensors_in
from loopscope.results.layout import CARD, TOKENIZER

_HOLDS: Mapping[str, str] = {
    ".safetensors": "weights",
    "config.json": "settings of the model",
    "generation_config.json": "what generate() goes by",
    "configuration_loopscope.py": "code of the settings, for where Loopscope is not",
    "modeling_loopscope.py": "code of the model, for where Loopscope is not",
    TOKENIZER: "the tokenizer",
    "tokenizer_config.json": "its tokens that begin, end and pad",
    CARD: "the model's card",
    ".onnx": "one depth for onnxruntime",
    ".data": "its weights",
}
"""By a file's name, or its ending."""


@dataclass(frozen=True)
class ExportedFile:
    """A file of an export: its path in the folder, its size, and what is in it."""

    name: str
    bytes: int
    holds: str


@dataclass(frozen=True)
class ExportSummary:
    """What an export came to.

    Attributes:
        name: of the model.
        parameters: numbers that its files hold; a head that is the embedding counts once.
        loops: how many run where no other number is asked for.
        trained_loops: how many it was trained with.
        verdict: its word, why, and whether it was measured on these weights; None where nothing says.
        files: of the folder, the largest first.
    """

    folder: str
    name: str
    parameters: int
    loops: int
    trained_loops: int
    verdict: Mapping[str, Any] | None
    files: Sequence[ExportedFile]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)


def summarise_export(directory: str | Path) -> ExportSummary:
    """Return what an export came to, with whatever else lies in its folder (ONNX files).

    Raises:
        ValueError: the folder is no export.
    """
    directory = Path(directory)
    check_export(directory)
    settings = export_settings(directory)
    trained = settings.get("trained") or {}
    paths = sorted(
        (path for path in directory.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size
    )
    weights = [path for path in paths if path.suffix == ".safetensors"]
    return ExportSummary(
        folder=str(directory),
        name=str(trained.get("name") or directory.name),
        parameters=sum(math.prod(shape) for path in weights for _, shape in tensors_in(path).values()),
        loops=int(settings["num_loops"]),
        trained_loops=int(settings["looped"]["loops"]),
        verdict=trained.get("verdict"),
        files=[
            ExportedFile(
                path.relative_to(directory).as_posix(),
                path.stat().st_size,
                _HOLDS.get(path.name) or _HOLDS.get(path.suffix, ""),
            )
            for path in paths
        ],
    )
