"""What one condition of the study of depth is, and what all runs of one of its parts have beside their condition."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RECIPE = "small"


@dataclass(frozen=True)
class Shape:
    """What all runs of one study have beside their condition."""

    dim: int
    heads: int
    steps: int
    precision: str
    compile: bool
    starts: bool  # whether conditions from the published start are among them


SHAPES = {
    "narrow": Shape(64, 2, 240, "auto", compile=False, starts=False),
    "laptop": Shape(128, 4, 600, "fp32", compile=True, starts=True),
    "depths": Shape(128, 4, 600, "auto", compile=True, starts=False),
    "flops": Shape(128, 4, 600, "auto", compile=True, starts=False),
}


@dataclass(frozen=True)
class Entry:
    """One condition of the grid.

    Attributes:
        group: condition, weight, family, draw or start.
        seeds: how many are trained.
        change: what it is, where no condition has its name.
        asked_at: another depth than the trained one that it is measured at, too.
    """

    group: str
    seeds: int
    change: Mapping[str, Any] | None = None
    asked_at: int | None = None


def penalty(weight: float) -> Entry:
    return Entry(
        "weight", 1, {"condition": "dense/rmsnorm+penalty", "objective": {"norm_penalty": {"weight": weight}}}
    )


def anchor(weight: float) -> Mapping[str, Any]:
    return {"condition": "dense/rmsnorm", "objective": {"scale_anchor": {"weight": weight, "target": 1.0}}}


EVENLY: Mapping[str, Any] = {"depth": {"distribution": "uniform", "low": 1, "high": 7}}
"""Depths drawn with a mean of 4, the K of these runs."""


def growing(steps: int) -> dict[str, Any]:
    """Depths from 1 to 7 over so many steps: the same mean."""
    return {"depth": {"distribution": "fixed", "mean": 7, "curriculum": steps}}


def draw(condition: str, steps: int, **change: Any) -> Entry:
    """`steps` fill in a curriculum's length: it grows over the whole run."""
    depth = change.pop("depth", None)
    if depth == "curriculum":
        change["training"] = growing(steps)
    elif depth == "sampled":
        change["training"] = EVENLY
    return Entry("draw", 2, {"condition": condition, **change})


def published(condition: str) -> Entry:
    """Embeddings from N(0, 1), as the paper has them."""
    return Entry("start", 2, {"condition": condition, "model": {"initialisation": "published"}})


def settings(size: str, steps: int | None = None) -> dict[str, Any]:
    """Return what all runs of a study have beside their condition."""
    shape = SHAPES[size]
    return {
        "model": {"dim": shape.dim, "heads": shape.heads, "sequence": 64, "vocabulary": 1024},
        "data": {"tokenizer": {"kind": "bpe", "vocabulary": 1024}},
        "training": {
            "steps": steps or shape.steps,
            "threads": 1,
            "batch": 8,
            "compile": shape.compile,
            "precision": shape.precision,
            "evaluate_every": None,
            "final_windows": 64,
            "checkpoint_every": None,
        },
    }
