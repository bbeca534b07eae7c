"""What memory, cores and compilers there are, for a machine or the container of this process. Standard library only."""

import contextlib
import ctypes
import os
import shutil
from pathlib import Path

_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)
"""Of a container, in either version of control groups: its limit, what it uses, and of what that is made."""
_RECLAIMED = ("inactive_file", "total_inactive_file")
"""What counts as used and is given back when it is asked for: files that were read."""


def machine_bytes() -> int | None:
    """Return the bytes of memory that this process may use: the machine's, or its container's. None: not known."""
    found = []
    with contextlib.suppress(AttributeError, OSError, ValueError):  # not every system says
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    found += [most for limit, _, _ in _LIMITS if (most := _number(limit)) is not None]
    return min((each for each in found if each > 0), default=None)


def free_bytes() -> int | None:
    """Return the bytes of memory that this process can have now: of the machine and of its container, what is less.

    None where neither says.
    """
    found = [_available()]
    for limit, usage, made_of in _LIMITS:
        most, used = _number(limit), _number(usage)
        if most is not None and used is not None:
            found.append(max(0, most - max(0, used - _reclaimed(made_of))))
    return min((each for each in found if each is not None), default=None)


def usable_cores() -> float:
    """Return the cores that this process may use: of the machine, of its affinity, of its container, what is least."""
    found = [float(os.cpu_count() or 1)]
    with contextlib.suppress(AttributeError, OSError):  # Linux has it
        found.append(float(len(os.sched_getaffinity(0))))
    with contextlib.suppress(
        OSError, ValueError
    ):  # control groups, second version: `max 100000` or `150000 100000`
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        found.append(float(quota) / float(period))
    return min(found)


def give_back_freed() -> None:
    """Give memory that was freed, and is kept for later, back to the system, where the C library can (glibc's).

    After work that kept much in many pieces: what comes next finds no place between them for anything larger.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def compiler_missing() -> str | None:
    """Return why nothing can be compiled for a CPU: what is not there. None: it can be."""
    named = os.environ.get("CXX")
    if any(shutil.which(name) for name in ([named] if named else ["g++", "clang++"])):
        return None
    return f"CXX names {named!r}, which is not there" if named else "neither g++ nor clang++ is there"


def _number(path: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):  # no container, or `max`: no limit
        return int(Path(path).read_text(encoding="ascii"))
    return None


def _available() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    return None


def _reclaimed(path: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        lines = (line.split() for line in Path(path).read_text(encoding="ascii").splitlines())
        return max((int(line[1]) for line in lines if line[0] in _RECLAIMED), default=0)
    return 0
