"""Which way the text of a model of others is made: over its family's own cache where that gives the text computed anew.

Nothing is taken on trust: on a small random batch, the cache's logits are compared with those of the whole text. Where
they differ by the family's design, the cache is used and a warning says so; where they differ otherwise, it is not.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopscope.generation.exits import ExitRule
from loopscope.generation.steps import AbstractSteps
from loopscope.generation.ways import AbstractTextWay, Anew, OverCache, text_way
from loopscope.guards import evaluating
from loopscope.interop.foreign.families.base import FamilyAdapter
from loopscope.interop.foreign.text.chained_model import ChainedModel, check_chain
from loopscope.interop.foreign.text.own_cache import OwnCacheSteps, has_own_generate
from loopscope.interop.foreign.text.whole_text import READ_FIRST, ForeignModel, WholeText
from loopscope.interop.foreign.tracing.forward_runs import repeatable
from loopscope.interop.foreign.tracing.traced_model import TracedModel

_NONE = "none"
"""The kind of cache that is none: the whole text is computed anew."""


class OwnCache(AbstractTextWay):
    """Text over the family's own cache, of rows that are as long as each other and leave at one depth."""

    ragged = mixed = False

    def __init__(self, model: ForeignModel, loops: int, kind: str | None, remark: str | None) -> None:
        self._model, self._loops, self._kind, self.remark = model, loops, kind, remark

    def steps(self, rule: ExitRule | None, pads: Int[Tensor, " rows"], capacity: int) -> AbstractSteps:
        return own_steps(self._model, self._loops, self._kind, capacity)


@text_way.register(FamilyAdapter)
@text_way.register(TracedModel)
def foreign_way(model: Any, loops: int, cache: bool | str, missing: str, exits: bool) -> AbstractTextWay:
    """Return the way that a text of a model of others is made: see `text_way`."""
    name, kind = type(model.module).__name__, cache if isinstance(cache, str) else None
    if not cache or kind == _NONE:
        return Anew(model, loops)
    if exits or not keeps_own_cache(model, loops):
        if kind is not None:
            why = (
                "exits per token and drafts have another one"
                if exits
                else f"{name} is no model of that library"
            )
            raise ValueError(
                f"cache is {kind!r}, a kind of cache that transformers makes, and {why}; leave it out"
            )
        chained = _chained(model)
        if isinstance(chained, ChainedModel):
            return OverCache(chained, loops, missing)
        if exits:
            raise ValueError(
                f"exits per token of {name}, and drafts, cannot keep keys and values per loop and layer: {chained}. "
                "Leave the exit rule (or the draft) out; with a rule the whole text can be computed anew for every "
                "token: cache=False (--no-cache)"
            )
        return Anew(model, loops, _anew(f"{name} keeps no keys and values that generation could read"))
    found = _checked(model, loops, kind)
    if found.error is not None and kind is not None:
        raise ValueError(f"cache is {kind!r}, and {name} cannot use it: {found.error}")
    if found.error is not None:
        return Anew(model, loops, _anew(f"the cache of {name} cannot be used ({found.error})"))
    if found.gap is None:
        return OwnCache(model, loops, kind, None)
    if (reason := cut_by_design(model.module)) is not None:
        remark = (
            f"the text of {name} depends on how it is cut into calls, by design ({reason}): with its cache it is the "
            "text of its own generate, not the one that is computed anew, which cache=False (--no-cache) gives"
        )
        return OwnCache(model, loops, kind, remark)
    return Anew(model, loops, _anew(f"with the cache of {name} {found.gap}"))


def keeps_own_cache(model: ForeignModel, loops: int) -> bool:
    """Return whether a model has a `generate` of transformers whose forward can be set to this depth."""
    if isinstance(model, FamilyAdapter):
        return has_own_generate(model.module) and model.at_depth(loops) is not None
    own = model.interceptor.own
    plain = not own.arguments and own.inputs is None and own.logits_at is None
    return plain and has_own_generate(model.module) and (bool(own.count) or loops == model.loops)


def own_steps(model: ForeignModel, loops: int, kind: str | None, capacity: int) -> OwnCacheSteps:
    """Return steps over the cache of the model's own `generate`."""

    def at_depth(loops: int) -> AbstractContextManager[Mapping[str, Any]]:
        if isinstance(model, TracedModel):
            return model.interceptor.own.count.at(loops)
        guard = model.at_depth(loops)
        assert guard is not None, "it was asked before"
        return guard

    return OwnCacheSteps(model.module, at_depth, loops, kind, capacity)


def cut_by_design(module: nn.Module) -> str | None:
    """Return the setting by which a family's logits depend on how a text is cut into calls; None where none does."""
    mode = getattr(getattr(module, "config", None), "recurrent_kv_cache_mode", None)
    return "recurrent_kv_cache_mode='last_loop'" if mode == "last_loop" else None


@dataclass(frozen=True)
class CacheCheck:
    """What a small batch showed of a cache.

    Attributes:
        gap: how its logits differ from those of the whole text, in words; None: they agree.
        error: what it said where it did not run; None: it ran.
    """

    gap: str | None = None
    error: str | None = None


class Findings(dict[Any, Any]):
    """What was found out of a model, kept with it. A copy has weights of its own, and starts empty."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Findings":
        return Findings()

    def __reduce__(self) -> tuple[type["Findings"], tuple[()]]:
        return Findings, ()


def _chained(model: ForeignModel) -> ChainedModel | str:
    """Return the model read layer by layer, checked once; or why it cannot be."""
    known: dict[str, ChainedModel | str] = model.__dict__.setdefault("chained", Findings())
    design = cut_by_design(model.module) or ""
    if design not in known:
        try:
            chained = ChainedModel(model)
            check_chain(chained)
            known[design] = chained
        except Exception as error:  # whatever a stranger's layer says of being called so
            said = " ".join(str(error).split())[:300]
            known[design] = said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}"
    return known[design]


def _checked(model: ForeignModel, loops: int, kind: str | None) -> CacheCheck:
    """What a check has shown, once for each depth and kind of cache."""
    known: dict[Any, CacheCheck] = model.__dict__.setdefault("checked_caches", Findings())
    design = cut_by_design(model.module)
    if (loops, kind, design) not in known:
        try:
            with evaluating(model.module), repeatable(model.module), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                known[loops, kind, design] = CacheCheck(gap=_gap(model, loops, kind))
        except Exception as error:  # whatever a stranger's cache says
            said = " ".join(str(error).split())[:200]
            known[loops, kind, design] = CacheCheck(error=f"{type(error).__name__}: {said}")
    return known[loops, kind, design]


@torch.no_grad()
def _gap(model: ForeignModel, loops: int, kind: str | None) -> str | None:
    """How the logits over the cache differ from those of the whole text, in words; None where they agree."""
    whole = WholeText(model, loops)
    ids, last = whole.ids, whole.ids.shape[1]
    # A static cache holds one token less than the text, and has to be longer than a window for the two to differ.
    steps = own_steps(model, loops, kind, max(last, *_windows(model.module)) + 2)
    steps.prefill(ids[:, : READ_FIRST - 1])
    places = torch.arange(READ_FIRST - 1, last, device=ids.device)
    read = torch.stack([steps.step(ids[:, place]).logits for place in places.tolist()], dim=1)
    return whole.difference(read, loops, places.expand(len(ids), -1))


def _windows(module: Any) -> Sequence[int]:
    """Lengths at which a cache may change its form: those of sliding windows, by their names in the config."""
    config: Any = getattr(module, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    settings = vars(config) if hasattr(config, "__dict__") else {}
    return [0, *(value for name, value in settings.items() if "window" in name and type(value) is int)]


def _anew(why: str) -> str:
    return (
        f"{why}, so the whole text is computed anew for every token; time grows with the square of the length"
    )
