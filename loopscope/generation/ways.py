"""Which way the tokens of a text are made: over a cache, or the whole text anew. Models of others register their own.

A way is chosen before anything runs, for one depth and for text with exits or without. What it needs rows to have in
common decides which of them share a batch.
"""

from abc import ABC, abstractmethod
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from jaxtyping import Int
from torch import Tensor

from loopscope.generation.draft import Draft
from loopscope.generation.exits import ExitRule
from loopscope.generation.steps import AbstractSteps, RecomputedSteps
from loopscope.recurrence import AbstractLoopedLM

if TYPE_CHECKING:
    from loopscope.generation.drafted_steps import DraftedSteps  # which loads transformers' caches


class AbstractTextWay(ABC):
    """A way to make the tokens of a text.

    Attributes:
        remark: what its user should know beforehand, a sentence; None: nothing.
        cached: whether what tokens left behind is kept for those that follow.
        ragged: whether rows of different lengths share a batch.
        mixed: whether rows with different exit rules do.
        chunked: whether a prompt may be read in pieces.
        drafts: whether an early exit may guess tokens.
    """

    remark: str | None = None
    cached: bool = True
    ragged: bool = True
    mixed: bool = True
    chunked: bool = True
    drafts: bool = False

    @abstractmethod
    def steps(self, rule: ExitRule | None, pads: Int[Tensor, " rows"], capacity: int) -> AbstractSteps:
        """Return the steps of one batch.

        Args:
            capacity: columns of the longest text that may come.
        """

    def drafted(self, draft: Draft, pads: Int[Tensor, " rows"], capacity: int) -> "DraftedSteps":
        """Return the steps of one batch in rounds of guesses; only of a way that `drafts`.

        Args:
            capacity: as for `steps`.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no drafts")


class Anew(AbstractTextWay):
    """Every token computes the whole text: right for any model, with exits or without."""

    cached = ragged = mixed = chunked = False

    def __init__(self, model: AbstractLoopedLM, loops: int, remark: str | None = None) -> None:
        self._model, self._loops, self.remark = model, loops, remark

    def steps(self, rule: ExitRule | None, pads: Int[Tensor, " rows"], capacity: int) -> AbstractSteps:
        return RecomputedSteps(self._model, self._loops, rule)


class OverCache(AbstractTextWay):
    """Keys and values of every loop and layer are kept: for a model that asks its context's cache."""

    drafts = True

    def __init__(self, model: AbstractLoopedLM, loops: int, missing: str, remark: str | None = None) -> None:
        self._model, self._loops, self._missing, self.remark = model, loops, missing, remark

    def steps(self, rule: ExitRule | None, pads: Int[Tensor, " rows"], capacity: int) -> AbstractSteps:
        from loopscope.generation.cached_steps import CachedSteps  # which loads transformers' caches
        from loopscope.generation.missing import check_missing

        return CachedSteps(self._model, self._loops, rule, check_missing(self._missing), pads, capacity)

    def drafted(self, draft: Draft, pads: Int[Tensor, " rows"], capacity: int) -> "DraftedSteps":
        from loopscope.generation.drafted_steps import DraftedSteps

        return DraftedSteps(self._model, self._loops, draft, pads, capacity)


@singledispatch
def text_way(model: Any, loops: int, cache: bool | str, missing: str, exits: bool) -> AbstractTextWay:
    """Return the way that a model's text is made.

    Args:
        loops: the depth of every token that does not leave early.
        cache: whether to keep anything, or the kind of a cache that a model's own library has (`static`).
        missing: see `Settings`.
        exits: whether tokens may leave early.

    Raises:
        ValueError: a kind of cache that the model does not have.
    """
    if isinstance(cache, str):
        raise ValueError(
            f"cache is {cache!r}, a kind that models of transformers have; {type(model).__name__} has one of its own: "
            "leave it out, or say False for none"
        )
    if not cache:
        return Anew(model, loops)
    if model.remembers:
        return OverCache(model, loops, missing)
    return Anew(
        model,
        loops,
        f"{type(model).__name__} keeps no keys and values that generation could read, so the whole text is computed "
        "anew for every token; time grows with the square of the length",
    )
