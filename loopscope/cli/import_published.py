"""`loopscope import-published`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from loopscope.cli.arguments import parse


@dataclass(frozen=True)
class ImportPublished:
    """Convert the paper's checkpoint (last.pt) into a model folder.

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
    from loopscope.data.tokenizers import WordTokenizer
    from loopscope.interop.model_folder import save_model
    from loopscope.interop.published import read_published

    published = read_published(command.checkpoint)
    files = {}
    if published.itos:
        files["tokenizer.json"] = WordTokenizer(published.itos, published.pattern).to_text()
    sections = {"objective": dict(published.objective), "source": {"published_step": published.step}}
    save_model(published.model, command.directory, sections, files)
    print(command.directory)
