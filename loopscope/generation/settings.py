"""How to generate, and what is refused before anything runs."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopscope.generation.exits import ExitRule
from loopscope.generation.missing import check_missing
from loopscope.generation.sampling import Sampling
from loopscope.generation.stopping import Stopping
from loopscope.generation.streaming import Tokenizer
from loopscope.recurrence import (
    AbstractLoopedLM,
    check_input_ids,
    check_loops,
    check_model_and_ids,
    vocabulary_size,
)

USUAL_NEW_TOKENS = 128
"""How many are made where nobody says."""


@dataclass(frozen=True)
class Settings:
    """Settings of a generation: everything but the model and the prompts.

    Attributes:
        loops: depth to run, also past the trained one; None: the trained depth.
        rule: who leaves before that; None: nobody.
        missing: what deeper loops see of tokens that left: lazy, fill or reuse.
        cache: keep keys and values where the model can. Off: the whole text is computed anew for every token.
        tokenizer: for text as it comes, and for stop strings.
    """

    stopping: Stopping
    sampling: Sampling = field(default_factory=Sampling)
    loops: Any = None
    rule: ExitRule | None = None
    missing: Any = "lazy"
    cache: bool = True
    tokenizer: Tokenizer | None = None


def check_prompts(model: Any, input_ids: Any) -> None:
    """Raise ValueError for what is no looped model, or no batch of prompts in its vocabulary."""
    check_model_and_ids(model, input_ids)
    if input_ids.numel() == 0:
        raise ValueError(
            f"the prompt is empty (input_ids has shape {tuple(input_ids.shape)}); the first token is predicted from "
            "one before it, so give at least one"
        )
    check_input_ids(input_ids)


def check_settings(settings: Settings, model: AbstractLoopedLM, longest: int, more: int) -> None:
    """Refuse settings that cannot work with a model and prompts, warn of what has no effect.

    Args:
        longest: tokens of the longest prompt.
        more: tokens that will follow it.

    Raises:
        ValueError: the setting, its value, what is allowed.
    """
    check_loops(model.loops if settings.loops is None else settings.loops)
    settings.stopping.check(settings.tokenizer)
    settings.sampling.check()
    check_missing(settings.missing)
    _check_positions(model, longest, more)
    cached = settings.cache and bool(model.remembers)
    if settings.missing != "lazy" and (settings.rule is None or not cached):
        why = "every token runs all loops" if settings.rule is None else "without a cache nothing is missing"
        warnings.warn(f"missing {settings.missing!r} has no effect: {why}", stacklevel=3)
    if settings.cache and not model.remembers:
        warnings.warn(
            f"{type(model).__name__} keeps no keys and values that generation could read, so the whole text is "
            "computed anew for every token; time grows with the square of the length",
            stacklevel=3,
        )


def new_tokens_that_fit(model: AbstractLoopedLM, longest: int) -> int:
    """Return how many new tokens to make where nobody says: 128, or as many as there are positions for, and a warning.

    Args:
        longest: tokens of the longest prompt. One that is too long itself is refused later, in words of its own.
    """
    limit = model.positions_limit
    if limit is None or longest > limit or limit - longest + 1 >= USUAL_NEW_TOKENS:
        return USUAL_NEW_TOKENS
    fit = limit - longest + 1
    warnings.warn(
        f"{fit} new tokens at most, not the usual {USUAL_NEW_TOKENS}: the prompt has {longest} tokens and this model "
        f"has {limit} learned positions. new_tokens says how many; models with positions: rotary have no such limit",
        stacklevel=3,
    )
    return fit


def _check_positions(model: AbstractLoopedLM, longest: int, new_tokens: int) -> None:
    limit = model.positions_limit
    if limit is None:
        return
    if longest > limit:
        raise ValueError(
            f"the prompt has {longest} tokens; this model has {limit} learned positions. Shorten the prompt, or train "
            "with positions: rotary, which have no such limit"
        )
    if longest + new_tokens - 1 > limit:  # the last new token is never read
        raise ValueError(
            f"the prompt has {longest} tokens and new_tokens is {new_tokens}; this model has {limit} learned "
            f"positions. Ask for at most {limit - longest + 1} new tokens, shorten the prompt, or train with "
            "positions: rotary, which have no such limit"
        )


def check_prompt_ids(model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"]) -> None:
    """Raise ValueError where an id is not in the model's vocabulary, which one token through one loop shows."""
    with inference(list(model.modules())):
        vocabulary = vocabulary_size(model, input_ids)
    low, high = int(input_ids.min()), int(input_ids.max())
    if low < 0 or high >= vocabulary:
        raise ValueError(
            f"input_ids go from {low} to {high}; this model has ids 0 to {vocabulary - 1}. Use the tokenizer that it "
            "was trained with"
        )


@contextmanager
def inference(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Put a model into evaluation mode without gradients, cheaply enough for every token. Never open across a yield.

    Args:
        parts: the model's modules, listed once; each one's own mode is put back.
    """
    training = [part for part in parts if part.training]
    for part in training:
        part.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True
