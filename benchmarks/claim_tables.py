"""The tables of the claim's page: what every condition reached, and which differences hold over seeds."""

import math
from collections.abc import Sequence

from benchmarks.claim_rows import Row
from benchmarks.environment import interval_text, markdown
from loopscope.evaluation.statistics import Spread, holm
from loopscope.results.student_t import SEEDS_NEEDED, over_seeds, over_seeds_of

BLIND = "dense/rmsnorm"
UNLOOPED = "unlooped-deep"
EQUAL = f"{UNLOOPED}, equal FLOPs"
"""The model without loops that was trained for more tokens, to the FLOPs of the blind looped one."""
Conditions = dict[str, dict[int, Row]]
"""By condition, and by seed."""
Group = tuple[str, str, float, int]
"""Size, start, learning rate and tokens."""


def tables(rows: Sequence[Row]) -> str:
    """Return what was reached and the differences, for every size, number of tokens, start and learning rate."""
    blocks = []
    for (size, start, rate, tokens), conditions in grouped(rows).items():
        blocks.append(f"{size}, {start} start, {tokens / 1e6:.2f}M tokens a run, learning rate {rate:g}")
        blocks += [reached(conditions), differences(conditions)]
    return "\n\n".join(block for block in blocks if block)


def grouped(rows: Sequence[Row]) -> dict[Group, Conditions]:
    """Return runs that compare, by size, start, learning rate and tokens: each condition's by seed.

    The model without loops at equal FLOPs has tokens of its own and stands beside the looped ones of those FLOPs.
    """
    groups: dict[Group, Conditions] = {}
    for row in rows:
        group = groups.setdefault((row.size, row.start, row.learning_rate, row.tokens), {})
        group.setdefault(row.condition, {})[row.seed] = row
    for key, conditions in list(groups.items()):
        if set(conditions) == {UNLOOPED} and (home := _of_equal_flops(groups, key)) is not None:
            home[EQUAL] = groups.pop(key)[UNLOOPED]
    return groups


def _of_equal_flops(groups: dict[Group, Conditions], key: Group) -> Conditions | None:
    """Return the group of the blind looped runs whose FLOPs those of `key` have, within 1 %."""
    (flops,) = {row.training_flops for row in groups[key][UNLOOPED].values()}
    for other, conditions in groups.items():
        looped = {row.training_flops for row in conditions.get(BLIND, {}).values()}
        if other[:3] == key[:3] and any(math.isclose(each, flops, rel_tol=0.01) for each in looped):
            return conditions
    return None


def reached(conditions: Conditions) -> str:
    """One row a condition: nats per token by loop, bits per byte at the trained depth, norms."""
    lines = []
    for condition, seeds in conditions.items():
        runs = list(seeds.values())
        trained, deepest = runs[0].trained_loops, len(runs[0].losses)
        loops = sorted({1, 2, trained, deepest} & set(range(1, deepest + 1)))
        losses = [over_seeds_of("loss", [run.losses[loop - 1] for run in runs]).mean for loop in loops]
        norms = [over_seeds_of("l2_norm", [run.l2_norm[loop - 1] for run in runs]).mean for loop in loops]
        cells = [
            condition,
            str(len(runs)),
            " / ".join(map(str, loops)),
            " / ".join(f"{loss:.3f}" for loss in losses),
            interval_text(
                over_seeds_of("bits_per_byte", [run.bits_per_byte[trained - 1] for run in runs]), 3
            ),
            " / ".join(f"{norm:.3g}" for norm in norms),
            f"{runs[0].training_flops:.3g}",
        ]
        lines.append(cells)
    heads = [
        "condition",
        "seeds",
        "loops",
        "nats per token",
        "bits per byte at K",
        "L2 norm",
        "training FLOPs",
    ]
    return markdown(heads, lines)


def differences(conditions: Conditions) -> str:
    """At the trained depth, seed by seed: every condition less the blind one, and less the models without loops.

    p-values are those of a paired Student's t and are corrected together (Holm).
    """
    found = []
    for against in (BLIND, UNLOOPED, EQUAL):
        for condition, seeds in conditions.items():
            others = conditions.get(against, {})
            apart = paired(seeds, others)
            if condition in (against, UNLOOPED, EQUAL) or not apart:
                continue
            first = min(seeds.keys() & others.keys())
            flops = seeds[first].training_flops / others[first].training_flops
            found.append(
                (
                    f"{condition} - {against}",
                    apart,
                    flops,
                    spread.p() if (spread := spread_of(apart)) else None,
                )
            )
    corrected = iter(holm([p for *_, p in found if p is not None]))
    lines = [
        [
            name,
            str(len(apart)),
            f"{flops:.2f}",
            interval_text(over_seeds(apart), 3, sign=True),
            "" if p is None else f"{next(corrected):.3g}",
        ]
        for name, apart, flops, p in found
    ]
    heads = ["pair", "seeds", "training FLOPs, times", "nats per token at K", "corrected p"]
    return markdown(heads, lines) if lines else ""


def paired(seeds: dict[int, Row], others: dict[int, Row]) -> list[float]:
    """Return nats at the trained depth, less those of others, for every seed that both have."""
    return [
        at_trained(seeds[seed]) - at_trained(others[seed]) for seed in sorted(seeds.keys() & others.keys())
    ]


def at_trained(row: Row) -> float:
    """Loss at the trained depth."""
    return row.losses[row.trained_loops - 1]


def spread_of(values: Sequence[float]) -> Spread | None:
    """Over seeds alone; None from fewer than an interval asks for."""
    count = len(values)
    if count < SEEDS_NEEDED:
        return None
    mean = sum(values) / count
    deviation = math.hypot(*(value - mean for value in values)) / math.sqrt(count - 1)
    return Spread(mean, deviation / math.sqrt(count), over_windows=0.0, seeds=count, windows=2)
