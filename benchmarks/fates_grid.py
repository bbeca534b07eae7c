"""The runs that a prognosis of depth is fitted and tested on: what each trains, in which group, with which seeds.

`narrow` runs are fitted on and tested with, `laptop`, `depths` and `flops` runs only tested with, by constants that
were fixed before. All have 2 layers and 64 tokens of a vocabulary of 1,024 that loses nothing; K is 4, in `depths` 2
and 8. Weights start small, but for four conditions of laptop size whose names begin with `published`. `sampled` and
`curriculum` draw depths with a mean of K, so that training costs what it does at a fixed K; `jacobian` and `shortcut`
cost more, which `loopscope plan` says; `flops` runs (`fates_flops`) are as long as makes all cost the same.

Which narrow runs are fitted on was written down before any of them had ended: `FITTED_ON`, seeds below `FITTED_SEEDS`.
The rest is for the test: conditions and families that the fit never saw, and a third seed of those that it saw.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from benchmarks.fates_entries import SHAPES, Entry, anchor, draw, penalty, published
from benchmarks.fates_flops import equal_flops

CLAIMED = (
    "dense/rmsnorm",
    "dense/raw",
    "dense/final-only",
    "dense/rmsnorm+penalty",
    "dense/rmsnorm+interloop",
)
"""Have five seeds at laptop size: whether control of scale gives a lower loss at matched depth hangs on them."""


FITTED_ON = (
    *("dense/rmsnorm", "dense/raw", "dense/final-only", "dense/alpha", "dense/rmsnorm+penalty"),
    *("dense/rmsnorm+interloop", "terminal/rmsnorm", "damping", "injection"),
    *("sampled-dense", "curriculum", "dense-then-terminal", "jacobian"),
    *("penalty-1e-5", "penalty-1e-3", "penalty-1e-1", "terminal/raw"),
    *("published-rmsnorm", "published-raw"),
)
FITTED_SEEDS = 2


_STARTS = {
    "published-rmsnorm": published("dense/rmsnorm"),
    "published-raw": published("dense/raw"),
    "published-penalty": published("dense/rmsnorm+penalty"),
    "published-terminal": published("terminal/rmsnorm"),
}


_AT_OTHER_DEPTHS = (
    *("dense/rmsnorm", "dense/raw", "dense/rmsnorm+penalty", "dense/rmsnorm+interloop", "terminal/rmsnorm"),
    *("ouro", "huginn", "parcae"),
)
OTHER_DEPTHS = (2, 8)
"""K of the `depths` study."""


def _at_depth(condition: str, loops: int, depth: Mapping[str, Any] | None = None) -> Entry:
    """A trained depth that no fitted run has; `depth` draws those of training steps.

    A deep one has one seed, and is asked at its second loop, too, where more loops are still to come.
    """
    training = {} if depth is None else {"training": {"depth": depth}}
    change = {"condition": condition, "model": {"loops": loops}, **training}
    deep = loops == max(OTHER_DEPTHS)
    return Entry(f"K {loops}", 1 if deep else 2, change, asked_at=min(OTHER_DEPTHS) if deep else None)


def _other_depths() -> dict[str, Entry]:
    """Trained depths of 2 and 8, and models whose steps were far deeper than the K that they say they have."""
    drawn = replace(
        _at_depth("terminal/rmsnorm", 2, {"distribution": "uniform", "low": 1, "high": 12}), group="drawn"
    )
    recurrent = replace(
        _at_depth("huginn", 2, {"distribution": "lognormal-poisson", "mean": 6, "backprop": 8}), group="drawn"
    )
    return {
        **{
            f"loops-{loops}-{condition}": _at_depth(condition, loops)
            for loops in OTHER_DEPTHS
            for condition in _AT_OTHER_DEPTHS
        },
        "drawn-deeper-terminal": drawn,
        "drawn-deeper-huginn": recurrent,
    }


def grid(size: str, steps: int | None = None) -> dict[str, Entry]:
    """Return every condition of a study by name, in the order in which it is trained."""
    steps = steps or SHAPES[size].steps
    if size == "depths":
        return _other_depths()
    if size == "flops":
        return equal_flops(steps)
    return {
        **{
            name: Entry("condition", 5 if size == "laptop" and name in CLAIMED else 3)
            for name in (
                *("dense/rmsnorm", "dense/raw", "dense/final-only", "dense/layernorm", "dense/alpha"),
                *("dense/rmsnorm+penalty", "dense/rmsnorm+interloop", "terminal/rmsnorm"),
            )
        },
        "anchored": Entry("condition", 3, anchor(0.1)),
        "damping": Entry("condition", 3, {"model": {"carry": ["damping"]}}),
        "decay": Entry("condition", 3, {"model": {"carry": ["decay"], "injection": {"kind": "write"}}}),
        "injection": Entry("condition", 3, {"model": {"injection": {"kind": "add"}}}),
        **(_STARTS if SHAPES[size].starts else {}),
        "sampled-dense": draw("dense/rmsnorm", steps, depth="sampled"),
        "sampled-terminal": draw("terminal/rmsnorm", steps, depth="sampled"),
        "curriculum": draw("dense/rmsnorm", steps, depth="curriculum"),
        "dense-then-terminal": Entry(
            "draw",
            2,
            {
                "model": {"readout": {"kind": "rmsnorm"}},
                "objective": {"schedule": [{"until": 0.7, "placement": "dense"}, {"placement": "terminal"}]},
            },
        ),
        "shortcut": draw("terminal/rmsnorm", steps, objective={"shortcut": {"weight": 0.1}}),
        "jacobian": draw("dense/rmsnorm", steps, objective={"jacobian": {"weight": 0.1}}),
        **{
            name: Entry("family", 2)
            for name in ("ouro", "huginn", "parcae", "loopformer", "deeploop", "hybrid")
        },
        "penalty-1e-5": penalty(1e-5),
        "penalty-1e-4": penalty(1e-4),
        "penalty-1e-3": penalty(1e-3),
        "penalty-1e-1": penalty(1e-1),
        "anchored-strong": Entry("weight", 1, anchor(1.0)),
        "terminal/raw": Entry("condition", 1),
    }


def part(condition: str, seed: int) -> str:
    """Return what a run is for: `fit`, or of the test `unseen seed`, `unseen condition` or `unseen family`."""
    if grid("laptop")[condition].group == "family":
        return "unseen family"
    if condition not in FITTED_ON:
        return "unseen condition"
    return "fit" if seed < FITTED_SEEDS else "unseen seed"


def variants(size: str, steps: int | None = None) -> dict[str, Mapping[str, Any]]:
    """Return what the study's own conditions change, by name."""
    return {name: entry.change for name, entry in grid(size, steps).items() if entry.change is not None}


def rounds(size: str) -> Iterator[tuple[int, list[str]]]:
    """Yield a seed and the conditions that have it, so that every condition is there once before any is there twice."""
    entries = grid(size)
    for seed in range(max(entry.seeds for entry in entries.values())):
        yield seed, [name for name, entry in entries.items() if entry.seeds > seed]
