"""The tokenizer of a model as benchmarks ask it: special tokens as transformers puts them, BOS or EOS before nothing.

A folder of transformers has its own, with its special tokens: scores are then those of the harness's own model of
transformers. Loopscope's tokenizers put none, and training showed a model none, so what stands before a text with
nothing before it has to be named.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from loopscope.data.tokenizers import AbstractTokenizer
from loopscope.interop.huggingface.hub import SETTING_FILES, hub_folder, is_hub_name
from loopscope.interop.huggingface.pretrained import is_transformers_folder
from loopscope.interop.huggingface.remote_code import may_run
from loopscope.jobs.generate import tokenizer_of
from loopscope.jobs.opened import OpenedModel
from loopscope.results.layout import TOKENIZER


class OwnTokenizer:
    """A tokenizer of Loopscope's own: no special tokens, and before nothing what the user names."""

    end: int | None = None
    end_text: str | None = None

    def __init__(self, tokenizer: AbstractTokenizer, prefix: str | None) -> None:
        self.tokenizer = tokenizer
        self.prefix = None if prefix is None else one_token(self, prefix)
        if self.prefix is not None and self.prefix == tokenizer.unknown_id:
            raise ValueError(
                f"prefix is {prefix!r}, which this model's tokenizer does not know: it would stand there as any "
                "unknown text does; name a text of one token, such as a newline"
            )

    def encode(self, text: str, special: bool | None = None) -> list[int]:
        """Return the ids of a text; there are no special ones to add."""
        return [int(token) for token in self.tokenizer.encode(text)]

    def decode(self, ids: Iterable[int | np.integer[Any]]) -> str:
        """Return the text of ids."""
        return self.tokenizer.decode(ids)


class TheirTokenizer:
    """A tokenizer of transformers, asked as the harness's own model of transformers asks it."""

    def __init__(self, tokenizer: Any, prefix: str | None) -> None:
        self.tokenizer = tokenizer
        self.end: int | None = tokenizer.eos_token_id
        self.end_text: str | None = None if self.end is None else tokenizer.decode([self.end])
        begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else self.end
        self.prefix: int | None = begin if prefix is None else one_token(self, prefix)
        self._prefix_text = None if self.prefix is None else tokenizer.decode([self.prefix])

    def encode(self, text: str, special: bool | None = None) -> list[int]:
        """Return the ids of a text; None adds special ones as the tokenizer does, unless they are written there."""
        if special is None and self._prefix_text and text.startswith(self._prefix_text):
            special = False
        return list(
            self.tokenizer.encode(text, **({} if special is None else {"add_special_tokens": special}))
        )

    def decode(self, ids: Iterable[int | np.integer[Any]]) -> str:
        """Return the text of ids, without special ones."""
        text: str = self.tokenizer.decode([int(index) for index in ids], skip_special_tokens=True)
        return text


def task_tokenizer(opened: OpenedModel, prefix: str | None = None) -> OwnTokenizer | TheirTokenizer:
    """Return what benchmarks read and write a model's text with.

    Args:
        prefix: a text of one token that stands before a text with nothing before it; None: BOS, else EOS.

    Raises:
        ValueError: the model has no tokenizer, or the prefix is not one token of it.
    """
    on_hub = is_hub_name(opened.path)
    if not on_hub and not is_transformers_folder(opened.path):
        return OwnTokenizer(tokenizer_of(opened), prefix)
    folder = hub_folder(opened.path, SETTING_FILES) if on_hub else opened.path
    return TheirTokenizer(_read(folder), prefix)


def _read(folder: Path) -> Any:
    import transformers

    own_code = any(folder.glob("tokenization_*.py")) and may_run(folder, False)
    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=own_code
        )
    except Exception as error:  # the libraries', and whatever a stranger's code raises
        cause = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{folder} has no tokenizer that transformers reads ({type(error).__name__}: {cause}), and benchmarks are "
            f"text; put its {TOKENIZER} and its settings there"
        ) from error


def one_token(tokenizer: OwnTokenizer | TheirTokenizer, prefix: str) -> int:
    """Return the id of a text that is one token.

    Raises:
        ValueError: it is none, or several.
    """
    ids = tokenizer.encode(prefix, False)
    if len(ids) != 1:
        raise ValueError(
            f"prefix is {prefix!r}, which is {len(ids)} tokens of this model; name a text of one, such as a newline"
        )
    return ids[0]
