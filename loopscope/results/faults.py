"""What the operating system refused, in one sentence: which file, why, what is whole, what to do.

The one place for that. Everything here is written whole or not at all (`layout.replacing`), so a write that fails
loses nothing that was there before.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MOST = 160
"""Signs of a path that are shown; of a longer one both ends."""
_ROOM = "make room there, or name a folder on another disk"
_ELSEWHERE = "change its permissions, or name a folder that you may write"
PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE})
"""Refusals that may be over in a while: a full disk, a quota, a network file system that was away."""
_WORDS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("your quota of the disk is used up", _ROOM),
    errno.EFBIG: (
        "the file would be larger than this process may write or the file system holds",
        "raise the limit (ulimit -f), or name a folder on another disk",
    ),
    errno.EROFS: ("the file system is read-only", "name a folder that you may write"),
    errno.EACCES: ("permission is denied", _ELSEWHERE),
    errno.EPERM: ("permission is denied", _ELSEWHERE),
    errno.ENAMETOOLONG: ("the name is longer than the file system takes", "give a shorter one"),
    errno.ENOENT: ("there is no such file or folder", "check the path"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "check the path, or name another folder"),
    errno.EISDIR: ("that is a folder, and a file was meant", "name a file"),
    errno.EEXIST: ("something of that name is there already", "move it away, or give another name"),
    errno.ENOTEMPTY: ("the folder is not empty", "move it away, or give another name"),
    errno.ELOOP: ("its links lead in a circle", "remove one of them"),
    errno.EMFILE: ("too many files are open in this process", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many files are open on this machine", "close some programs"),
    errno.EIO: ("the disk reports an error", "copy what you need to another one"),
    errno.ESTALE: ("the network file system no longer knows the file", "see whether it is mounted"),
    errno.ENODEV: ("there is no such device", "check the path"),
}


def in_words(error: OSError) -> str:
    """Return a refusal of the operating system as one sentence, with what is whole and what to do.

    Notes on the error (`add_note`) say what to do then.
    """
    place = error.filename2 or error.filename
    cause, todo = _WORDS.get(error.errno or 0, (error.strerror or "", ""))
    if not cause:  # a library's own kind, with words and no number
        return _one_line(str(error) or type(error).__name__)
    where = f"{shortened(str(place))}: " if place is not None else ""
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    return f"{where}{cause}. What was saved before is whole" + (f"; {todo}{notes}" if todo else "")


def cause_of(error: OSError) -> str:
    """Return why the operating system refused, and what to do, without the place."""
    cause, todo = _WORDS.get(error.errno or 0, (error.strerror or _one_line(str(error)), ""))
    return f"{cause} ({todo})" if todo else cause


def shortened(text: str) -> str:
    """Return a path's text, of a long one both ends."""
    half = _MOST // 2
    return text if len(text) <= _MOST else f"{text[:half]}…{text[-half:]}"


@contextmanager
def concerning(path: str | Path, temporary: str | Path | None = None) -> Iterator[None]:
    """Let an OSError of the block name the file that a reader knows.

    Args:
        path: named where the error names none, as that of a full disk does.
        temporary: the name that the file or its folder has while it is written; `path` is named instead.
    """
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else str(error.filename)
        unnamed = named is None or (temporary is not None and named.startswith(str(temporary)))
        if error.errno is not None and unnamed:
            error.filename, error.filename2 = str(path), None
        raise


def _one_line(text: str) -> str:
    lines = text.strip().splitlines() or [""]
    return lines[0]
