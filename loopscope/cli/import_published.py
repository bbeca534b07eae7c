"""`loopscope import-published`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from loopscope.cli.arguments import parse


@dataclass(frozen=True)
class ImportPublished:
    """Convert a checkpoint of the paper's own code (last.pt) into a model folder.

    Nothing else needs one: loopscope train makes models of your own, and audit and generate read a last.pt as it is.

    Example:
        loopscope import-published last.pt models/dense
    """

    checkpoint: tyro.conf.Positional[Path]
    """A published last.pt. Read without executing anything in it."""
    directory: tyro.conf.Positional[Path]
    """New folder for config.yaml, model.safetensors and tokenizer.json."""


def import_published(arguments: Sequence[str]) -> None:
    """`loopscope import-published`."""
    command = parse(ImportPublished, "import-published", arguments)
    from loopscope.jobs import convert_published

    print(convert_published(command.checkpoint, command.directory))
