"""A folder that is written whole or not at all: an export, a model folder, ONNX files."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loopscope.results.faults import concerning
from loopscope.results.layout import unfinished


def check_new_folder(directory: str | Path) -> Path:
    """Return the path of a folder that is absent or empty.

    Raises:
        ValueError: something is there.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} exists and is not empty; name a new folder, nothing was written")
    return directory


@contextmanager
def whole_folder(directory: str | Path) -> Iterator[Path]:
    """Give the folder to write into, which gets the name `directory` when the block ends without an error.

    Raises:
        ValueError: `directory` exists and is not empty.
        OSError: it cannot be written; nothing of it is left.
    """
    directory = check_new_folder(directory)
    writing = unfinished(directory)
    with concerning(directory, writing):
        directory.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir()
        try:
            yield writing
            if directory.is_dir():  # empty: not every system lets a folder take its place
                directory.rmdir()
            writing.rename(directory)
        finally:
            shutil.rmtree(writing, ignore_errors=True)
