"""Text, or tasks, to batches of token ids. The settings (`config`, `task_config`) load quickly.

In the order in which text passes:

    config, task_config   what is trained and validated on
    corpora/      text in two parts: files, the standard library, Hugging Face datasets
    tokenizers/   text to ids and back
    tokenfile     ids in a memory-mapped file, with the bytes of their text
    document_end  where documents end, as a token
    preparation   a corpus ingested once into token files, and opened again; token_folder: where these lie;
                  ingestion_display: how far it is
    capped_text   what the size caps leave out of text of one's own
    lost_text     what a tokenizer makes of a text that it does not know
    windows       stretches of a token file, drawn by (seed, step): inputs and labels; document_windows: of one
                  document each
    tasks/        problems that are generated, with answers that can be checked
    source        either of the two, opened as a config says
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.data.config import DataConfig, TokenizerConfig
    from loopscope.data.corpora import AbstractCorpus, build_corpus
    from loopscope.data.document_windows import DocumentWindows
    from loopscope.data.preparation import PreparedData, open_prepared, prepare
    from loopscope.data.source import PreparedTask, open_data
    from loopscope.data.task_config import TaskConfig
    from loopscope.data.tasks import AbstractTask, build_task
    from loopscope.data.tasks.windows import TaskWindows
    from loopscope.data.tokenfile import TokenFile, open_tokens, write_tokens
    from loopscope.data.tokenizers import AbstractTokenizer, load_tokenizer, train_tokenizer
    from loopscope.data.windows import Windows

_HOMES = {
    "DataConfig": "config",
    "TokenizerConfig": "config",
    "TaskConfig": "task_config",
    "AbstractCorpus": "corpora",
    "build_corpus": "corpora",
    "AbstractTokenizer": "tokenizers",
    "load_tokenizer": "tokenizers",
    "train_tokenizer": "tokenizers",
    "AbstractTask": "tasks",
    "build_task": "tasks",
    "TokenFile": "tokenfile",
    "open_tokens": "tokenfile",
    "write_tokens": "tokenfile",
    "PreparedData": "preparation",
    "open_prepared": "preparation",
    "prepare": "preparation",
    "PreparedTask": "source",
    "open_data": "source",
    "DocumentWindows": "document_windows",
    "Windows": "windows",
    "TaskWindows": "tasks.windows",
}
__all__ = [
    "AbstractCorpus",
    "AbstractTask",
    "AbstractTokenizer",
    "DataConfig",
    "DocumentWindows",
    "PreparedData",
    "PreparedTask",
    "TaskConfig",
    "TaskWindows",
    "TokenFile",
    "TokenizerConfig",
    "Windows",
    "build_corpus",
    "build_task",
    "load_tokenizer",
    "open_data",
    "open_prepared",
    "open_tokens",
    "prepare",
    "train_tokenizer",
    "write_tokens",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
