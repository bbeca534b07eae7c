"""The part of a page about depth and exits: everything that its template shows, in the order in which it is read."""

from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.audits.section import drawn
from loopscope.report.evaluations.calibrated import calibration_table
from loopscope.report.evaluations.depth import accuracy, exact_match, quality, scale
from loopscope.report.evaluations.depth_grid import glance
from loopscope.report.evaluations.differences import difference_table, forest
from loopscope.report.evaluations.exits import trade_off
from loopscope.report.evaluations.glossary import GLOSSARY
from loopscope.report.evaluations.groups import Group, grouped
from loopscope.report.evaluations.matched import matched_figure, matched_table
from loopscope.report.evaluations.pareto import against_loops, against_time
from loopscope.report.evaluations.speed import speed_table, speed_up
from loopscope.report.evaluations.verdicts import depth_headline, verdict_sentences, verdict_table
from loopscope.report.found import FoundEvaluations
from loopscope.report.plots.figure import Figure
from loopscope.report.study.conditions import Condition
from loopscope.report.study.table import HeadlineTable
from loopscope.results import Comparison, ModelEvaluation

ROWS = 12
"""Rows of a table that stands in the open."""
SENTENCES = 3
"""Sentences of a comparison that stand in the open at its start and at its end; those between unfold.

It starts with the pairs that are apart, and ends with those that are not and with what looping is worth."""


@dataclass(frozen=True)
class Part:
    """Figures and a table under one heading, with sentences between."""

    key: str
    title: str
    lead: str
    figures: tuple[Figure, ...]
    table: HeadlineTable | None = None
    said: tuple[tuple[str, str], ...] = ()  # name (or nothing) and sentence
    rest: tuple[tuple[str, str], ...] = ()  # sentences that unfold

    @property
    def folded(self) -> bool:
        """Whether the table unfolds: a long one would push everything else away."""
        return self.table is not None and len(self.table.rows) > ROWS

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.figures and self.table is None and not self.said


@dataclass(frozen=True)
class EvaluationSection:
    """What the template shows."""

    headline: str
    worth: Figure | None  # which depth is worth running; None where no loss is finite
    parts: tuple[Part, ...]
    notes: tuple[str, ...]
    models: tuple[ModelEvaluation, ...]
    warnings: tuple[str, ...]  # runs that were not evaluated, texts that differ
    glossary: tuple[tuple[str, str], ...]

    @property
    def figures(self) -> list[Figure]:
        """All of them."""
        return [*([self.worth] if self.worth else []), *(f for part in self.parts for f in part.figures)]


def build_section(found: FoundEvaluations, conditions: Sequence[Condition]) -> EvaluationSection | None:
    """Names, colours, tables and figures; None where nothing was evaluated."""
    if not found.evaluations and found.comparison is None:
        return None
    comparison = found.comparison
    groups = grouped(found.evaluations, conditions, comparison)
    worth = glance(groups)
    parts = [_depth(groups), _exits(groups), _speed(groups)]
    if comparison:
        parts += [_pairs(comparison), _fronts(comparison, groups), _matched(comparison)]
    return EvaluationSection(
        headline=depth_headline(groups),
        worth=None if worth.empty else worth,
        parts=tuple(part for part in parts if not part.empty),
        notes=comparison.notes if comparison else (),
        models=found.evaluations,
        warnings=_warnings(found.evaluations, conditions),
        glossary=GLOSSARY,
    )


def _depth(groups: Sequence[Group]) -> Part:
    tasks = exact_match(groups)
    small = [tasks, accuracy(groups), scale(groups)]
    return Part(
        "depth",
        "Every depth, past the trained one",
        "One unroll reads every loop on the same held-out text. The upright line is the depth that was trained.",
        drawn(quality(groups), *(figure for figure in small if figure.series)),
        verdict_table(groups),
        said=tuple(verdict_sentences(groups)),
    )


def _exits(groups: Sequence[Group]) -> Part:
    sequences = trade_off(groups, "sequence")
    tokens = trade_off(groups, "token", brief=not sequences.empty)
    return Part(
        "exits",
        "Leaving early",
        "An exit rule looks at every loop and decides who has had enough. Above zero the loops saved cost "
        "perplexity; below, leaving early is better than full depth.",
        drawn(sequences, tokens),
        calibration_table(groups),
    )


def _speed(groups: Sequence[Group]) -> Part:
    return Part(
        "speed",
        "What early exits save in time",
        "Loops are not seconds: reading logits at every loop costs, and so does taking a batch apart.",
        drawn(speed_up(groups)),
        speed_table(groups),
    )


def _pairs(comparison: Comparison) -> Part:
    sentences = tuple(("", sentence) for sentence in comparison.sentences)
    between = sentences[SENTENCES:-SENTENCES]
    return Part(
        "comparison",
        "Which differences are real",
        "The same windows and the same seeds on both sides; p values are corrected for how many pairs were compared.",
        drawn(forest(comparison)),
        difference_table(comparison),
        said=(*sentences[:SENTENCES], *sentences[SENTENCES + len(between) :]),
        rest=between,
    )


def _fronts(comparison: Comparison, groups: Sequence[Group]) -> Part:
    return Part(
        "pareto",
        "Quality for what it costs",
        "A condition at a depth is worth considering where nothing is both better and cheaper.",
        drawn(against_loops(comparison, groups), against_time(comparison, groups)),
    )


def _matched(comparison: Comparison) -> Part:
    return Part(
        "matched",
        "Is looping worth it",
        "Beside each looped model: an unlooped one with as many parameters, and one with as much arithmetic.",
        drawn(matched_figure(comparison)),
        matched_table(comparison),
    )


def _warnings(evaluations: Sequence[ModelEvaluation], conditions: Sequence[Condition]) -> tuple[str, ...]:
    runs = {(run.condition, run.size, run.seed) for c in conditions for run in c.completed}
    done = {(entry.condition, entry.size, entry.seed) for entry in evaluations}
    left = len(runs - done)
    said = []
    if evaluations and left:
        said.append(f"Evaluated: {len(runs) - left} of {len(runs)} completed runs.")
    texts = list(dict.fromkeys(f"{e.data}, {e.windows} windows of {e.sequence}" for e in evaluations))
    if len(texts) > 1:
        said.append(
            f"Models were evaluated on different text, and compare only within one: {'; '.join(texts)}."
        )
    return tuple(said)
