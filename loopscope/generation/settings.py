"""How to generate, and what is refused before anything runs."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopscope.generation.draft import Draft
from loopscope.generation.missing import check_missing
from loopscope.generation.sampling import Sampling
from loopscope.generation.stopping import Stopping
from loopscope.generation.streaming import Tokenizer
from loopscope.generation.ways import AbstractTextWay, text_way
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

    `loops`, `rule` and the number of new tokens may be lists, of one entry per prompt: a row then gets what it gets
    alone with its own.

    Attributes:
        loops: depth to run, also past the trained one; None: the trained depth.
        rule: an `ExitRule`, who leaves before that; None: nobody.
        missing: what deeper loops see of tokens that left: lazy, fill or reuse.
        cache: keep keys and values where the model can. Off: the whole text is computed anew for every token. The name
            of a kind (`static`): that cache of the model's own library.
        tokenizer: for text as it comes, and for stop strings.
        prompt_piece: tokens of a prompt that are read at once; None: all. What is read of it is the same.
        draft: how an early exit guesses tokens that full depth then checks; None: every token by itself.
        compile: make steps over the cache through `torch.compile`, where that can be.
    """

    stopping: Stopping
    sampling: Sampling = field(default_factory=Sampling)
    loops: Any = None
    rule: Any = None
    missing: Any = "lazy"
    cache: Any = True
    tokenizer: Tokenizer | None = None
    prompt_piece: Any = None
    draft: Draft | None = None
    compile: Any = False

    def by_row(self, count: int) -> "list[Settings]":
        """Return the settings of each of so many rows, without lists.

        Raises:
            ValueError: a list of another length.
        """
        loops = per_row("loops", self.loops, count)
        rules = per_row("exit_rule", self.rule, count)
        numbers = per_row("new_tokens", self.stopping.new_tokens, count)
        return [
            replace(self, loops=depth, rule=rule, stopping=replace(self.stopping, new_tokens=number))
            for depth, rule, number in zip(loops, rules, numbers, strict=True)
        ]

    def way(self, model: AbstractLoopedLM) -> AbstractTextWay:
        """Return the way that the text of one row is made; of settings without lists."""
        loops = model.loops if self.loops is None else self.loops
        early = self.rule is not None or self.draft is not None
        return text_way(model, loops, self.cache, self.missing, early)


def per_row(name: str, value: Any, count: int) -> list[Any]:
    """Return what each of so many rows has: one thing for all, or what a list says.

    Raises:
        ValueError: a list of another length.
    """
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(
            f"{name} has {len(value)} entries for {count} prompts; give one value for all, or a list of {count}"
        )
    return list(value)


def check_prompts(model: Any, input_ids: Any) -> None:
    """Raise ValueError for what is no looped model, or no batch of prompts in its vocabulary."""
    check_model_and_ids(model, input_ids)
    if input_ids.numel() == 0:
        raise ValueError(
            f"the prompt is empty (input_ids has shape {tuple(input_ids.shape)}); the first token is predicted from "
            "one before it, so give at least one"
        )
    check_input_ids(input_ids)


def check_settings(
    settings: Settings, model: AbstractLoopedLM, lengths: Sequence[int], more: int | None = None
) -> list[Settings]:
    """Refuse settings that cannot work with a model and prompts, warn of what has no effect; return them row by row.

    Args:
        lengths: tokens of each prompt.
        more: tokens that will follow each; None: the new ones.

    Raises:
        ValueError: the setting, its value, what is allowed.
    """
    rows = settings.by_row(len(lengths))
    settings.sampling.check()
    check_missing(settings.missing)
    _check_cache(settings)
    if not isinstance(settings.compile, bool):
        raise ValueError(f"compile is {settings.compile!r}; it is True or False")
    for row in rows:
        check_loops(model.loops if row.loops is None else row.loops)
        row.stopping.check(settings.tokenizer)
    _check_draft(settings, model, rows)
    for row, length in zip(rows, lengths, strict=True):
        _check_positions(model, length, row.stopping.new_tokens if more is None else more)
    ways = [row.way(model) for row in rows]
    if settings.draft is not None and not all(way.drafts for way in ways):
        why = ways[0].remark or f"{type(model).__name__} keeps no keys and values of its loops"
        raise ValueError(
            f"draft_loops is {settings.draft.loops!r}, and this model's text cannot be made in rounds: {why}. Leave it "
            "out"
        )
    if settings.missing != "lazy" and not any(
        way.cached and row.rule is not None for row, way in zip(rows, ways, strict=True)
    ):
        alone = all(row.rule is None for row in rows)
        why = "every token runs all loops" if alone else "without a cache nothing is missing"
        warnings.warn(f"missing {settings.missing!r} has no effect: {why}", stacklevel=3)
    if settings.compile and settings.draft is not None:
        warnings.warn("compile has no effect beside draft_loops, whose rounds run as they come", stacklevel=3)
    if settings.prompt_piece is not None and not any(way.chunked for way in ways):
        warnings.warn(
            "prompt_piece has no effect: without a cache the whole text is read for every token",
            stacklevel=3,
        )
    for remark in dict.fromkeys(way.remark for way in ways if way.remark):
        warnings.warn(remark, stacklevel=3)
    return rows


def _check_cache(settings: Settings) -> None:
    if not isinstance(settings.cache, bool | str):
        raise ValueError(
            f"cache is {settings.cache!r}; it is True, False, or the kind of a transformers model's cache, such as "
            "'static'"
        )
    piece = settings.prompt_piece
    if piece is not None and (isinstance(piece, bool) or not isinstance(piece, int) or piece < 1):
        raise ValueError(
            f"prompt_piece is {piece!r}; it must be a whole number of tokens from 1 up, or left out"
        )


def _check_draft(settings: Settings, model: AbstractLoopedLM, rows: Sequence[Settings]) -> None:
    """Refuse a draft beside what decides about depth too, or without the cache that it works in."""
    if settings.draft is None:
        return
    depths = sorted({model.loops if row.loops is None else row.loops for row in rows})
    if len(depths) > 1:
        raise ValueError(
            f"loops are {depths} and draft_loops is {settings.draft.loops!r}; with a draft all rows run one depth"
        )
    settings.draft.check(depths[0])
    if any(row.rule is not None for row in rows):
        raise ValueError(
            f"draft_loops is {settings.draft.loops!r} and an exit_rule is given; a draft keeps full depth's text, a "
            "rule gives it up for fewer loops: leave one of them out"
        )
    if not settings.cache:
        raise ValueError(
            f"draft_loops is {settings.draft.loops!r} and cache is {settings.cache!r}; a draft works on the keys and "
            "values that a cache keeps: leave cache as it is"
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
