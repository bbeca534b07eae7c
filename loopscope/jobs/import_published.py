"""From a checkpoint of the published code to a model folder."""

from pathlib import Path

from loopscope.data.tokenizers import WordTokenizer
from loopscope.interop.model_folder import save_model
from loopscope.interop.published import read_published
from loopscope.results.layout import TOKENIZER


def convert_published(checkpoint: str | Path, directory: str | Path) -> Path:
    """Write a published `last.pt` as a model folder, which must be new.

    Raises:
        ValueError: not such a checkpoint, or the folder is not empty.
    """
    published = read_published(Path(checkpoint))
    files = {}
    if published.itos:
        files[TOKENIZER] = WordTokenizer(published.itos, published.pattern).to_text()
    sections = {"objective": dict(published.objective), "source": {"published_step": published.step}}
    save_model(published.model, directory, sections, files)
    return Path(directory)
