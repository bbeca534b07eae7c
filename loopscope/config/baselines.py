"""Compute-matched baselines: what the same parameters, or the same FLOPs, are worth without looping.

A baseline is a condition, as a family is (`--conditions dense/raw,unlooped,unlooped-deep`), and its shape is a
function of the looped model's: what `--model.layers` and `--model.loops` say is the looped model that it is matched
to. It runs one loop, reads it once, and starts as the size says, like the plain conditions beside it.

unlooped       the layers once: the looped model's parameters, a K-th of its layers' FLOPs
unlooped-deep  K × layers of their own: the looped model's inference FLOPs, K times its layers' parameters

In training a dense loss reads every loop, a baseline one: with the same layers' FLOPs it has K - 1 readouts fewer.
Layers before and after the loops (prelude, coda) are kept as they are: they run once in the looped model too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loopscope.config.families import Change


@dataclass(frozen=True)
class Baseline:
    """One way of matching a looped model by one that does not loop."""

    matches: str  # what is equal
    differs: str  # what then is not
    layers: Callable[[int, int], int]  # of the looped model's layers and loops
    source: str = "as Saunshi et al., Reasoning with Latent Thoughts (arXiv 2502.17416) compare looped models"
    sizes: tuple[str, ...] = ("published-44m", "published-129m")


BASELINES: Mapping[str, Baseline] = {
    "unlooped": Baseline(
        matches="the looped model's parameters",
        differs="its layers run once: a K-th of the layers' FLOPs",
        layers=lambda layers, loops: layers,
    ),
    "unlooped-deep": Baseline(
        matches="the looped model's inference FLOPs",
        differs="K times the layers' parameters; a dense loss on the looped model reads K exits, this one reads 1",
        layers=lambda layers, loops: layers * loops,
    ),
}


def baseline_change(name: str, model: Change, condition: Change | None = None) -> dict[str, Any]:
    """Return what a baseline changes in the run of a looped model.

    Args:
        model: the looped model's `layers` and `loops`.
        condition: whose loss and readout it has; None: the last (and only) loop's cross-entropy through an RMSNorm.

    Raises:
        ValueError: a condition that is about what happens between loops.
    """
    if condition is not None and condition["model"]["carry"]:
        raise ValueError(
            f"{name} runs one loop, so the condition's carry {list(condition['model']['carry'])} between loops has "
            f"nothing to act on; name a condition without one, or {name} alone"
        )
    section: dict[str, Any] = {"readout": {"kind": "rmsnorm"}, "carry": []}
    objective: Change = {"placement": "terminal"}
    if condition is not None:
        section["readout"], objective = dict(condition["model"]["readout"]), condition["objective"]
    layers, loops = model["layers"], model["loops"]
    whole = all(isinstance(count, int) and not isinstance(count, bool) for count in (layers, loops))
    # Counts that are none are left for the config to refuse, by name.
    fits = whole and min(layers, loops) > 0
    section["layers"] = BASELINES[name].layers(layers, loops) if fits else layers
    section["loops"] = 1 if fits else loops
    return {"model": section, "objective": dict(objective)}


def asked_of_the_looped(over: Change) -> dict[str, Any]:
    """Return the settings of `over` that a baseline takes as they are: not the looped model's layers, loops and depth.

    What a study says of these is the looped conditions' affair, and no contradiction to a baseline beside them.
    """
    answered = {"model": ("layers", "loops"), "training": ("depth",)}
    return {
        key: {name: entry for name, entry in value.items() if name not in answered.get(key, ())}
        if isinstance(value, Mapping)
        else value
        for key, value in over.items()
    }
