"""Evaluations of one condition, over its seeds, and the figures that verdicts and comparisons take from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from loopscope.results import CurveReading, DepthCurve, ModelEvaluation, bits_per_byte

READING: CurveReading = "at depth"
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
        """The depth that the condition was trained at."""
        return self.evaluations[0].trained_loops

    @property
    def loops(self) -> int:
        """The deepest loop that every seed was evaluated at."""
        return min(len(depth_curve(evaluation).per_loop) for evaluation in self.evaluations)

    def of(self, seeds: Sequence[int]) -> "Condition":
        """Return this condition at some of its seeds, in the order given."""
        kept = tuple(self.evaluations[self.seeds.index(seed)] for seed in seeds)
        return Condition(self.name, tuple(seeds), kept)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of the text over its tokens; 1 for a task's symbols, which have none.

        Figures of a task are then in bits per answer (`unit`).
        """
        known = self.evaluations[0].bytes_per_token
        return 1.0 if math.isnan(known) else known

    @property
    def unit(self) -> str:
        """What the condition's differences are in: bits per byte, or bits per answer of a task."""
        return "bits per answer" if math.isnan(self.evaluations[0].bytes_per_token) else "bits per byte"

    def bits_per_byte(self, loop: int) -> list[float]:
        """Return the bits per byte of every seed at one loop; bits per answer of a task."""
        losses = [depth_curve(evaluation).per_loop[loop - 1].loss for evaluation in self.evaluations]
        return [bits_per_byte(loss, self.bytes_per_token) for loss in losses]

    def windows(self, loop: int) -> Float[np.ndarray, "seeds windows"]:
        """Return bits per byte of every seed and window at one loop, a token counted with the text's mean bytes."""
        losses = [depth_curve(evaluation).window_loss[loop - 1] for evaluation in self.evaluations]
        return np.array(losses) / math.log(2) / self.bytes_per_token

    def weights(self) -> Float[np.ndarray, " windows"] | None:
        """Return the number of labels that count in each window; None where all windows have as many."""
        labels = depth_curve(self.evaluations[0]).window_labels
        return np.array(labels, dtype=np.float64) if labels else None


def depth_curve(evaluation: ModelEvaluation) -> DepthCurve:
    """Return an evaluation's curve in the reading that conditions are compared in, `at depth`.

    Raises:
        ValueError: depth was not evaluated.
    """
    for curve in evaluation.depth:
        if curve.reading == READING:
            return curve
    raise ValueError(f"{evaluation.name} has no depth curve yet; run loopscope evaluate depth on it first")


def group_evaluations(evaluations: Sequence[ModelEvaluation]) -> list[Condition]:
    """Group evaluations into conditions, in order of appearance; a model without one is a condition by its own name.

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


def same_windows(one: ModelEvaluation, other: ModelEvaluation) -> bool:
    """Return whether two evaluations read the same windows in the same tokens."""
    same = all(getattr(one, key) == getattr(other, key) for key in ("windows", "sequence"))
    bytes_per_token = (one.bytes_per_token, other.bytes_per_token)
    both_nan = all(math.isnan(value) for value in bytes_per_token)  # a task's symbols
    return same and (both_nan or bytes_per_token[0] == bytes_per_token[1])


def check_same_text(evaluations: Sequence[ModelEvaluation]) -> None:
    """Raise ValueError for evaluations that did not read the same text.

    Windows may differ (another tokenizer, another length) where both read the whole of one text: `text_hash` says so.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        if first.text_hash is not None and first.text_hash == other.text_hash:
            continue
        for key, unit in (
            ("data", ""),
            ("windows", " windows"),
            ("sequence", " tokens"),
            ("bytes_per_token", ""),
        ):
            value, other_value = getattr(first, key), getattr(other, key)
            both_nan = value != value and other_value != other_value  # a task's symbols
            if value != other_value and not both_nan:
                raise ValueError(
                    f"{first.name} and {other.name} were evaluated on different text ({key}: {value}{unit} and "
                    f"{other_value}{unit}); evaluate both on the same: loopscope evaluate depth, with the same --data, "
                    "--windows and --length. Models of different tokenizers compare on the whole validation text that "
                    "both were trained beside, without these"
                )
        if depth_curve(first).window_labels != depth_curve(other).window_labels:
            raise ValueError(
                f"{first.name} and {other.name} were evaluated on different text (other labels count in their "
                "windows); evaluate both on the same"
            )


def by_place(windows: Float[np.ndarray, "seeds windows"], parts: int) -> Float[np.ndarray, "seeds parts"]:
    """Return means over `parts` equal parts of the text, from means over its windows; the mean over all stays.

    A part that begins or ends inside a window takes its share of it.
    """
    count = windows.shape[1]
    if parts == count:
        return windows
    sums = np.concatenate([np.zeros((len(windows), 1)), windows.cumsum(axis=1)], axis=1)
    edges = np.linspace(0, count, parts + 1)
    cut = np.stack([np.interp(edges, np.arange(count + 1), row) for row in sums])
    means: np.ndarray = np.diff(cut, axis=1) * parts / count
    return means
