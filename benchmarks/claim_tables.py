"""The tables of the claim's page: what every condition reached, and which differences hold over seeds."""

import math
from collections.abc import Sequence

from benchmarks.claim_rows import Row
from benchmarks.environment import interval_text, markdown
from loopscope.evaluation.statistics import Spread, holm
from loopscope.results.student_t import SEEDS_NEEDED, over_seeds, over_seeds_of

BLIND = "dense/rmsnorm"
UNLOOPED = "unlooped-deep"


def tables(rows: Sequence[Row]) -> str:
    """Return what was reached and the differences, for every size, number of tokens, start and learning rate."""
    blocks = []
    groups: dict[tuple[str, str, float, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.size, row.start, row.learning_rate, row.tokens), []).append(row)
    for (size, start, rate, tokens), group in groups.items():
        conditions: dict[str, dict[int, Row]] = {}
        for row in group:
            conditions.setdefault(row.condition, {})[row.seed] = row
        blocks.append(f"{size}, {start} start, {tokens / 1e6:.2f}M tokens a run, learning rate {rate:g}")
        blocks += [reached(conditions), differences(conditions)]
    return "\n\n".join(block for block in blocks if block)


def reached(conditions: dict[str, dict[int, Row]]) -> str:
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


def differences(conditions: dict[str, dict[int, Row]]) -> str:
    """At the trained depth, seed by seed: every condition less the blind one, and less the model without loops.

    p-values are those of a paired Student's t and are corrected together (Holm).
    """
    found = []
    for against in (BLIND, UNLOOPED):
        for condition, seeds in conditions.items():
            both = sorted(set(seeds) & set(conditions.get(against, {})))
            if condition in (against, UNLOOPED) or not both:
                continue
            apart = [at_trained(seeds[seed]) - at_trained(conditions[against][seed]) for seed in both]
            flops = seeds[both[0]].training_flops / conditions[against][both[0]].training_flops
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
