"""What a comparison says in plain sentences: which conditions the data separates, where, and which it does not."""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

from loopscope.evaluation.statistics.paired import SMALLEST_P
from loopscope.results import Difference, Interval, Matched
from loopscope.results.student_t import SEEDS_NEEDED


def comparison_sentences(
    differences: Sequence[Difference], matched: Sequence[Matched], seeds: int, unit: str = "bits per byte"
) -> tuple[str, ...]:
    """Return what the differences say, in sentences: separated pairs first, then those that the data does not separate.

    Of the latter, pairs whose own interval leaves out 0 somewhere are named apart: a hint that the correction for
    all tests does not let stand.

    Args:
        unit: what differences are in.
    """
    sentences, hinted, apart = [], [], []
    if seeds < SEEDS_NEEDED:
        sentences.append(
            f"{count(seeds, 'seed')}: fewer than {SEEDS_NEEDED}, so there is no interval over seeds and nothing is "
            "separated. Means alone are no finding."
        )
    for (one, other), group in groupby(differences, key=lambda entry: (entry.one, entry.other)):
        pair = list(group)
        if any(entry.separated for entry in pair):
            sentences.append(_separated(one, other, pair, unit))
        elif hints := [entry for entry in pair if leaves_out_zero(entry.bits_per_byte)]:
            hinted.append(f"{one} and {other} ({spans(d.loop for d in hints)}; {_largest(hints)})")
        else:
            apart.append(f"{one} and {other} ({_largest(pair)})")
    largest = f"largest mean difference, in {unit}, second minus first"
    if hinted:
        sentences.append(
            "A hint, no finding: an interval of its own leaves out 0, but the correction for all tests does not let it "
            f"stand ({largest}): {'; '.join(hinted)}."
        )
    if apart:
        sentences.append(f"The data does not separate, at any loop ({largest}): {'; '.join(apart)}.")
    return (*sentences, *_on_looping(matched, unit))


def _separated(one: str, other: str, pair: Sequence[Difference], unit: str) -> str:
    parts = []
    for better, worse, sign in ((one, other, 1), (other, one, -1)):
        there = [d for d in pair if d.separated and sign * d.bits_per_byte.mean > 0]
        if there:
            sizes = sorted(abs(d.bits_per_byte.mean) for d in there)
            p = max(d.p_corrected or 0.0 for d in there)
            parts.append(
                f"{better} is better than {worse} at {spans(d.loop for d in there)}, by {_span(sizes)} {unit} "
                f"(corrected p at most {max(p, SMALLEST_P):.2g})"
            )
    rest = [d for d in pair if not d.separated]
    if rest:
        parts.append(f"at {spans(d.loop for d in rest)} the data does not separate them ({_largest(rest)})")
    return "; ".join(parts) + "."


def _on_looping(matched: Sequence[Matched], unit: str) -> list[str]:
    """One sentence for every baseline that stands apart from its looped model, one for all that do not."""
    sentences: list[str] = []
    hinted: list[str] = []
    apart: list[str] = []
    looped = None
    for row in matched:
        if row.role == "looped":
            looped = row
        elif row.against is not None and looped is not None:
            mean, what = row.against.mean, f"{looped.condition} at {count(looped.loops, 'loop')}"
            if row.separated:
                verb = "better" if mean > 0 else "worse"
                sentences.append(
                    f"With the {row.role}, {what} is {verb} than {row.condition} by {abs(mean):.4f} {unit}."
                )
            else:
                listed = hinted if leaves_out_zero(row.against) else apart
                listed.append(f"{what} and {row.condition} (the {row.role}; {mean:+.4f})")
    if hinted:
        sentences.append(
            "A hint, no finding, about looping and not looping (second minus first): "
            + "; ".join(hinted)
            + "."
        )
    if apart:
        sentences.append(
            "The data does not separate looping from not looping (second minus first) for "
            + "; ".join(apart)
            + "."
        )
    return sentences


def leaves_out_zero(interval: Interval) -> bool:
    """Return whether there is an interval, and 0 is not in it."""
    return interval.low is not None and interval.high is not None and not interval.low <= 0 <= interval.high


def _largest(pair: Sequence[Difference]) -> str:
    finite = [entry for entry in pair if math.isfinite(entry.bits_per_byte.mean)]
    if not finite:
        return "no loss that is finite"
    top = max(finite, key=lambda entry: abs(entry.bits_per_byte.mean))
    return f"{top.bits_per_byte.mean:+.4f} at loop {top.loop}"


def _span(sizes: Sequence[float]) -> str:
    low, high = f"{sizes[0]:.4f}", f"{sizes[-1]:.4f}"
    return low if low == high else f"{low} to {high}"


def spans(loops: Iterable[int]) -> str:
    """Name loops in words, runs of them joined: `loops 1-3 and 6`."""
    numbers = sorted(loops)
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"{'loop' if len(numbers) == 1 else 'loops'} {listed}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 seed`, `3 seeds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
