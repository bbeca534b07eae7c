"""What more loops were foretold to do, beside what they did: a line to 4K in the depth curve, and sentences."""

import math
from collections.abc import Sequence

from loopscope.report.evaluations.groups import Group
from loopscope.report.plots.figure import Series
from loopscope.results import ModelEvaluation


def foretold_lines(group: Group) -> list[Series]:
    """Return bits per byte from the trained depth to 2K and 4K as they were foretold of the first seed, with a band."""
    model = next((model for model in group.models if model.prognosis and model.prognosis.at), None)
    base = group.per_loop("bits_per_byte").get(group.trained)
    if model is None or base is None or not math.isfinite(base.mean) or base.mean <= 0:
        return []
    assert model.prognosis is not None
    points = [(row.loops, row.change, row.low, row.high) for row in model.prognosis.at]
    rows = [(group.trained, 0.0, 0.0, 0.0), *points]
    loops, middle, low, high = (tuple(column) for column in zip(*rows, strict=True))
    bits = [tuple(base.mean + _bits(nats, model) for nats in column) for column in (middle, low, high)]
    if not all(math.isfinite(value) and value > 0 for column in bits for value in column):
        return []
    return [
        Series(
            f"{group.name}, foretold",
            tuple(map(float, loops)),
            bits[0],
            group.color,
            "dot",
            low=bits[1],
            high=bits[2],
            in_legend=False,
        )
    ]


def foretold_sentences(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Return condition and what was foretold of its first seed that has a prognosis."""
    found = []
    for group in groups:
        told = next((model.prognosis for model in group.models if model.prognosis is not None), None)
        if told is not None:
            found.append((f"{group.name}, foretold:", f"{told.fate}. {told.why}"))
    return found


def _bits(nats: float, model: ModelEvaluation) -> float:
    return nats / math.log(2) / model.bytes_per_token
