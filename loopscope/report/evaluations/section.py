"""The part of a page about depth and exits: everything that its template shows, in the order in which it is read."""

from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.audits.section import filled_rows
from loopscope.report.evaluations.calibrated import calibration_table
from loopscope.report.evaluations.depth import accuracy, exact_match, quality, state_norm
from loopscope.report.evaluations.depth_grid import glance
from loopscope.report.evaluations.differences import difference_table, forest
from loopscope.report.evaluations.exits import trade_off
from loopscope.report.evaluations.foretold import foretold_sentences
from loopscope.report.evaluations.groups import Group, evaluated_conditions, make_groups
from loopscope.report.evaluations.matched import matched_figure, matched_table
from loopscope.report.evaluations.pareto import against_flops, against_loops, against_time, equal_flops_table
from loopscope.report.evaluations.speed import speed_table, speed_up
from loopscope.report.evaluations.task_curves import task_figures, task_sentences, task_table
from loopscope.report.evaluations.verdicts import depth_headline, verdict_sentences, verdict_table
from loopscope.report.found import EvaluationFiles
from loopscope.report.looks import Looks
from loopscope.report.plots.figure import Figure
from loopscope.report.study.conditions import StudyCondition
from loopscope.report.study.table import HeadlineTable
from loopscope.results import Comparison, ModelEvaluation, TaskEvaluation

TABLE_ROWS = 12
"""Rows of a table that stands in the open."""
SENTENCES = 3
"""Sentences of a comparison that stand in the open at its start and at its end; those between unfold.

It starts with the pairs that are apart, and ends with those that are not and with what looping is worth."""


@dataclass(frozen=True)
class SectionPart:
    """Part of the section: figures and a table under one heading, with sentences between."""

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
        return self.table is not None and len(self.table.rows) > TABLE_ROWS

    @property
    def empty(self) -> bool:
        """Whether the part has nothing to show."""
        return not self.figures and self.table is None and not self.said


@dataclass(frozen=True)
class EvaluationSection:
    """What the page's template shows of evaluations."""

    headline: str
    worth: Figure | None  # which depth is worth running; None where no loss is finite
    parts: tuple[SectionPart, ...]
    notes: tuple[str, ...]
    models: tuple[ModelEvaluation, ...]
    warnings: tuple[str, ...]  # runs that were not evaluated, texts that differ
    tasks: tuple[TaskEvaluation, ...] = ()  # models that benchmarks were scored of

    @property
    def compared(self) -> bool:
        """Whether conditions were compared in pairs."""
        return any(part.key == "comparison" for part in self.parts)

    @property
    def figures(self) -> list[Figure]:
        """All figures of the section."""
        return [*([self.worth] if self.worth else []), *(f for part in self.parts for f in part.figures)]


def build_evaluation_section(
    files: EvaluationFiles, conditions: Sequence[StudyCondition], looks: Looks | None = None
) -> EvaluationSection | None:
    """Make the section of a page about evaluations; None where nothing was evaluated.

    Args:
        looks: those of the page; by default the study's conditions first, then what is of none of them.
    """
    if not files.evaluations and files.comparison is None and not files.tasks:
        return None
    comparison = files.comparison
    named = [(condition.name, condition.size) for condition in conditions]
    looks = looks or Looks([*named, *evaluated_conditions(files.evaluations, comparison, files.tasks)])
    groups = make_groups(files.evaluations, conditions, comparison, looks)
    worth = glance(groups)
    tasks = tuple(
        sorted(files.tasks, key=lambda model: looks.of(model.condition or model.name, model.size).place)
    )
    parts = [_depth(groups), _tasks(tasks, looks), _exits(groups), _speed(groups)]
    if comparison:
        parts += [_pairs(comparison, looks), _fronts(comparison, looks), _matched(comparison, looks)]
    return EvaluationSection(
        headline=depth_headline(groups),
        worth=None if worth.empty else worth,
        parts=tuple(part for part in parts if not part.empty),
        notes=comparison.notes if comparison else (),
        models=tuple(model for group in groups for model in group.models),
        warnings=_warnings(files.evaluations, conditions),
        tasks=tasks,
    )


def _depth(groups: Sequence[Group]) -> SectionPart:
    tasks = exact_match(groups)
    small = [tasks, accuracy(groups), state_norm(groups)]
    return SectionPart(
        "depth",
        "Every depth, past the trained one",
        "One unroll reads every loop on the same held-out text. The upright line is the depth that was trained.",
        filled_rows(quality(groups), *(figure for figure in small if figure.series)),
        verdict_table(groups),
        said=tuple(verdict_sentences(groups)),
        rest=tuple(foretold_sentences(groups)),
    )


def _tasks(models: Sequence[TaskEvaluation], looks: Looks) -> SectionPart:
    said = tuple(task_sentences(models, looks))
    harness = ", ".join(dict.fromkeys(scores.harness for model in models for scores in model.tasks))
    apart = any(
        not scores.one_unroll and scores.kind not in ("generate_until", "group")
        for model in models
        for scores in model.tasks
    )
    unrolled = (
        "by a run for each depth where a model's exits on the way are others" if apart else "from one unroll"
    )
    return SectionPart(
        "tasks",
        "Benchmarks by depth",
        f"lm-evaluation-harness {harness}: likelihoods at all depths {unrolled}, text written anew at each depth.",
        filled_rows(*task_figures(models, looks)),
        task_table(models, looks),
        said=said[: 2 * SENTENCES],
        rest=said[2 * SENTENCES :],
    )


def _exits(groups: Sequence[Group]) -> SectionPart:
    sequences = trade_off(groups, "sequence")
    tokens = trade_off(groups, "token", brief=not sequences.empty)
    return SectionPart(
        "exits",
        "Leaving early",
        "An exit rule looks at every loop and decides who has had enough. Above zero the loops saved cost "
        "perplexity; below, leaving early is better than full depth.",
        filled_rows(sequences, tokens),
        calibration_table(groups),
    )


def _speed(groups: Sequence[Group]) -> SectionPart:
    return SectionPart(
        "speed",
        "What early exits save in time",
        "Loops are not seconds: reading logits at every loop costs, and so does taking a batch apart.",
        filled_rows(speed_up(groups)),
        speed_table(groups),
    )


def _pairs(comparison: Comparison, looks: Looks) -> SectionPart:
    sentences = tuple(("", sentence) for sentence in comparison.sentences)
    between = sentences[SENTENCES:-SENTENCES]
    return SectionPart(
        "comparison",
        "Which differences are real",
        "The same windows and the same seeds on both sides; p values are corrected for how many pairs were compared.",
        filled_rows(forest(comparison, looks)),
        difference_table(comparison, looks),
        said=(*sentences[:SENTENCES], *sentences[SENTENCES + len(between) :]),
        rest=between,
    )


def _fronts(comparison: Comparison, looks: Looks) -> SectionPart:
    time = against_time(comparison, looks)
    drawn = [against_loops(comparison, looks), against_flops(comparison, looks), *([time] if time else [])]
    return SectionPart(
        "pareto",
        "Quality for what it costs",
        "A condition at a depth is worth considering where nothing is both better and cheaper."
        + (
            " The table says who is ahead at equal FLOPs, at whatever depth."
            if comparison.equal_flops
            else ""
        ),
        filled_rows(*drawn),
        equal_flops_table(comparison, looks),
    )


def _matched(comparison: Comparison, looks: Looks) -> SectionPart:
    return SectionPart(
        "matched",
        "Is looping worth it",
        "Beside each looped model: an unlooped one with as many parameters, and one with as much arithmetic.",
        filled_rows(matched_figure(comparison, looks)),
        matched_table(comparison, looks),
    )


def _warnings(
    evaluations: Sequence[ModelEvaluation], conditions: Sequence[StudyCondition]
) -> tuple[str, ...]:
    runs = {(run.condition, run.size, run.seed) for c in conditions for run in c.completed}
    done = {(entry.condition, entry.size, entry.seed) for entry in evaluations}
    left = len(runs - done)
    warnings = []
    if evaluations and left:
        warnings.append(f"Evaluated: {len(runs) - left} of {len(runs)} completed runs.")
    texts = list(dict.fromkeys(f"{e.data}, {e.windows} windows of {e.sequence}" for e in evaluations))
    if len(texts) > 1:
        warnings.append(
            f"Models were evaluated on different text, and compare only within one: {'; '.join(texts)}."
        )
    return tuple(warnings)
