"""Evaluations of one condition, over its seeds, and the figures that verdicts and comparisons take from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from loopscope.results import DepthCurve, ModelEvaluation, Reading, bits_per_byte

READING: Reading = "at depth"
"""What is compared: loop k as a user gets it who runs k loops."""


@dataclass(frozen=True)
class Condition:
    """One condition's evaluations, one per seed, seeds in order.

    Attributes:
        loops: the deepest loop that every seed was evaluated at.
    """

    name: str
    seeds: tuple[int, ...]
    evaluations: tuple[ModelEvaluation, ...]

    @property
    def trained_loops(self) -> int:
        return self.evaluations[0].trained_loops

    @property
    def loops(self) -> int:
        return min(len(depth_curve(evaluation).per_loop) for evaluation in self.evaluations)

    def of(self, seeds: Sequence[int]) -> "Condition":
        """The same condition at some of its seeds."""
        kept = tuple(self.evaluations[self.seeds.index(seed)] for seed in seeds)
        return Condition(self.name, tuple(seeds), kept)

    @property
    def bytes_per_token(self) -> float:
        """Of the text. 1 for a task's symbols, which have no bytes: figures are then in bits per answer (`unit`)."""
        known = self.evaluations[0].bytes_per_token
        return 1.0 if math.isnan(known) else known

    @property
    def unit(self) -> str:
        """What its differences are in."""
        return "bits per answer" if math.isnan(self.evaluations[0].bytes_per_token) else "bits per byte"

    def bits_per_byte(self, loop: int) -> list[float]:
        """Of every seed at one loop; bits per answer of a task."""
        losses = [depth_curve(evaluation).per_loop[loop - 1].loss for evaluation in self.evaluations]
        return [bits_per_byte(loss, self.bytes_per_token) for loss in losses]

    def windows(self, loop: int) -> Float[np.ndarray, "seeds windows"]:
        """Bits per byte of every seed and window at one loop, a token counted with the text's mean bytes."""
        losses = [depth_curve(evaluation).window_loss[loop - 1] for evaluation in self.evaluations]
        return np.array(losses) / math.log(2) / self.bytes_per_token

    def weights(self) -> Float[np.ndarray, " windows"] | None:
        """Labels that count in each window; None where all have the same number."""
        labels = depth_curve(self.evaluations[0]).window_labels
        return np.array(labels, dtype=np.float64) if labels else None


def depth_curve(evaluation: ModelEvaluation) -> DepthCurve:
    """The curve at depth.

    Raises:
        ValueError: depth was not evaluated.
    """
    for curve in evaluation.depth:
        if curve.reading == READING:
            return curve
    raise ValueError(f"{evaluation.name} has no depth curve yet; run loopscope evaluate depth on it first")


def group(evaluations: Sequence[ModelEvaluation]) -> list[Condition]:
    """Conditions in order of appearance. A model without a condition is one of its own, by its name.

    Raises:
        ValueError: one condition twice at the same seed, or at two sizes or depths.
    """
    grouped: dict[str, dict[int, ModelEvaluation]] = {}
    for evaluation in evaluations:
        name = evaluation.condition or evaluation.name
        members, seed = grouped.setdefault(name, {}), evaluation.seed or 0
        if seed in members:
            raise ValueError(f"{name} comes twice with seed {seed}; compare each condition and seed once")
        first = next(iter(members.values()), evaluation)
        for key in ("size", "trained_loops", "parameters"):
            one, other = getattr(first, key), getattr(evaluation, key)
            if one != other:
                raise ValueError(
                    f"{name} has {key} {one} at one seed and {other} at another; compare runs of one size at a time"
                )
        members[seed] = evaluation
    return [
        Condition(name, tuple(sorted(members)), tuple(members[seed] for seed in sorted(members)))
        for name, members in grouped.items()
    ]


def check_same_text(evaluations: Sequence[ModelEvaluation]) -> None:
    """Refuse evaluations that did not read the same windows of the same text."""
    first = evaluations[0]
    for other in evaluations[1:]:
        for key, unit in (
            ("data", ""),
            ("windows", " windows"),
            ("sequence", " tokens"),
            ("bytes_per_token", ""),
        ):
            one, found = getattr(first, key), getattr(other, key)
            if one != found and not (one != one and found != found):  # both not a number: a task's symbols
                raise ValueError(
                    f"{first.name} and {other.name} were evaluated on different text ({key}: {one}{unit} and "
                    f"{found}{unit}); evaluate both on the same: loopscope evaluate depth, with the same --data, "
                    "--windows and --length"
                )
        if depth_curve(first).window_labels != depth_curve(other).window_labels:
            raise ValueError(
                f"{first.name} and {other.name} were evaluated on different text (other labels count in their "
                "windows); evaluate both on the same"
            )
