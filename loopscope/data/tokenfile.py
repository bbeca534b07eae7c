"""Token files: a 128-byte header, then ids as uint16 or uint32, mapped into memory when read.

The header holds what makes a file safe to use: type, count, the tokenizer's hash, the bytes of the text behind the
tokens (for bits per byte), the largest id, and a hash of all of it. It is written last, under another name: a file that
has its own name is complete. Both are looked at whenever a file is opened, once a process as long as it does not change
(files from before they were kept: their ids alone).
"""

import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from loopscope.results.faults import concerning
from loopscope.results.layout import TOKENIZER, replacing

_MAGIC = b"LOOPTOK1"
_HEADER = struct.Struct("<8sIQQQ64s")
_CHECK = struct.Struct(
    "<I24s"
)  # the largest id, and the first 24 bytes of the SHA-256 of ids, header and largest id
HEADER_BYTES = 128
_DIGEST = re.compile(rb"[0-9a-f]{64}")
_DTYPES: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}
_AGAIN = "delete its folder to ingest again"
TOKENS_AT_ONCE = 1 << 22
"""Tokens that are looked at together."""
CHUNK_BYTES = 1 << 22
"""Read at a time while a file is checked."""


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

    Raises:
        ValueError: an id that the vocabulary does not have; nothing is left of the file.
    """
    path = Path(path)
    dtype = _DTYPES[2 if vocabulary_size <= 2**16 else 4]
    count = size = largest = 0
    digest = hashlib.sha256()
    with replacing(path) as writing, writing.open("wb") as file:
        file.write(bytes(HEADER_BYTES))
        for ids, text_bytes in chunks:
            if len(ids):
                _check_ids(int(ids.min()), int(ids.max()), vocabulary_size, path)
                largest = max(largest, int(ids.max()))
            data = np.ascontiguousarray(ids, dtype=dtype).tobytes()
            digest.update(data)
            file.write(data)
            count, size = count + len(ids), size + text_bytes
        header = _HEADER.pack(_MAGIC, dtype.itemsize, count, size, vocabulary_size, tokenizer_hash.encode())
        file.seek(0)
        file.write(header + _CHECK.pack(largest, _sealed(digest, header, largest)))


def open_tokens(path: str | Path, tokenizer_hash: str | None = None) -> TokenFile:
    """Map a token file into memory.

    Args:
        tokenizer_hash: of the tokenizer that the ids are meant for; None does not check.

    Raises:
        ValueError: missing, not a token file, cut short, changed after it was written, with ids that its vocabulary
            does not have, or made with another tokenizer.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; delete its folder to ingest the corpus again")
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or not head.startswith(_MAGIC):
        raise ValueError(f"{path} is not a token file of Loopscope; {_AGAIN}")
    _, width, count, size, vocabulary_size, made_with = _HEADER.unpack_from(head)
    status = path.stat()
    expected = HEADER_BYTES + width * count
    if width not in _DTYPES or status.st_size != expected:
        raise ValueError(
            f"{path} has {status.st_size} bytes, its header says {expected}: it is cut short or damaged; {_AGAIN}"
        )
    made = made_with.decode("ascii", errors="replace")
    if tokenizer_hash is not None and made != tokenizer_hash:
        raise ValueError(
            f"{path} was made with another tokenizer (hash {made[:12]}…, this one is {tokenizer_hash[:12]}…); "
            f"its ids would mean other words. Use the {TOKENIZER} beside it, or ingest the text again"
        )
    _check_content(path, head, status.st_mtime_ns, status.st_ino)
    tokens: np.ndarray = (
        np.memmap(path, dtype=_DTYPES[width], mode="r", offset=HEADER_BYTES, shape=(count,))
        if count
        else np.zeros(0, dtype=_DTYPES[width])
    )
    return TokenFile(path, tokens, size, vocabulary_size, made)


@lru_cache(maxsize=64)
def _check_content(path: Path, head: bytes, changed: int, inode: int) -> None:
    """Raise ValueError for ids that are not those that were written; asked once a process for a file that stays."""
    _, width, _, _, vocabulary_size, made_with = _HEADER.unpack_from(head)
    largest, sealed = _CHECK.unpack_from(head, _HEADER.size)
    unsealed = not any(sealed)
    if unsealed and (
        largest or not _DIGEST.fullmatch(made_with)
    ):  # a seal that was lost, with more around it
        raise ValueError(f"{path} has a damaged header; {_AGAIN}")
    digest, found = hashlib.sha256(), 0
    with concerning(path), path.open("rb") as file:
        file.seek(HEADER_BYTES)
        while data := file.read(CHUNK_BYTES):
            if unsealed:
                found = max(found, int(np.frombuffer(data, dtype=_DTYPES[width]).max()))
            else:
                digest.update(data)
    if unsealed:
        _check_ids(0, found, vocabulary_size, path)
    elif sealed != _sealed(digest, head[: _HEADER.size], largest):
        raise ValueError(f"{path} was changed after it was written, or is damaged; {_AGAIN}")
    else:
        _check_ids(0, largest, vocabulary_size, path)


def _check_ids(smallest: int, largest: int, vocabulary_size: int, path: Path) -> None:
    wrong = smallest if smallest < 0 else largest
    if smallest < 0 or largest >= max(vocabulary_size, 1):
        raise ValueError(
            f"{path} has id {wrong}; its vocabulary has ids 0 to {vocabulary_size - 1}: it is damaged, or its "
            f"tokenizer has more entries than it says; {_AGAIN}"
        )


def _sealed(digest: Any, header: bytes, largest: int) -> bytes:
    """Hash of a file: ids first, since the header is known last."""
    whole = digest.copy()
    whole.update(header + largest.to_bytes(4, "little"))
    sealed: bytes = whole.digest()[:24]
    return sealed
