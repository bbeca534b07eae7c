"""Python's own standard library as a corpus: real text that every machine has, without a download.

Sources differ between Python versions, so results compare within one version only; the version is in
every result's provenance.
"""

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from loopscope.data.corpora.base import AbstractCorpus, join_documents

_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}


class StdlibCorpus(AbstractCorpus):
    """Corpus of the standard library's `.py` files, tests left out, each file in one part only.

    The order follows a hash of each file's path: the same everywhere, and varied from the first megabyte
    on, so that a size cap takes a sample and not the letter a.
    """

    def __init__(self, validation_fraction: float, root: Path | None = None) -> None:
        self.root = root or Path(sysconfig.get_path("stdlib"))
        files = sorted(_sources(self.root))
        if not files:
            raise ValueError(
                f"no Python sources at {self.root}: this Python comes without them; "
                "use corpus: files with text of your own"
            )
        files.sort(key=lambda path: self._hash(path, "order"))
        held_out = {
            path for path in files if int(self._hash(path, "part")[:8], 16) < validation_fraction * 2**32
        }
        self.validation_files = [path for path in files if path in held_out]
        self.train_files = [path for path in files if path not in held_out]

    def train(self) -> Iterator[str]:
        return join_documents(self._documents(self.train_files))

    def validation(self) -> Iterator[str]:
        return join_documents(self._documents(self.validation_files))

    def documents(self, validation: bool) -> Iterator[str | None]:
        for text in self._documents(self.validation_files if validation else self.train_files):
            yield text
            yield None

    def fingerprint(self) -> str:
        sizes = [
            f"{path.relative_to(self.root).as_posix()} {path.stat().st_size}"
            for path in self.train_files + self.validation_files
        ]
        listed = "\n".join([sys.version, *sizes])
        return hashlib.sha256(listed.encode()).hexdigest()

    def train_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.train_files)

    def _hash(self, path: Path, purpose: str) -> str:
        name = f"{purpose} {path.relative_to(self.root).as_posix()}"
        return hashlib.sha256(name.encode()).hexdigest()

    @staticmethod
    def _documents(files: list[Path]) -> Iterator[str]:
        for path in files:
            try:
                text = path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue  # a few sources have another encoding on purpose
            if text.strip():
                yield text


def _sources(root: Path) -> Iterator[Path]:
    """All `.py` files but those in skipped folders, which are not entered: installed packages are many."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))
