"""Settings that others imply, where these are named and they are not: files mean corpus `files`, ids their number."""

from collections.abc import Mapping
from typing import Any

from loopscope.config.families import Change
from loopscope.config.nested import merged
from loopscope.data.config import means_files

BYTE_IDS = 256
"""Ids of tokenizer `bytes`."""


def with_corpus(over: Change) -> dict[str, Any]:
    """Return settings with corpus `files` where files are named and no corpus is."""
    return merged(over, {"data": {"corpus": "files"}}) if means_files(over.get("data")) else dict(over)


def with_implied(over: Change) -> dict[str, Any]:
    """Return settings with the corpus that files imply, and the `model.vocabulary` that the tokenizer's settings do."""
    found = with_corpus(over)
    data, model = found.get("data"), found.get("model")
    tokenizer = data.get("tokenizer") if isinstance(data, Mapping) else None
    if isinstance(tokenizer, str):
        tokenizer = {"kind": tokenizer}
    if not isinstance(tokenizer, Mapping) or (isinstance(model, Mapping) and "vocabulary" in model):
        return found
    entries = BYTE_IDS if tokenizer.get("kind") == "bytes" else tokenizer.get("vocabulary")
    if type(entries) is not int or tokenizer.get("kind") == "file" or not isinstance(model, Mapping | None):
        return found
    return {**found, "model": {**(model or {}), "vocabulary": entries}}
