"""What one process refuses or decides, for all: each ends alike, and the first one alone says why.

Inside `alike` nothing may be exchanged, but for what goes through the functions here: a process that fails comes to the
end of the block at once, where the others are waited for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from loopscope.training.distributed.ranks import Ranks

Decided = TypeVar("Decided")


class ElsewhereError(ValueError):
    """What another process of the run refused. That one says so; this one ends as it does."""


@contextmanager
def alike(ranks: Ranks) -> Iterator[None]:
    """Let a block fail on every process where it fails on one.

    Raises:
        ElsewhereError: (a ValueError) it failed on another process, whose words these are; on the first process they
            name that one.
    """
    if ranks.alone:
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    said = ranks.all_told(None if failure is None else str(failure))
    if failure is not None:
        raise failure
    for rank, words in enumerate(said):
        if words is not None:
            raise ElsewhereError(words if rank == 0 else f"process {rank} of {ranks.world}: {words}")


def decided_first(ranks: Ranks, decide: Callable[[], Decided]) -> Decided:
    """Return what the first process decides; what it refuses is refused by all.

    Raises:
        ElsewhereError: (a ValueError) it was refused there.
    """
    if ranks.alone:
        return decide()
    found: tuple[Decided | None, str | None] = None, None
    failure: BaseException | None = None
    if ranks.first:
        try:
            found = decide(), None
        except BaseException as error:  # also one that was asked to stop: the others must not wait for it
            found, failure = (None, str(error)), error
    decision, refusal = ranks.told(found)
    if failure is not None:
        raise failure
    if refusal is not None:
        raise ElsewhereError(refusal)
    return decision  # type: ignore[return-value]


def first_then_others(ranks: Ranks, work: Callable[[], Decided]) -> Decided:
    """Return what each process' work gives, where the first leaves files that spare the others theirs.

    Raises:
        ElsewhereError: (a ValueError) it failed on the first; the others did not begin.
    """
    done: list[Decided] = []
    decided_first(ranks, lambda: done.append(work()))
    return done[0] if done else work()
