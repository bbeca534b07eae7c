"""Records of a logit lens: what every exit of a model says after every token of a text."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from loopscope.results.origin import Provenance
from loopscope.results.readable import Readable

LENS_SCHEMA = 1


@dataclass(frozen=True)
class Guess:
    """A token that an exit holds likely."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class TokenView:
    """One token at one loop. What is said is said of the token after it."""

    guesses: tuple[Guess, ...]  # likeliest first
    next_probability: float | None  # of the text's own next token; None at its end
    entropy: float  # of all probabilities, nats
    gate: float | None  # probability of stopping here, as the model's own exit gate says
    rms: float  # of H_k over channels: its scale
    l2_norm: float  # rms times the square root of the width
    cosine: float | None  # of H_k and the loop before; None at loop 1


@dataclass(frozen=True)
class LensLoop:
    """What one exit says after every token, and what its state is there."""

    loop: int
    tokens: tuple[TokenView, ...]


@dataclass(frozen=True)
class LogitLens(Readable):
    """What every exit says after every token of a text, and from which loop on it says what the last one does."""

    name: str  # of the model
    prompt: str
    token_ids: tuple[int, ...]
    token_texts: tuple[str, ...]
    trained_loops: int
    loops: tuple[LensLoop, ...]  # from 1
    settled: tuple[int, ...]  # per token: the loop from which on the likeliest token is the last loop's
    layers: tuple[str, ...]  # of a loop, by their paths
    parameters: int
    provenance: Provenance | None = None
    schema: int = LENS_SCHEMA

    def settled_by(self, loop: int) -> float:
        """Return the share of tokens whose likeliest next token stays what it is from this loop on."""
        return fmean(at <= loop for at in self.settled)

    def lines(self) -> list[str]:
        """Return what it comes to."""
        deepest = len(self.loops)
        early = next(k for k in range(1, deepest + 1) if self.settled_by(k) >= 0.5)
        return [
            f"{self.name}, {len(self.token_ids)} tokens, {deepest} loops (trained with {self.trained_loops}): half of "
            f"the next tokens are settled by loop {early}, {self.settled_by(1):.0%} at loop 1."
        ]

    def table(self) -> list[dict[str, Any]]:
        """Return means over tokens, one row per loop."""
        return [self._row(seen) for seen in self.loops]

    def _row(self, seen: LensLoop) -> dict[str, Any]:
        tokens = seen.tokens
        following = [token.next_probability for token in tokens if token.next_probability is not None]
        right = [
            token.guesses[0].token == after for token, after in zip(tokens, self.token_ids[1:], strict=False)
        ]
        means: Mapping[str, list[float | None]] = {
            "cosine": [token.cosine for token in tokens],
            "gate": [token.gate for token in tokens],
        }
        return {
            "loop": seen.loop,
            "settled": self.settled_by(seen.loop),
            "probability": fmean(token.guesses[0].probability for token in tokens),
            "next token": fmean(following) if following else None,
            "next token right": fmean(right) if right else None,
            "entropy": fmean(token.entropy for token in tokens),
            "RMS": fmean(token.rms for token in tokens),
            "L2 norm": fmean(token.l2_norm for token in tokens),
            **{name: fmean(there) if (there := [x for x in values if x is not None]) else None
               for name, values in means.items()},
        }  # fmt: skip
