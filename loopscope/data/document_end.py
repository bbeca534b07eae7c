"""Documents as tokens: where each ends, one token says so."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Integer

from loopscope.data.config import DataConfig
from loopscope.data.tokenizers import AbstractTokenizer, FileTokenizer

TOGETHER = 2**16
"""Tokens of short documents that are written at once."""


def document_end(config: DataConfig, tokenizer: AbstractTokenizer) -> int | None:
    """Return the id that ends documents; None where they are joined to one text.

    Raises:
        ValueError: the tokenizer has no such token, or not the one that is named.
    """
    if config.documents == "joined":
        return None
    special = tokenizer.special if isinstance(tokenizer, FileTokenizer) else {}
    listed = f"its special tokens are {', '.join(special) or 'none'}"
    if config.end_token is not None:
        if config.end_token not in special:
            raise ValueError(f"data.end_token {config.end_token!r} is none that the tokenizer has; {listed}")
        return special[config.end_token]
    if tokenizer.end_id is None:
        raise ValueError(
            f"data.documents: ended needs a token that ends a document, and none of this tokenizer's is known to; "
            f"{listed}: name one in data.end_token"
        )
    return tokenizer.end_id


def encoded_documents(
    pieces: Iterable[str | None], tokenizer: AbstractTokenizer, end: int
) -> Iterator[tuple[Integer[np.ndarray, " tokens"], int]]:
    """Yield ids and the bytes of UTF-8 that they stand for: `end` first, and after every document.

    Raises:
        ValueError: text that becomes `end`.

    Args:
        pieces: of documents, with None after each.
    """
    mark = np.array([end], dtype=np.uint32)
    waiting, count, size = [mark], 1, 0
    source = iter(pieces)
    over = False

    def document() -> Iterator[str]:
        nonlocal over
        for piece in source:
            if piece is None:
                return
            yield piece
        over = True

    while not over:
        some = False
        for part in tokenizer.parts(document()):
            some = True
            waiting.append(np.asarray(tokenizer.encode(part)))
            if (waiting[-1] == end).any():
                raise ValueError(
                    f"a document has text that becomes id {end}, which is to end documents: name another token "
                    "(data.end_token, with a tokenizer of your own), or leave data.documents at joined"
                )
            count, size = count + len(waiting[-1]), size + len(part.encode("utf-8"))
            if count >= TOGETHER:
                yield np.concatenate(waiting), size
                waiting, count, size = [], 0, 0
        if some:
            waiting.append(mark)
            count += 1
    if waiting:
        yield np.concatenate(waiting), size
