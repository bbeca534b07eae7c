"""Token files: a 128-byte header, then ids as uint16 or uint32, mapped into memory when read.

The header holds what makes a file safe to use: type, count, the tokenizer's hash, and the bytes of the text
behind the tokens (for bits per byte). It is written last, under another name: a file that has its own name
is complete.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from loopscope.results.layout import replacing

_MAGIC = b"LOOPTOK1"
_HEADER = struct.Struct("<8sIQQQ64s")
HEADER_BYTES = 128
_DTYPES: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}


@dataclass(frozen=True)
class TokenFile:
    """A token file, mapped into memory: ids, and how many bytes of text they stand for."""

    path: Path
    tokens: Integer[np.ndarray, " count"]  # memory-mapped
    bytes: int  # UTF-8 bytes of the text
    vocabulary_size: int
    tokenizer_hash: str

    @property
    def count(self) -> int:
        """Tokens in the file."""
        return len(self.tokens)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of the text behind the tokens, over their number."""
        return self.bytes / self.count


def write_tokens(
    path: str | Path,
    chunks: Iterable[tuple[Integer[np.ndarray, " tokens"], int]],
    vocabulary_size: int,
    tokenizer_hash: str,
) -> None:
    """Write a token file from a stream of (ids, bytes of their text).

    Args:
        path: the file; written beside and moved there once complete.
        chunks: ids, and how many bytes of UTF-8 they stand for.
        vocabulary_size: number of ids, which says how wide a stored id is.
        tokenizer_hash: of the tokenizer that made the ids; `open_tokens` can hold it against another.
    """
    path = Path(path)
    dtype = _DTYPES[2 if vocabulary_size <= 2**16 else 4]
    count = size = 0
    with replacing(path) as writing, writing.open("wb") as file:
        file.write(bytes(HEADER_BYTES))
        for ids, text_bytes in chunks:
            file.write(np.ascontiguousarray(ids, dtype=dtype).tobytes())
            count, size = count + len(ids), size + text_bytes
        header = _HEADER.pack(_MAGIC, dtype.itemsize, count, size, vocabulary_size, tokenizer_hash.encode())
        file.seek(0)
        file.write(header.ljust(HEADER_BYTES, b"\0"))


def open_tokens(path: str | Path, tokenizer_hash: str | None = None) -> TokenFile:
    """Map a token file into memory.

    Args:
        tokenizer_hash: of the tokenizer that the ids are meant for; None does not check.

    Raises:
        ValueError: missing, not a token file, cut short, or made with another tokenizer.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; delete its folder to ingest the corpus again")
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or not head.startswith(_MAGIC):
        raise ValueError(f"{path} is not a token file of Loopscope; delete its folder to ingest again")
    _, width, count, size, vocabulary_size, made_with = _HEADER.unpack_from(head)
    actual = path.stat().st_size
    expected = HEADER_BYTES + width * count
    if width not in _DTYPES or actual != expected:
        raise ValueError(
            f"{path} has {actual} bytes, its header says {expected}: it is cut short or damaged; "
            "delete its folder to ingest again"
        )
    made = made_with.decode("ascii", errors="replace")
    if tokenizer_hash is not None and made != tokenizer_hash:
        raise ValueError(
            f"{path} was made with another tokenizer (hash {made[:12]}…, this one is {tokenizer_hash[:12]}…); "
            "its ids would mean other words. Use the {TOKENIZER} beside it, or ingest the text again"
        )
    tokens: np.ndarray = (
        np.memmap(path, dtype=_DTYPES[width], mode="r", offset=HEADER_BYTES, shape=(count,))
        if count
        else np.zeros(0, dtype=_DTYPES[width])
    )
    return TokenFile(path, tokens, size, vocabulary_size, made)
