"""What a reader concludes: the verdicts of a page in words, each with what to do, for its first screen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loopscope.report.audits.models import ModelView
from loopscope.report.evaluations.groups import Group
from loopscope.report.study.conditions import StudyCondition
from loopscope.report.study.table import number
from loopscope.results import WORST_FIRST, Beyond, Comparison, Verdict
from loopscope.results.student_t import SEEDS_NEEDED

MOST_NAMED = 4
"""Conditions that a sentence names; of more it counts the rest."""
_REMEDIES = 2
Badge = Verdict | Beyond | Literal[""]


@dataclass(frozen=True)
class Statement:
    """One conclusion: a verdict, what it is about and says, and what to do; commands stand in backticks."""

    badge: Badge
    says: str
    do: str = ""


def audit_statements(models: Sequence[ModelView]) -> list[Statement]:
    """Return what the audits come to, one statement per verdict that there is, the worst first."""
    statements = []
    for status in WORST_FIRST:
        concerned = [model for model in models if model.report.verdict == status]
        if concerned:
            statements.append(Statement(status, _says(status, concerned), _do(status, concerned)))
    return statements


def _says(status: Verdict, models: Sequence[ModelView]) -> str:
    names = listed([model.name for model in models])
    match status:
        case "blind":
            grown = [
                m.report.expansion.rms[m.trained - 1] / m.report.expansion.rms[0] for m in models if _grows(m)
            ]
            size = f" It ends at up to {number(max(grown))} times its size at loop 1." if grown else ""
            return f"{names}: nothing in training holds the scale. It is carried on, and no loss term sees it.{size}"
        case "damped":
            return f"{names}: no loss term sees the scale, but every step between loops shrinks it."
        case "visible":
            return f"{names}: the loss sees the scale, and can hold it."
        case "removed":
            return f"{names}: the scale is taken out between loops."


def _grows(model: ModelView) -> bool:
    rms = model.report.expansion.rms
    return len(rms) >= model.trained > 0 and rms[0] > 0 and rms[model.trained - 1] / rms[0] > 1.0


def _do(status: Verdict, models: Sequence[ModelView]) -> str:
    beside = _of_depth_and_precision(models)
    if status == "damped":
        return " ".join(
            ["Nothing as it is; audit again after a change of what happens between loops.", *beside]
        )
    if status != "blind":
        nothing = (
            "Nothing, for its scale." if beside else "Nothing: depth and precision can be chosen by quality."
        )
        return " ".join([nothing, *beside])
    closing: dict[str, list[float]] = {}
    for model in models:
        for tried in model.report.remedies:
            if tried.verdict in ("visible", "removed") and tried.cost == tried.cost:
                closing.setdefault(tried.change, []).append(tried.cost)
    everywhere = {change: max(costs) for change, costs in closing.items() if len(costs) == len(models)}
    best = sorted(everywhere, key=lambda change: everywhere[change])[:_REMEDIES]
    if not best:
        train = "Let a loss term see the scale (another readout, a penalty) or take it out between loops; train again."
    else:
        train = (
            f"Train again with one change: {' or '.join(best)}. Tried on the models as they are, that closes it; what "
            "it costs after training is for a study to say."
        )
    return " ".join([train, *beside])


def _of_depth_and_precision(models: Sequence[ModelView]) -> list[str]:
    """What more loops and coarser numbers cost, where an audit says that they do."""
    sentences = []
    hurt = [
        m.name for m in models if m.audited.prognosis and m.audited.prognosis.fate in ("drifts", "breaks")
    ]
    if hurt:
        sentences.append(f"Run no more loops than trained: they are foretold to hurt {listed(hurt)}.")
    lost: dict[str, list[str]] = {}
    for model in models:
        for tried in model.report.rounding:
            if tried.lost_at is not None and tried.lost_at <= model.trained:
                lost.setdefault(tried.format, []).append(model.name)
    sentences += [
        f"Keep it in finer numbers than {name}: within the trained depth that costs {listed(names)} 1 % of perplexity "
        "or more."
        for name, names in lost.items()
    ]
    return sentences


def depth_statements(groups: Sequence[Group]) -> list[Statement]:
    """Return what more loops than trained do, one statement per outcome that there is."""
    words = {
        "hurts": "more loops than trained hurt",
        "unclear": "more loops than trained may help or hurt",
        "holds": "more loops than trained change perplexity by less than 1 %",
        "helps": "more loops than trained help",
    }
    statements = []
    for beyond, says in words.items():
        concerned = [group for group in groups if group.verdict and group.verdict.beyond == beyond]
        if not concerned:
            continue
        best = "; ".join(f"{g.name} {g.verdict.best_loop}" for g in concerned[:MOST_NAMED] if g.verdict)
        advice = {
            "hurts": f"Run no more loops than trained. Best loop: {best}.",
            "unclear": f"Evaluate more seeds or more text before going deeper. Best loop: {best}.",
            "holds": f"Choose the depth by its time. Best loop: {best}.",
            "helps": f"Run deeper, and see how far it goes: `loopscope evaluate depth … --loops`. Best loop: {best}.",
        }[beyond]
        names = listed([group.name for group in concerned])
        kind: Badge = concerned[0].verdict.beyond if concerned[0].verdict else ""
        statements.append(Statement(kind, f"{names}: {says}.", advice))
    return statements


def quality_statement(
    comparison: Comparison | None, conditions: Sequence[StudyCondition], path: str
) -> Statement | None:
    """Return what can be said of differences in quality; None where there is one condition alone."""
    completed = [condition for condition in conditions if condition.completed]
    if len(completed) < 2:
        return None
    seeds = min(len(condition.completed) for condition in completed)
    if seeds < SEEDS_NEEDED:
        return Statement(
            "",
            f"Quality: {_count(seeds, 'seed')} of a condition, too few to rank any. Read directions, not "
            "differences.",
            f"Train the missing seeds in the same folder: `loopscope study … --seeds {SEEDS_NEEDED} --out {path}`.",
        )
    if comparison is None:
        return Statement(
            "",
            "Quality: which differences are real was not tested yet.",
            f"`loopscope evaluate compare {path}` pairs seeds and text, and corrects for the number of pairs.",
        )
    pairs = list(dict.fromkeys((entry.one, entry.other) for entry in comparison.differences))
    apart = list(dict.fromkeys((e.one, e.other) for e in comparison.differences if e.separated))
    if not apart:
        return Statement(
            "",
            f"Quality: {_count(seeds, 'seed')} separate none of {_count(len(pairs), 'pair')} of conditions at any "
            "loop. That is not the same as equal.",
            f"Choose by scale and speed, or train more seeds: `loopscope study … --seeds {seeds + 2} --out {path}`.",
        )
    first = next((sentence for sentence in comparison.sentences if " is better than " in sentence), "")
    return Statement(
        "",
        f"Quality, each model run to so many loops: {len(apart)} of {_count(len(pairs), 'pair')} of conditions are "
        f"apart. {first}".strip(),
        "Choose among those that are not apart by scale and speed.",
    )


def missing_statements(
    audited: bool, evaluated: bool, conditions: Sequence[StudyCondition], path: str
) -> list[Statement]:
    """Return what the page cannot say yet, and the commands that find it out."""
    if conditions and not any(condition.completed for condition in conditions):
        return []
    statements = []
    if not audited:
        statements.append(
            Statement(
                "",
                "Not audited: the page shows how large states are, not whether anything holds them.",
                f"`loopscope audit {path}`",
            )
        )
    if not evaluated:
        statements.append(
            Statement(
                "",
                "Not evaluated: of depths that were not trained nothing is measured.",
                f"`loopscope evaluate depth {path}`",
            )
        )
    return statements


def ending_statement(conditions: Sequence[StudyCondition]) -> Statement | None:
    """Return how many runs ended early; None where none did."""
    ended = [run for condition in conditions for run in condition.runs if run.status != "completed"]
    if not ended:
        return None
    of = _count(sum(len(condition.runs) for condition in conditions), "run")
    return Statement(
        "",
        f"{len(ended)} of {of} ended early.",
        "See why under “Runs that ended early”; they are in no mean.",
    )


def listed(names: Sequence[str]) -> str:
    """Return names in a row, the first few of many."""
    return ", ".join(names[:MOST_NAMED]) + (
        f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    )


def _count(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}" if number_of == 1 else f"{number_of} {noun}s"
