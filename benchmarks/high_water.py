"""The most memory that work takes in this process, above what it holds: Linux's high-water mark, begun anew.

It knows neither torch nor Loopscope: a process with another build of Loopscope measures by it, too.
"""

import ctypes
import resource
from collections.abc import Callable
from pathlib import Path


def peak_of(work: Callable[[], object]) -> float:
    """Bytes by which a process's memory rises above what it holds, at most, while it works.

    What it has freed and not given back is given back first, or work that takes it again would seem to take nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark starts anew
    work()
    return float(high_water() - before)


def resident() -> int:
    """Return the bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def high_water() -> int:
    """Return the most that it had since the mark was begun anew."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")
