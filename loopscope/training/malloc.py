"""What a training process does with memory that a step has freed."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # M_* of malloc.h


def keep_freed_memory() -> bool:
    """Have the C library keep what a step frees for the next one, instead of giving it back to the kernel each time.

    The kernel clears every page that it hands out: 0.37 million a step at the published size, 7 to 10 % of a CPU's
    step. The process then stays as large as its largest step. Returns whether there was something to set (glibc).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # No block by itself outside the heap, however large (a threshold ends at 32 MiB: below a head's gradient), and none
    # of the heap given back.
    return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, -1))
