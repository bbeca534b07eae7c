"""Which weights and settings a folder of transformers holds, as one short text that records of it keep.

Of the config all settings count, and of every tensor its name, type, shape and three pieces of its numbers: what was
trained on, merged or rounded has other ones. In which files the tensors lie does not count. Against mistakes, not
against an attacker. Costs three small reads a tensor, whatever the size of the model.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from loopscope.results.layout import CONFIG

CONFIG_FILE = "config.json"
_PIECE = 4096
"""Bytes of a tensor that are read at its start, its middle and its end."""
_OF_THE_WRITER = ("transformers_version", "_name_or_path")
"""Settings that say who wrote the folder, and not which model it is."""


def model_fingerprint(folder: str | Path) -> str | None:
    """Return 16 hexadecimal digits of a folder's config.json and safetensors; None where it has not both, whole."""
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / CONFIG_FILE).is_file() or (folder / CONFIG).is_file():
        return None
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        kept = {name: value for name, value in settings.items() if name not in _OF_THE_WRITER}
        tensors = {name: text for file in files for name, text in _tensors(file).items()}
        text = json.dumps([kept, sorted(tensors.items())], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    return None


def _tensors(path: Path) -> dict[str, str]:
    """Every tensor of a file: type, shape and a hash of pieces of it, by name."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        begin = 8 + length
        return {
            name: f"{entry['dtype']} {entry['shape']} {_pieces(file, begin, *entry['data_offsets'])}"
            for name, entry in header.items()
            if name != "__metadata__"
        }


def _pieces(file: BinaryIO, begin: int, start: int, end: int) -> str:
    digest = hashlib.sha256()
    for place in sorted({start, max(start, (start + end - _PIECE) // 2), max(start, end - _PIECE)}):
        file.seek(begin + place)
        digest.update(file.read(min(_PIECE, end - place)))
    return digest.hexdigest()
