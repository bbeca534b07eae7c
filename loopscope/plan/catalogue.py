"""The catalogue of families: what each is at each of its sizes, computed from its config. Importable without torch."""

from dataclasses import dataclass

from loopscope.config.baselines import BASELINES
from loopscope.config.families import Change
from loopscope.config.known_names import known
from loopscope.config.recipes import NAMED, recipe
from loopscope.plan.parameters import cost
from loopscope.plan.scale_facts import holds_scale
from loopscope.plan.static_audit import audit_config
from loopscope.plan.training_flops import training_cost


@dataclass(frozen=True)
class CatalogueRow:
    """One row of the catalogue: a family or baseline at one size."""

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


def catalogue_rows(family: str | None = None) -> list[CatalogueRow]:
    """Return the catalogue's rows by family and size, laptop first.

    Raises:
        ValueError: a family that is not known.
    """
    if family is not None:
        known("family", family, NAMED)
    names = NAMED if family is None else [family]
    return [_row(name, size) for name in names for size in ("laptop", *NAMED[name].sizes)]


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
        verdict=audit_config(config).verdict,
        source=NAMED[family].source,
    )


@dataclass(frozen=True)
class Match:
    """What a baseline shares with the plain looped model of a size. FLOPs are per token."""

    baseline: str
    size: str
    parameters: int
    parameters_looped: int
    inference_flops: int
    inference_flops_looped: int
    training_flops: int
    training_flops_terminal: int  # the looped model, its last loop read
    training_flops_dense: int  # and every loop read: K heads, where a baseline has one


def match(baseline: str, size: str, over: Change | None = None) -> Match:
    """Return a baseline beside the plain looped model that it is matched to.

    Args:
        over: values on top of the size, for both.
    """
    alone = recipe(size, baseline, over)
    terminal, dense = (recipe(size, name, over) for name in ("terminal/rmsnorm", "dense/rmsnorm"))
    own, looped = cost(alone.model), cost(dense.model)
    return Match(
        baseline=baseline,
        size=size,
        parameters=own.parameters,
        parameters_looped=looped.parameters,
        inference_flops=own.inference_flops,
        inference_flops_looped=looped.inference_flops,
        training_flops=training_cost(alone),
        training_flops_terminal=training_cost(terminal),
        training_flops_dense=training_cost(dense),
    )


def matches(family: str | None = None) -> list[Match]:
    """Return every baseline's match at each of its sizes; of one family, that one's, which are none where it loops."""
    names = [name for name in BASELINES if family in (None, name)]
    return [match(name, size) for name in names for size in ("laptop", *BASELINES[name].sizes)]
