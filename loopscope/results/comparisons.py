"""Records of how conditions compare. A study's `comparison.json` holds one `Comparison`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loopscope.results.evaluations import load_record
from loopscope.results.layout import COMPARISON
from loopscope.results.origin import Provenance
from loopscope.results.readable import Readable

Beyond = Literal["helps", "holds", "hurts", "unclear"]
"""What more loops than trained do to the loss."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval over seeds. From fewer than three seeds there is none: low and high are None."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class DepthVerdict:
    """How far one condition's depth reaches, over its seeds."""

    condition: str
    trained_loops: int
    seeds: int
    best: Interval  # the loop with the least loss, mean over seeds: a whole number
    first: Interval  # first and last loop within 1 % of the best perplexity: whole numbers
    last: Interval
    beyond: Beyond  # more loops than trained
    change: Interval  # of bits per byte: the deepest loop minus the trained depth
    why: str
    best_by_seed: tuple[int, ...] = ()  # of every seed with a finite loss; () in records of before

    @property
    def best_loop(self) -> str:
        """The best loop in words: `4`, `the seeds disagree (1, 8)`, or `none` where no loss is finite."""
        if disagreement := seeds_disagree(self.best_by_seed):
            return disagreement
        if self.best.mean != self.best.mean:
            return "none"
        # Records of before hold the mean of the seeds' best loops.
        return f"{self.best.mean:.0f}" if self.best.mean % 1 == 0 else "the seeds disagree"


def seeds_disagree(best_by_seed: Sequence[int]) -> str:
    """Return `the seeds disagree (1, 8)` for best loops that differ between seeds; nothing where they agree."""
    different = sorted(set(best_by_seed))
    return f"the seeds disagree ({', '.join(map(str, different))})" if len(different) > 1 else ""


@dataclass(frozen=True)
class Difference:
    """Two conditions at one loop, paired by seed and by window: the second, `other`, minus the first, `one`.

    Every difference in Loopscope is the second minus the first, the later minus the earlier, the changed minus the
    plain: below zero the second has fewer bits per byte and is better.
    """

    one: str
    other: str
    loop: int
    bits_per_byte: Interval
    p: float | None  # two-sided; None without enough seeds
    p_corrected: float | None  # Holm, over all differences of the comparison
    separated: bool  # corrected p below 0.05 and an interval without 0
    seeds: int


@dataclass(frozen=True)
class Option:
    """One condition at one depth: a row of the Pareto table."""

    condition: str
    loops: int
    bits_per_byte: Interval
    flops_per_token: float | None
    seconds_per_token: float | None  # measured; None where it was not
    best_for_loops: bool  # on the front of quality against loops
    best_for_time: bool  # on the front of quality against measured time (FLOPs where it was not measured)
    flops_per_byte: float | None = None  # of text; per token where tokens have no bytes
    best_for_flops: bool = False  # on the front of quality against FLOPs per byte


@dataclass(frozen=True)
class EqualFlops:
    """From an amount of arithmetic on: which condition is best within it, at which depth."""

    flops_per_byte: float
    condition: str
    loops: int
    bits_per_byte: Interval
    second: str | None  # the best other condition within the same amount; None: none is so cheap
    second_loops: int | None
    behind: Interval | None  # bits per byte of the second minus the best's, paired by seed and window


@dataclass(frozen=True)
class Matched:
    """One row of the compute-matched table: is looping worth it.

    Rows come in groups: a looped condition, then the baselines that are set against it.
    """

    condition: str
    loops: int
    role: Literal["looped", "same parameters", "same FLOPs"]
    parameters: int
    training_flops: float | None  # of the whole run
    inference_flops: float | None  # per token
    bits_per_byte: Interval
    against: (
        Interval | None
    )  # bits per byte minus the looped model's, paired by seed; None for the looped row
    separated: bool


@dataclass(frozen=True)
class Comparison(Readable):
    """Conditions side by side at matched inference depth."""

    conditions: tuple[str, ...]
    verdicts: tuple[DepthVerdict, ...]
    differences: tuple[Difference, ...]
    options: tuple[Option, ...]
    matched: tuple[Matched, ...]
    sentences: tuple[str, ...]  # what the data separates and what it does not
    confidence: float = 0.95
    notes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None
    equal_flops: tuple[EqualFlops, ...] = ()  # from the smallest amount up

    def lines(self) -> list[str]:
        """Return what the data separates and what it does not, then notes."""
        return [*self.sentences, *self.notes]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per condition and depth; the unit is in `settings` (bits per byte, of a task per answer)."""
        return [
            {
                "condition": option.condition,
                "loop": option.loops,
                self.settings.get("unit", "bits per byte"): option.bits_per_byte.mean,
                "low": option.bits_per_byte.low,
                "high": option.bits_per_byte.high,
            }
            for option in self.options
        ]


def load_comparison(path: str | Path) -> Comparison | None:
    """The comparison in a study folder (or that file), or None where there is none yet."""
    return load_record(Comparison, Path(path), COMPARISON)
