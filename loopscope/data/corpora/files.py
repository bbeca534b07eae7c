"""Text files of the user's own."""

import hashlib
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

from loopscope.data.corpora.base import AbstractCorpus, cap_bytes, read_pieces


class FilesCorpus(AbstractCorpus):
    """Corpus of files and globs, in the order given and sorted within a glob, one after the other.

    Without validation files some are held out by a hash of their name; of a single file, its end is.
    """

    def __init__(self, files: Sequence[str], validation_files: Sequence[str], fraction: float) -> None:
        self.train_files = _find(files)
        self.validation_files = _find(validation_files)
        self.tail_of_one = False
        self.fraction = fraction
        trained_on = {path.resolve() for path in self.train_files}
        for path in self.validation_files:
            if path.resolve() in trained_on:
                raise ValueError(f"{path} is in files and in validation_files; validate on other text")
        if not self.validation_files and len(self.train_files) == 1:
            self.tail_of_one = True
        elif not self.validation_files:
            by_hash = sorted(
                self.train_files, key=lambda path: hashlib.sha256(path.name.encode()).hexdigest()
            )
            held_out = set(by_hash[: max(1, round(fraction * len(by_hash)))])
            self.validation_files = [path for path in self.train_files if path in held_out]
            self.train_files = [path for path in self.train_files if path not in held_out]

    def train(self) -> Iterator[str]:
        text = _one_after_the_other(self.train_files)
        return cap_bytes(text, self._head()) if self.tail_of_one else text

    def validation(self) -> Iterator[str]:
        if self.tail_of_one:
            return self._tail(self.train_files[0])
        return _one_after_the_other(self.validation_files)

    def fingerprint(self) -> str:
        stats = [(path, path.stat()) for path in self.train_files + self.validation_files]
        listed = "\n".join(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)
        return hashlib.sha256(listed.encode()).hexdigest()

    def train_bytes(self) -> int:
        return self._head() if self.tail_of_one else sum(path.stat().st_size for path in self.train_files)

    def validation_bytes(self) -> int:
        """Return about how many bytes `validation` yields."""
        if self.tail_of_one:
            return self.train_files[0].stat().st_size - self._head()
        return sum(path.stat().st_size for path in self.validation_files)

    def _head(self) -> int:
        return int(self.train_files[0].stat().st_size * (1 - self.fraction))

    def _tail(self, path: Path) -> Iterator[str]:
        """What `cap_bytes` leaves of the only file, streamed."""
        left = self._head()
        for piece in read_pieces(path):
            raw = piece.encode("utf-8")
            if len(raw) < left:
                left -= len(raw)
                continue
            head = raw[:left].decode("utf-8", errors="ignore")
            yield piece[len(head) :]
            left = 0


def _one_after_the_other(files: Sequence[Path]) -> Iterator[str]:
    """All files as one text; a file without a last newline gets one, so that no word crosses files."""
    last = "\n"
    for path in files:
        if last != "\n":
            yield "\n"
        for piece in read_pieces(path):
            last = piece[-1]
            yield piece


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
