"""From logits to the next token: the likeliest, or a draw. The filters are transformers' logits processors.

Every row draws with a generator of its own, on the CPU, so that its text depends on its seed and its logits alone:
not on its neighbours, nor on the device.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics import wide

LEAST_TEMPERATURE = 1e-6
"""Here the likeliest token has all the probability already; logits divided by far less are no numbers any more."""
NO_GUESS = -1
LARGEST_LOGIT = 1e30
"""What is larger is shifted before it is divided: a draw only asks for differences."""


@dataclass(frozen=True)
class Sampling:
    """Settings of a draw. Without any of the first four: the likeliest token (greedy).

    Attributes:
        temperature: what logits are divided by; 1 where only a filter is given.
        top_k: keep the k likeliest.
        top_p: keep the likeliest that together have this probability.
        min_p: keep what has at least this share of the likeliest's probability.
        seed: row r of a batch draws with seed + r, so that it draws what it would alone with that seed. None: 0.
    """

    temperature: Any = None
    top_k: Any = None
    top_p: Any = None
    min_p: Any = None
    seed: Any = None

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn at random."""
        return all(value is None for value in (self.temperature, self.top_k, self.top_p, self.min_p))

    def check(self) -> None:
        """Refuse settings of a draw that make no sense, warn of one without effect.

        Raises:
            ValueError: the setting, its value, its range.
        """
        if self.temperature is not None and not (
            _number(self.temperature) and LEAST_TEMPERATURE <= self.temperature <= 1 / LEAST_TEMPERATURE
        ):
            raise ValueError(
                f"temperature is {self.temperature!r}; it must be a number above 0. Leave it out for the likeliest "
                f"token at every step, which is all there is below {LEAST_TEMPERATURE:g}; the most is "
                f"{1 / LEAST_TEMPERATURE:g}"
            )
        if self.top_k is not None and not (_whole(self.top_k) and self.top_k >= 1):
            raise ValueError(
                f"top_k is {self.top_k!r}; it must be a whole number from 1 up: how many tokens to keep"
            )
        if self.top_p is not None and not (_number(self.top_p) and 0 < self.top_p <= 1):
            raise ValueError(
                f"top_p is {self.top_p!r}; it must be above 0 and at most 1: the probability to keep"
            )
        if self.min_p is not None and not (_number(self.min_p) and 0 <= self.min_p <= 1):
            raise ValueError(
                f"min_p is {self.min_p!r}; it must be from 0 to 1: a share of the likeliest's probability"
            )
        if self.seed is not None and not (_whole(self.seed) and 0 <= self.seed < 2**63):
            raise ValueError(f"seed is {self.seed!r}; it must be a whole number from 0 up")
        if self.greedy and self.seed is not None:
            warnings.warn(
                f"seed {self.seed} has no effect: the likeliest token is taken. Set temperature, top_k, top_p or min_p",
                stacklevel=2,
            )


class Sampler:
    """Draws the next token for the rows of one batch, each with a generator of its own."""

    def __init__(self, sampling: Sampling, rows: int) -> None:
        self.sampling = sampling
        self._filters = _filters(sampling)
        first = sampling.seed or 0
        self._generators = [torch.Generator().manual_seed(first + row) for row in range(rows)]

    def draw(
        self, logits: Float[Tensor, "places vocab"], places: Sequence[int] | None = None
    ) -> Int[Tensor, " places"]:
        """Return the next token of the rows at these places.

        Args:
            places: among the rows that go on; None: all.

        Raises:
            ValueError: logits that are not finite.
        """
        _check_finite(logits)
        shares = self._shares(logits)
        return logits.argmax(dim=-1) if shares is None else _drawn(shares, self._uniform(places, shares))

    def guess(self, logits: Float[Tensor, "rows vocab"], places: Sequence[int]) -> "EarlyGuess":
        """Return what an early exit would take for the rows at these places, and nothing for the others.

        An exit whose logits are not finite guesses nothing: only full depth's have to be.
        """
        own = list(places)
        if not math.isfinite(float(logits.sum())):
            finite = logits.isfinite().all(dim=-1)
            own = [place for place in own if finite[place]]
            logits = logits.masked_fill(~finite[:, None], 0)
        shares = self._shares(logits)
        tokens = torch.full((len(logits),), NO_GUESS, device=logits.device)
        if not own:
            return EarlyGuess(tokens, None if shares is None else torch.zeros_like(shares))
        if shares is None:
            tokens[own] = logits.argmax(dim=-1)[own]
            return EarlyGuess(tokens, None)
        tokens[own] = _drawn(shares[own], self._uniform(own, shares))
        shares[tokens == NO_GUESS] = 0
        return EarlyGuess(tokens, shares)

    def judge(
        self, logits: Float[Tensor, "places vocab"], guess: "EarlyGuess", places: Sequence[int]
    ) -> Int[Tensor, " places"]:
        """Return the next token of the rows at these places: the guess where it stands, else another one.

        A drawn guess x of an exit with distribution q stands with probability min(1, p(x) / q(x)), and what replaces it
        is drawn from the positive part of p - q. What comes out is distributed as p, full depth's own distribution
        (Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", arXiv 2211.17192).

        Args:
            guess: of these rows.

        Raises:
            ValueError: logits that are not finite.
        """
        _check_finite(logits)
        shares = self._shares(logits)
        if shares is None:
            return logits.argmax(dim=-1)
        before, tokens = guess.shares, guess.tokens.to(logits.device, copy=True)
        if before is None:
            before = torch.zeros_like(shares)
        at = tokens.clamp(min=0)[:, None]
        level = self._uniform(places, shares) * before.gather(1, at).squeeze(1)
        refused = ((tokens == NO_GUESS) | (level >= shares.gather(1, at).squeeze(1))).nonzero().squeeze(1)
        if len(refused):
            uniform = self._uniform([places[index] for index in refused.tolist()], shares)
            tokens[refused] = _drawn((shares[refused] - before[refused]).clamp(min=0), uniform)
        return tokens

    def _shares(self, logits: Tensor) -> Float[Tensor, "places vocab"] | None:
        """Probabilities after the filters; None where the likeliest is taken."""
        if self.sampling.greedy:
            return None
        scores = wide(logits)
        if (
            scores.abs().max() > LARGEST_LOGIT
        ):  # divided by a temperature they could overflow, and shifted they cannot
            scores = scores - scores.amax(dim=-1, keepdim=True)
        for each in self._filters:
            scores = each(None, scores)
        return scores.double().softmax(dim=-1)

    def _uniform(self, places: Sequence[int] | None, like: Tensor) -> Float[Tensor, " places"]:
        """One uniform number of each row at these places, of its own generator."""
        own = self._generators if places is None else [self._generators[place] for place in places]
        return torch.stack([torch.rand((), generator=generator) for generator in own]).to(like)

    def select(self, rows: list[int]) -> None:
        """Keep only these rows: all others have ended."""
        self._generators = [self._generators[row] for row in rows]


@dataclass(frozen=True)
class EarlyGuess:
    """Tokens that an early exit would take.

    Attributes:
        tokens: `NO_GUESS` for a row without one.
        shares: probabilities that they were drawn with, zeros for a row without a guess; None where nothing was drawn.
    """

    tokens: Int[Tensor, " rows"]
    shares: Float[Tensor, "rows vocab"] | None

    def at(self, places: list[int]) -> "EarlyGuess":
        """Return those of some rows."""
        return EarlyGuess(self.tokens[places], None if self.shares is None else self.shares[places])


def _check_finite(logits: Float[Tensor, "places vocab"]) -> None:
    """Raise ValueError where there is no next token."""
    # One pass: a sum with a number in it that is not finite is none. Only then all are looked at.
    if not math.isfinite(float(logits.sum())) and not bool(logits.isfinite().all()):
        raise ValueError(
            "the model's logits are not finite, so there is no next token; its weights or its state diverged. "
            "Try fewer loops, or an earlier checkpoint"
        )


def _drawn(
    shares: Float[Tensor, "places vocab"], uniform: Float[Tensor, " places"]
) -> Int[Tensor, " places"]:
    """Draw by the inverse of the cumulative distribution: one number a row, and filtered tokens have no width."""
    reached = shares.cumsum(dim=-1)
    return torch.searchsorted(reached, uniform[:, None] * reached[:, -1:], right=True).squeeze(1)


def _filters(sampling: Sampling) -> list[Any]:
    if sampling.greedy:
        return []
    from transformers.generation.logits_process import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    filters: list[Any] = []
    if sampling.temperature is not None and sampling.temperature != 1:
        filters.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k is not None:
        filters.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None and sampling.top_p < 1:
        filters.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        filters.append(MinPLogitsWarper(sampling.min_p))
    return filters


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
