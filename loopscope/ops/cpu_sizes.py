"""Sizes at which a CPU's work is split: as they were fastest where they were tuned, or as trials found them here.

They change how fast a step is, and the order of its sums: two runs that are to be equal bit for bit need the same ones.
`training.cpu_trials` finds them, `training.cpu_choices` keeps them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class CpuSizes:
    """Where a CPU's work is split; None: as it was tuned on an Intel CPU with AMX.

    Attributes:
        logits: numbers in a chunk of logits (`objectives.token_loss.CHUNK_ELEMENTS`).
        squares: bytes of attention's squares that are worked on at a time (`ops.attention_dropout.BYTES`).
        narrow: channels of a head up to which bf16 attention is computed in fp32 (`ops.attention.NARROW`).
    """

    logits: int | None = None
    squares: int | None = None
    narrow: int | None = None


_sizes: ContextVar[CpuSizes] = ContextVar("cpu_sizes", default=CpuSizes())  # noqa: B039 (frozen)


def cpu_sizes() -> CpuSizes:
    """Return the sizes that hold here."""
    return _sizes.get()


@contextmanager
def use_cpu_sizes(sizes: CpuSizes) -> Iterator[None]:
    """Split a CPU's work so inside."""
    before = _sizes.set(sizes)
    try:
        yield
    finally:
        _sizes.reset(before)
