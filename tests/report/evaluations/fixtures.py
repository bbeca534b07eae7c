"""Synthetic evaluations, clearly so: curves from formulas, for tests of drawing only."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from loopscope.report.evaluations.groups import Group, evaluated_conditions, make_groups
from loopscope.report.evaluations.section import EvaluationSection, build_evaluation_section
from loopscope.report.found import EvaluationFiles
from loopscope.report.looks import Looks
from loopscope.report.plots.figure import Figure, Series
from loopscope.results import (
    Calibration,
    Comparison,
    DepthCurve,
    DepthVerdict,
    Difference,
    ExitCurve,
    ExitEvaluation,
    ExitPoint,
    Interval,
    LoopQuality,
    Matched,
    ModelEvaluation,
    Option,
    Speed,
    provenance,
)
from loopscope.results.evaluations import CurveReading, Unit

BYTES = 3.0
RULES = {
    "logit-margin": ("logits",),
    "kl": ("logits",),
    "hidden-step": ("hidden",),
    "oracle": ("logits",),
}
Beyond = Literal["helps", "holds", "hurts", "unclear"]


def loss_at(
    loop: int, trained: int = 4, slope: float = 0.02, level: float = 4.0, early: float = 0.6
) -> float:
    """Falls towards the trained depth; past it, changes by `slope` a loop."""
    reached = min(loop, trained)
    return level + early * (trained - reached) ** 2 / trained**2 + slope * max(0, loop - trained)


def quality(loop: int, loss: float, exact: float | None = None, norm: float = 20.0) -> LoopQuality:
    """One entry of a curve."""
    return LoopQuality(
        loop=loop,
        loss=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        bits_per_byte=loss / math.log(2) / BYTES,
        l2_norm=norm * loop,
        rms=norm * loop / 8,
        accuracy=0.4 - 0.01 * loss if math.isfinite(loss) else math.nan,
        exact_match=exact,
    )


def make_curve(
    deepest: int = 12,
    reading: CurveReading = "at depth",
    exact: bool = False,
    norm: float = 20.0,
    **shape: Any,
) -> DepthCurve:
    """Loss from `loss_at`."""
    losses = [loss_at(loop, **shape) for loop in range(1, deepest + 1)]
    right = [min(1.0, loop / 4) if exact else None for loop in range(1, deepest + 1)]
    entries = [
        quality(k, loss, share, norm) for k, (loss, share) in enumerate(zip(losses, right, strict=True), 1)
    ]
    return DepthCurve(reading, tuple(entries), tuple((loss, loss) for loss in losses))


def point(loss: float, mean_loops: float, threshold: float | None = None, depth: int = 4) -> ExitPoint:
    """Everything leaves near the mean."""
    shares = tuple(float(k == round(mean_loops)) for k in range(1, depth + 1))
    return ExitPoint(threshold, mean_loops, loss, math.exp(loss), loss / math.log(2) / BYTES, shares)


def make_exits(
    trained: int = 4, level: float = 4.0, speeds: bool = True, extra: float = 0.0
) -> ExitEvaluation:
    """Rules that lie between fixed depth and an oracle."""
    fixed = tuple(
        point(loss_at(k, trained, level=level), float(k), depth=trained) for k in range(1, trained + 1)
    )
    curves, calibrations, measured = [], [], []
    units: tuple[Unit, ...] = ("sequence", "token")
    for unit in units:
        for place, (rule, needs) in enumerate(RULES.items()):
            bound = rule == "oracle"
            bend = -0.05 if bound else 0.02 * (place + 1) + extra
            points = tuple(
                point(level + bend * (1 - step / 10) * 3, 1 + (trained - 1) * step / 10, step / 10, trained)
                for step in range(11)
            )
            curves.append(ExitCurve(rule, unit, needs, bound, points))
            if bound:
                continue
            held = place < 2
            calibrations.append(
                Calibration(
                    rule=rule,
                    unit=unit,
                    target="perplexity",
                    allowed=1.01,
                    met=True,
                    held=held,
                    threshold=0.7,
                    chosen_on=point(level + 0.009, 0.6 * trained, 0.7, trained),
                    tested_on=point(
                        level + (0.008 if held else 0.016), 0.6 * trained + 0.2 * place, 0.7, trained
                    ),
                    full_depth=point(level, float(trained), depth=trained),
                    windows=(60, 61),
                    why="made up",
                )
            )
    if speeds:
        measured = [
            Speed(
                rule,
                "sequence",
                0.7,
                32,
                128,
                2.0,
                (1.0, 1.02),
                (1.0 / r, 1.0 / r),
                r,
                trained / 2.0,
                a,
                1,
                "cpu",
            )
            for rule, r, a in (("logit-margin", 1.5, 1.6), ("hidden-step", 1.8, 1.9))
        ]
    return ExitEvaluation(fixed, tuple(curves), tuple(calibrations), tuple(measured))


def make_evaluation(condition: str = "made/up", seed: int = 0, **changes: Any) -> ModelEvaluation:
    """Level, slope and what else `loss_at` takes are for its curve; the rest are fields."""
    shape = {
        name: changes.pop(name) for name in ("slope", "level", "early", "norm", "exact") if name in changes
    }
    trained, deepest = changes.pop("trained", 4), changes.pop("deepest", 12)
    level = shape.get("level", 4.0) * (1 + 0.01 * seed)
    curve = make_curve(deepest, trained=trained, **{**shape, "level": level})
    values: dict[str, Any] = {
        "name": f"{condition}, seed {seed}",
        "condition": condition,
        "size": "laptop",
        "seed": seed,
        "trained_loops": trained,
        "parameters": 1_065_600,
        "data": "validation split of stdlib",
        "bytes_per_token": BYTES,
        "windows": 121,
        "sequence": 128,
        "flops_per_token": tuple(1e6 * k for k in range(1, deepest + 1)),
        "training_flops_per_token": 1.2e7,
        "tokens_trained": 40_000,
        "depth": (curve,),
        "exits": make_exits(trained, level),
        "provenance": provenance("cpu", 1),
    }
    return ModelEvaluation(**{**values, **changes})


def around(mean: float, half: float | None = 0.02) -> Interval:
    """With an interval, or without."""
    return Interval(mean) if half is None else Interval(mean, mean - half, mean + half)


def make_comparison(names: Sequence[str], half: float | None = 0.02, **changes: Any) -> Comparison:
    """Condition n is 0.015·n bits per byte worse than the first, so that neighbours are not separated."""
    words: tuple[Beyond, ...] = ("hurts", "holds", "helps", "unclear")
    verdicts = tuple(
        DepthVerdict(name, 4, 3, around(4, half and 0.5), around(3, half and 0.4), around(6, half and 1.0),
                     words[place % 4], around(0.1 - 0.05 * place, half), f"made up: {words[place % 4]}")
        for place, name in enumerate(names)
    )  # fmt: skip
    pairs = [(one, other) for one in range(len(names)) for other in range(one + 1, len(names))]
    differences = tuple(
        Difference(names[a], names[b], loop, around(0.015 * (b - a), half), None if half is None else 0.01 / (b - a),
                   None if half is None else 0.06 / (b - a), half is not None and 0.015 * (b - a) > half, 3)
        for loop in (1, 4, 12) for a, b in pairs
    )  # fmt: skip
    options = tuple(
        Option(name, loop, around(1.9 + 0.015 * place + 0.4 / loop, half), 1e6 * loop * (1 + place),
               2e-5 * loop * (1 + place), place == 0, place == 0 and loop < 5)
        for place, name in enumerate(names) for loop in range(1, 7)
    )  # fmt: skip
    looped, deep = 1_065_600, 2_200_000
    matched = (
        Matched(names[0], 4, "looped", looped, 1e13, 5e6, around(1.9, half), None, False),
        Matched(
            "unlooped", 1, "same parameters", looped, 4e12, 2e6, around(2.0, half), around(0.1, half), True
        ),
        Matched(
            "unlooped, deep",
            1,
            "same FLOPs",
            deep,
            1e13,
            5e6,
            around(1.89, half),
            around(-0.01, half),
            False,
        ),
    )
    values: dict[str, Any] = {
        "conditions": tuple(names),
        "verdicts": verdicts,
        "differences": differences,
        "options": options,
        "matched": matched,
        "sentences": ("made up: the data does not separate two of them",),
        "notes": ("made up, not measured",),
        "provenance": provenance(),
    }
    return Comparison(**{**values, **changes})


def broken_evaluation(condition: str = "made/broken", seed: int = 0) -> ModelEvaluation:
    """Where no number is finite, and nothing could be met."""
    nothing = tuple(replace(quality(k, math.nan), l2_norm=math.inf) for k in range(1, 9))
    lost = ExitPoint(math.nan, math.nan, math.inf, math.inf, math.nan, (math.nan,) * 4)
    unmet = Calibration(
        "kl", "sequence", "perplexity", 1.01, False, None, None, None, None, lost, (3, 3), "made up"
    )
    slow = Speed("kl", "sequence", None, 1, 8, math.nan, (), (), math.nan, math.nan, None, 1, "cpu")
    curve = ExitCurve("kl", "sequence", ("logits",), False, (lost, lost))
    return make_evaluation(
        condition,
        seed,
        depth=(DepthCurve("at depth", nothing, ()),),
        exits=ExitEvaluation((lost,) * 4, (curve,), (unmet,), (slow,)),
    )


def looks_for(comparison: Comparison, *first: str) -> Looks:
    """The looks of a page that has this comparison, after conditions of its own."""
    return Looks([*((name, None) for name in first), *evaluated_conditions((), comparison)])


def groups_of(*evaluations: ModelEvaluation, comparison: Comparison | None = None) -> list[Group]:
    return make_groups(evaluations, [], comparison)


def section_of(*evaluations: ModelEvaluation, comparison: Comparison | None = None) -> EvaluationSection:
    section = build_evaluation_section(EvaluationFiles(evaluations, comparison, ()), [])
    assert section is not None
    return section


def whole() -> EvaluationSection:
    models = [make_evaluation(name, seed) for name in ("a", "b") for seed in range(3)]
    return section_of(*models, comparison=make_comparison(("a", "b")))


def named(figure: Figure, name: str, panel: int = 0) -> Series:
    (found,) = [s for s in figure.series if s.name == name and s.panel == panel and not s.guide]
    return found


def curve_of(losses: Sequence[float], trained: int = 1) -> Group:
    entries = tuple(
        replace(entry, loss=loss)
        for entry, loss in zip(make_curve(len(losses)).per_loop, losses, strict=True)
    )
    return groups_of(make_evaluation(depth=(DepthCurve("at depth", entries, ()),), trained=trained))[0]
