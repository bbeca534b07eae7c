"""One writer a folder: a process that trains holds its run's folder, and a second one is told who does.

The lock is the operating system's (through `filelock`): it goes with its process, however that ends, so the next one
takes over without a word. Reading needs no lock. Where a file system has none, a warning says so and work goes on.
"""

import json
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from loopscope.results.layout import HOLDER, LOCK, write_text


@dataclass(frozen=True)
class Holder:
    """A process that holds a folder."""

    pid: int
    host: str
    since: str  # local time, ISO 8601 with its offset
    command: str

    def __str__(self) -> str:
        where = "" if self.host == socket.gethostname() else f" on {self.host}"
        return f"process {self.pid}{where} ({self.command}), since {self.since}"


class FolderHeldError(ValueError):
    """A folder that another process writes. `.holder` is who it is, None where it could not be read."""

    def __init__(self, folder: Path, holder: Holder | None) -> None:
        self.folder, self.holder = folder, holder
        stop = f"stop it (kill {holder.pid})" if holder else "stop it"
        super().__init__(
            f"{folder} is held by {holder or 'another process'}; wait for it, {stop}, or name another folder. "
            "Nothing was touched"
        )


@contextmanager
def hold(folder: str | Path, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder, which is made where it is missing and removed again where nothing was put into it.

    Holding what this thread already holds changes nothing.

    Args:
        wait: seconds to wait for another process.

    Raises:
        FolderHeldError: (a ValueError) another process holds it: which, since when, what to do.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    key = (os.path.realpath(folder), os.getpid(), threading.get_ident())
    if key in _held:
        yield
        return
    made = _make(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=wait, poll_interval=0.1)
    except Timeout:  # an OSError too
        raise FolderHeldError(folder, _holder(folder)) from None
    except (OSError, NotImplementedError) as error:
        warnings.warn(
            f"{folder} cannot be locked ({error}); nothing keeps a second process from writing into it, so start none "
            "on the same folder",
            stacklevel=3,
        )
    _held.add(key)
    try:
        _sign(folder)
        yield
    finally:
        _held.discard(key)
        (folder / HOLDER).unlink(missing_ok=True)
        with suppress(OSError):
            if made and os.listdir(folder) == [LOCK]:
                (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):  # something was put there
            for path in made:
                path.rmdir()


def _holder(folder: Path) -> Holder | None:
    """Who has signed for a folder that is held; None where the process does not come to it.

    A signature of a process that is gone is waited out: who took over signs in its place within milliseconds.
    """
    for _ in range(20):
        with suppress(OSError, ValueError, TypeError):
            found = Holder(**json.loads((folder / HOLDER).read_text(encoding="utf-8")))
            if found.host != socket.gethostname() or _alive(found.pid):
                return found
        time.sleep(0.05)
    return None


_held: set[tuple[str, int, int]] = set()
"""Folders that are held here, each with the process and the thread that do."""


def _sign(folder: Path) -> None:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    holder = Holder(os.getpid(), socket.gethostname(), since, command)
    write_text(folder / HOLDER, json.dumps(asdict(holder)))


def _make(folder: Path) -> list[Path]:
    """Make a folder; gives those that were missing, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _alive(pid: int) -> bool:
    if os.name == "nt":  # there a signal of 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def present_holder(folder: str | Path) -> Holder | None:
    """Who holds a folder now; None where nobody does. The lock itself is tried only where it should be taken."""
    try:
        found = Holder(**json.loads((Path(folder) / HOLDER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # let go of, or signed at this moment
        return None
    if found.host == socket.gethostname() and not _alive(found.pid):
        return None
    return None if abandoned(folder) else found  # a process that was killed leaves its signature


def abandoned(folder: str | Path) -> bool:
    """Whether a folder was held by a process that is gone: its lock is there, and nobody has it."""
    from filelock import FileLock, Timeout

    path = Path(folder) / LOCK
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError, NotImplementedError):
        return False
    lock.release()
    return True
