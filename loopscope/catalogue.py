"""The catalogue of families: what each is at each of its sizes, computed from its config. Importable without torch."""

from dataclasses import dataclass

from loopscope.config import RunConfig
from loopscope.families import FAMILIES
from loopscope.model.cost import cost, shortcut_flops, training_flops
from loopscope.model.facts import holds_scale
from loopscope.recipes import recipe
from loopscope.static_audit import static_audit


@dataclass(frozen=True)
class CatalogueRow:
    """One family at one size."""

    family: str
    size: str
    parameters: int
    inference_flops_per_token: int  # every loop, the last exit, at the training window's length
    training_flops_per_token: int  # forward and backward at a step's mean depth: see `training_cost`
    loops: int
    cache_bytes_per_token: int  # keys and values of all loops, prelude and coda, in bf16
    holds_scale: str  # what in the architecture holds the state's scale
    verdict: str  # of the static audit under the family's own objective
    source: str


def catalogue(family: str | None = None) -> list[CatalogueRow]:
    """Rows by family and size, laptop first.

    Raises:
        ValueError: a family that is not known.
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"family {family!r} is not known; there are: {', '.join(FAMILIES)}")
    names = FAMILIES if family is None else [family]
    return [_row(name, size) for name in names for size in ("laptop", *FAMILIES[name].sizes)]


def _row(family: str, size: str) -> CatalogueRow:
    config = recipe(size, family)
    found = cost(config.model, number_bytes=2)
    return CatalogueRow(
        family=family,
        size=size,
        parameters=found.parameters,
        inference_flops_per_token=found.inference_flops,
        training_flops_per_token=training_cost(config),
        loops=config.model.loops,
        cache_bytes_per_token=found.cache_bytes_per_loop * config.model.loops + found.cache_bytes_fixed,
        holds_scale=holds_scale(config.model),
        verdict=static_audit(config).verdict,
        source=FAMILIES[family].source,
    )


def training_cost(config: RunConfig) -> int:
    """FLOPs per token of a training step at its mean depth: the loops its gradient goes through, the exits its loss
    reads, the shortcut's second exit.

    Not counted: what sequences that are done run on beside deeper ones (`depth.per_sequence`), what gradient
    checkpointing recomputes, and the Jacobian penalty.
    """
    model, objective, depth = config.model, config.objective, config.training.depth
    loops = max(1, round(depth.average(model.loops)))
    exits = 1 if objective.placement == "terminal" else loops
    by_token = config.objective.placement == "exit-weighted"
    flops = training_flops(model, model.sequence, loops, exits, depth.backprop, by_token)
    shortcut = objective.shortcut
    if shortcut.weight > 0 and loops > 1:
        flops += shortcut_flops(model, model.sequence, loops, heads=int(shortcut.loss_weight > 0))
    return flops
