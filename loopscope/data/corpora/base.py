"""What a corpus is: two streams of text, and a fingerprint that changes when they do."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from loopscope.data.corpora.document_files import DAMAGE, damage, opened_text

PIECE = 2**20
"""Characters read at once."""


class AbstractCorpus(ABC):
    """A text in two parts, training and validation. Pieces may be cut anywhere; joined they are the text.

    Where it consists of documents, `documents` has the same text with the place where each ends.
    """

    @abstractmethod
    def train(self) -> Iterator[str]:
        """Yield the training text in pieces."""

    @abstractmethod
    def validation(self) -> Iterator[str]:
        """Yield the validation text in pieces; it shares no document with the training text."""

    def documents(self, validation: bool) -> Iterator[str | None]:
        """Yield a part's documents in pieces, with None after each; what joins documents in one text is left out."""
        raise ValueError(f"{type(self).__name__} has a text and no documents; leave data.documents at joined")

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a string that changes when the text does. Cheap: names, sizes and times rather than contents."""

    def origin(self) -> dict[str, str]:
        """Return what is known of where the text comes from, beyond the settings: a commit, say. After it was read."""
        return {}

    def remarks(self) -> list[str]:
        """Return what the reader should know of how the text is read, a sentence each."""
        return []

    def train_bytes(self) -> int | None:
        """Return about how many bytes `train` yields, for a progress bar; None where nobody knows."""
        return None


def read_pieces(path: Path) -> Iterator[str]:
    """Yield a UTF-8 file in pieces of about a megabyte, every character kept, line ends too; through gzip by its name.

    Raises:
        ValueError: the file is not UTF-8, or is damaged; names it.
    """
    done = 0
    try:
        with opened_text(path) as file:
            while piece := file.read(PIECE):
                yield piece
                done += len(piece)
    except DAMAGE as error:
        at = f"at byte {error.start}" if isinstance(error, UnicodeDecodeError) and not done else ""
        raise damage(path, error, at or f"after {done:,} characters") from error


def cap_bytes(pieces: Iterable[str], limit: int | None) -> Iterator[str]:
    """Return the longest prefix of a text of at most `limit` bytes of UTF-8, whole characters only."""
    left = limit
    for piece in pieces:
        if left is None:
            yield piece
            continue
        raw = piece.encode("utf-8")
        if len(raw) >= left:
            yield raw[:left].decode("utf-8", errors="ignore")
            return
        left -= len(raw)
        yield piece


def cap_documents(pieces: Iterable[str | None], limit: int | None) -> Iterator[str | None]:
    """Return the longest prefix of documents of at most `limit` bytes of UTF-8; the last one ends where it is cut."""
    left = limit
    for piece in pieces:
        if piece is None or left is None:
            yield piece
            continue
        raw = piece.encode("utf-8")
        if len(raw) >= left:
            yield raw[:left].decode("utf-8", errors="ignore")
            yield None
            return
        left -= len(raw)
        yield piece


def join_documents(documents: Iterable[str], separator: str = "\n\n") -> Iterator[str]:
    """Join documents into one text, yielded in pieces of about a megabyte."""
    waiting: list[str] = []
    size, first = 0, True
    for document in documents:
        waiting.append(document if first else separator + document)
        size, first = size + len(document), False
        if size >= PIECE:
            yield "".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting)
