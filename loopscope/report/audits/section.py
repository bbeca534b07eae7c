"""The audit part of a page: everything that its template shows, in the order in which it is read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loopscope.report.audits.blind_corner import blind_corner
from loopscope.report.audits.cards import Card, RemedyTable, card, remedy_table
from loopscope.report.audits.coarser_numbers import rounding_error, rounding_reasons, rounding_table
from loopscope.report.audits.drift import drift, fits, turning
from loopscope.report.audits.dynamics import cosines, increment, jacobian, step_size
from loopscope.report.audits.headline import comparison, headline_sentences
from loopscope.report.audits.interventions import clamping, final_sweep, rescaling
from loopscope.report.audits.models import ModelView, model_views
from loopscope.report.audits.more_loops import foretold_reasons, foretold_table
from loopscope.report.audits.norms import TokenTable, largest_tokens, norms, shares
from loopscope.report.audits.resting import resting_table
from loopscope.report.audits.side_scales import side_table
from loopscope.report.audits.visibility import VisibilityTable, visibility_table
from loopscope.report.looks import Looks
from loopscope.report.plots.figure import Figure
from loopscope.report.study.table import HeadlineTable
from loopscope.results import WORST_FIRST, AuditedModel


@dataclass(frozen=True)
class Block:
    """Figures under one heading."""

    key: str
    title: str
    lead: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class AuditSection:
    """What the template shows of one or several audits."""

    models: tuple[ModelView, ...]
    sentences: tuple[str, ...]
    comparison: HeadlineTable | None  # None for one model
    remedies: RemedyTable | None  # what closes it, for several; one model's card says it
    fits: HeadlineTable | None  # None for one model
    cards: tuple[Card, ...]
    corner: Figure | None  # None where no loop has finite figures
    seen: tuple[VisibilityTable, ...]
    resting: HeadlineTable | None  # None for records of an earlier version
    beside: HeadlineTable | None  # None where nothing goes from loop to loop beside H_k
    rounding: HeadlineTable | None  # None where no other number format was tried
    reasons: tuple[tuple[str, str, str], ...]  # model, number format, why
    foretold: HeadlineTable | None  # what more loops will do; None where nobody told
    foretold_why: tuple[tuple[str, str], ...]  # model, why
    blocks: tuple[Block, ...]
    tokens: tuple[TokenTable, ...]

    @property
    def figures(self) -> list[Figure]:
        """All figures of the section."""
        return [*([self.corner] if self.corner else []), *(f for block in self.blocks for f in block.figures)]

    @property
    def worst(self) -> int:
        """Index of the first model with the worst verdict."""
        return min(range(len(self.models)), key=lambda k: WORST_FIRST.index(self.models[k].report.verdict))


def build_audit_section(audits: Sequence[AuditedModel], looks: Looks | None = None) -> AuditSection:
    """Make the section of a page about audits: names, colours, tables and figures. Needs at least one audit.

    Args:
        looks: those of the page; by default of a page of these audits alone.
    """
    models = model_views(audits, looks)
    corner = blind_corner(models)
    blocks = (
        Block(
            "drift",
            "Drift",
            "What the carried scale comes to. A scale that nothing holds grows with every loop, and goes on growing "
            "where the model is run deeper than it was trained.",
            filled_rows(drift(models), turning(models)),
        ),
        Block(
            "interventions",
            "Interventions",
            "The scale changed by hand, without training. What an exit cannot see costs it nothing; what the loops "
            "themselves do with scale shows at the exits after.",
            filled_rows(final_sweep(models), clamping(models), rescaling(models)),
        ),
        Block(
            "tokens",
            "Tokens",
            "Whether the scale is everybody's or that of a few tokens and channels.",
            filled_rows(norms(models), shares(models)),
        ),
        Block(
            "dynamics",
            "Dynamics",
            "How the recurrence moves its state: whether small changes grow, how large the steps are, and whether "
            "loops agree on a direction.",
            filled_rows(jacobian(models), cosines(models), step_size(models), increment(models)),
        ),
        Block(
            "rounding",
            "Rounding",
            "The same weights and tokens in coarser numbers, against fp32, loop by loop: whether the error dies out, "
            "stays, grows, or breaks an exit.",
            filled_rows(rounding_error(models)),
        ),
    )
    return AuditSection(
        models=tuple(models),
        sentences=tuple(headline_sentences(models)),
        comparison=comparison(models) if len(models) > 1 else None,
        remedies=remedy_table(models) if len(models) > 1 else None,
        fits=fits(models) if len(models) > 1 else None,
        cards=tuple(card(model) for model in models),
        corner=corner if corner.series else None,
        seen=tuple(visibility_table(model) for model in models),
        resting=resting_table(models),
        beside=side_table(models),
        rounding=rounding_table(models),
        reasons=tuple(rounding_reasons(models)),
        foretold=foretold_table(models),
        foretold_why=tuple(foretold_reasons(models)),
        blocks=tuple(block for block in blocks if block.figures),
        tokens=tuple(table for model in models if (table := largest_tokens(model))),
    )


def filled_rows(*figures: Figure) -> tuple[Figure, ...]:
    """Return the figures that have something to show, with none left alone in half a row."""
    kept = [figure for figure in figures if figure.series]
    halves = 0
    for index, figure in enumerate(kept):
        halves = 0 if figure.wide else halves + 1
        alone = halves % 2 == 1 and (index + 1 == len(kept) or kept[index + 1].wide)
        if alone and not (len(kept) == 3 and halves == 3):  # three halves stand in three columns
            kept[index] = replace(figure, wide=True)
    return tuple(kept)
