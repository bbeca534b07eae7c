"""Files of the user's own: text, or tables with a document a row."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from glob import glob
from pathlib import Path

from loopscope.data.corpora.base import AbstractCorpus, cap_bytes, join_documents, read_pieces
from loopscope.data.corpora.document_files import (
    is_compressed,
    is_table,
    read_documents,
    text_bytes,
    unread_structure,
)


class FilesCorpus(AbstractCorpus):
    """Corpus of files and globs, in the order given and sorted within a glob, one after the other.

    A text file is a document; a table (`document_files`) holds one a row. Both may be compressed with gzip. Without
    validation files some files are held out by a hash of their name; of a single text file its end is, of a single
    table every n-th row.
    """

    def __init__(
        self, files: Sequence[str], validation_files: Sequence[str], fraction: float, column: str = "text"
    ) -> None:
        self.train_files = _find(files)
        self.validation_files = _find(validation_files)
        self.tail_of_one = self.rows_of_one = False
        self.fraction = fraction
        self.column = column
        trained_on = {path.resolve() for path in self.train_files}
        for path in self.validation_files:
            if path.resolve() in trained_on:
                raise ValueError(f"{path} is in files and in validation_files; validate on other text")
        if not self.validation_files and len(self.train_files) == 1:
            self.rows_of_one = is_table(self.train_files[0])
            self.tail_of_one = not self.rows_of_one
        elif not self.validation_files:
            by_hash = sorted(
                self.train_files, key=lambda path: hashlib.sha256(path.name.encode()).hexdigest()
            )
            held_out = set(by_hash[: max(1, round(fraction * len(by_hash)))])
            self.validation_files = [path for path in self.train_files if path in held_out]
            self.train_files = [path for path in self.train_files if path not in held_out]

    def train(self) -> Iterator[str]:
        return self._joined(validation=False)

    def validation(self) -> Iterator[str]:
        return self._joined(validation=True)

    def documents(self, validation: bool) -> Iterator[str | None]:
        for path, pieces in self._parts(validation):
            if is_table(path):
                for document in pieces:
                    yield document
                    yield None
                continue
            some = False
            for piece in pieces:
                some = True
                yield piece
            if some:
                yield None

    def fingerprint(self) -> str:
        stats = [(path, path.stat()) for path in self.train_files + self.validation_files]
        listed = "\n".join(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)
        if any(is_table(path) for path, _ in stats):
            listed += f"\n{self.column}"
        return hashlib.sha256(listed.encode()).hexdigest()

    def remarks(self) -> list[str]:
        """A remark on the first file of every kind that is read as it stands."""
        said = (unread_structure(path) for path in self.train_files)
        return list({text.rpartition(";")[2]: text for text in said if text is not None}.values())

    def train_bytes(self) -> int:
        if self.rows_of_one:
            return int(self._size(self.train_files[0]) * (1 - 1 / self._every))
        return self._head if self.tail_of_one else sum(map(self._size, self.train_files))

    def validation_bytes(self) -> int:
        """Return about how many bytes `validation` yields."""
        if self.rows_of_one or self.tail_of_one:
            return self._size(self.train_files[0]) - self.train_bytes()
        return sum(map(self._size, self.validation_files))

    def _size(self, path: Path) -> int:
        return text_bytes(path, self.column)

    @property
    def _every(self) -> int:
        """Of a single table's rows, every so many is held out."""
        return max(2, round(1 / self.fraction))

    @cached_property
    def _head(self) -> int:
        """Bytes of a single text file that are trained on."""
        (path,) = self.train_files
        if is_compressed(path):  # whose size as text only reading it tells
            size = sum(len(piece.encode("utf-8")) for piece in read_pieces(path))
        else:
            size = path.stat().st_size
        return int(size * (1 - self.fraction))

    def _parts(self, validation: bool) -> Iterator[tuple[Path, Iterator[str]]]:
        """Every file of a part with its text: pieces of it, or a table's documents."""
        if self.tail_of_one:
            (path,) = self.train_files
            yield path, self._tail(path) if validation else cap_bytes(read_pieces(path), self._head)
        elif self.rows_of_one:
            (path,) = self.train_files
            every = self._every
            rows = enumerate(read_documents(path, self.column))
            yield path, (row for number, row in rows if (number % every == every - 1) == validation)
        else:
            for path in self.validation_files if validation else self.train_files:
                yield path, read_documents(path, self.column) if is_table(path) else read_pieces(path)

    def _joined(self, validation: bool) -> Iterator[str]:
        """All files as one text. Rows are joined by a blank line, a text file without a last newline gets one."""
        last, table = "", False
        for path, pieces in self._parts(validation):
            before = "\n\n" if table or is_table(path) else "" if last == "\n" else "\n"
            table = is_table(path)
            for piece in join_documents(pieces) if table else pieces:
                if not piece:
                    continue
                if last and before:
                    yield before
                before, last = "", piece[-1]
                yield piece

    def _tail(self, path: Path) -> Iterator[str]:
        """What `cap_bytes` leaves of the only file, streamed."""
        left = self._head
        for piece in read_pieces(path):
            raw = piece.encode("utf-8")
            if len(raw) < left:
                left -= len(raw)
                continue
            head = raw[:left].decode("utf-8", errors="ignore")
            yield piece[len(head) :]
            left = 0


def _find(patterns: Sequence[str]) -> list[Path]:
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        matches = [path] if path.is_file() else sorted(map(Path, glob(str(path), recursive=True)))
        matches = [match for match in matches if match.is_file()]
        if path.is_dir():
            raise ValueError(
                f"data.files: {pattern!r} is a folder; name the files in it: '{path}/**/*.txt', say"
            )
        if not matches:
            raise ValueError(f"data.files: {pattern!r} is not a file and matches none; check the path")
        files += [match for match in matches if match not in files]
    return files
