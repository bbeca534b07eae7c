"""Corpora by name. A new one is a file here and a line in `build_corpus`; `base` has what it fills."""

from loopscope.data.config import DataConfig
from loopscope.data.corpora.base import AbstractCorpus, cap_bytes, cap_documents
from loopscope.data.corpora.files import FilesCorpus
from loopscope.data.corpora.huggingface import HuggingFaceCorpus
from loopscope.data.corpora.stdlib import StdlibCorpus

__all__ = [
    "AbstractCorpus",
    "FilesCorpus",
    "HuggingFaceCorpus",
    "StdlibCorpus",
    "build_corpus",
    "cap_bytes",
    "cap_documents",
]


def build_corpus(config: DataConfig) -> AbstractCorpus:
    """Build the corpus that a config names; any other name is a Hugging Face dataset's."""
    match config.corpus:
        case "stdlib":
            return StdlibCorpus(config.validation_fraction)
        case "files":
            return FilesCorpus(
                config.files, config.validation_files, config.validation_fraction, config.text_column
            )
        case _:
            return HuggingFaceCorpus(config)
