"""ONNX files beside an export, whose folder has the tokenizer that they need."""

from collections.abc import Sequence
from pathlib import Path

from loopscope.interop.huggingface.export.exported_folder import check_export, export_settings, read_export
from loopscope.interop.onnx.onnx_files import OnnxFile, write_onnx
from loopscope.interop.onnx.onnx_files import check_onnx as check_onnx

FOLDER = "onnx"
"""Of an export, with its ONNX files: where tools for the browser look for them."""


def add_onnx(directory: str | Path, depths: Sequence[int]) -> list[OnnxFile]:
    """Write ONNX files of an export into its folder `onnx`, one per depth, each held to the model by a run.

    Their metadata says of which depth and model they are, what tokenizer reads text for them, and the ids of its
    special tokens.

    Raises:
        ValueError: the folder is no export or has ONNX files, a depth below 1, onnx is not installed; says what to do.
    """
    directory = Path(directory)
    if not depths:
        return []
    check_export(directory)
    settings = export_settings(directory)
    trained = settings.get("trained") or {}
    tokenizer = trained.get("tokenizer") or {}
    facts = {
        "name": trained.get("name"),
        "condition": trained.get("condition"),
        "tokenizer": tokenizer.get("kind"),
        "tokenizer_hash": tokenizer.get("hash"),
        **{name: settings.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    }
    return write_onnx(read_export(directory), directory / FOLDER, depths, facts)
