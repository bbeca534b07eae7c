"""Models of repositories that no package index has: how each is built, opened and set to a depth, and its verdict."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.repository_builders import (
    blind_spot,
    elastic,
    fixed_points,
    huginn,
    loopformer,
    looplm,
    mixture,
    nanochat,
    open_elastic,
    ouro,
    parcae,
    reasoning,
)
from benchmarks.repository_code import OLDER, Repository
from loopscope.interop.foreign.families.named import equal_steps
from tests.interop.foreign.families.models import IDS, at_cycles, wrapped


def targets(ids: Tensor) -> dict[str, Tensor]:
    """Without these, some forwards give the last position alone."""
    return {"targets": ids}


def at_steps(name: str) -> Callable[[Any, int], Tensor]:
    """Logits of a forward that takes its depth under this name, and targets to give all logits."""
    return lambda module, loops: module(IDS, targets=IDS, **{name: loops})[0]


def at_attribute(name: str) -> Callable[[Any, int], Tensor]:
    """Last logits of the published class, set to a depth."""

    def own(module: Any, loops: int) -> Tensor:
        setattr(module, name, loops)
        return module(IDS)["final_logits"]

    return own


def huginn_at(module: Any, loops: int) -> Tensor:
    """Logits from a start state of zero."""
    start = torch.zeros(*IDS.shape, 32, dtype=module.lm_head.weight.dtype)
    return module(IDS, input_states=start, num_steps=torch.tensor([loops, 0])).logits


def pair_at(module: Any, loops: int) -> Tensor:
    """Logits of a training class, from a start state of zero."""
    module.initialize_state = lambda embedded: torch.zeros_like(embedded)
    return module(IDS, return_logits=True, num_steps_pair=torch.tensor([loops, 0]))["logits"]


def ouro_at(module: Any, loops: int) -> Tensor:
    """Logits after so many loops."""
    module.model.total_ut_steps = module.config.total_ut_steps = loops
    return module(IDS, use_cache=False).logits


def trained(loops: int) -> Sequence[int]:
    """No depth can be set."""
    return (loops,)


def no_deeper(loops: int) -> Sequence[int]:
    """Not beyond the trained depth."""
    return range(1, loops + 1)


def from_two(loops: int) -> Sequence[int]:
    """One loop alone does not run."""
    return range(2, 2 * loops + 1)


def recursed(**more: Any) -> dict[str, Any]:
    """How fixed-points is opened."""
    call = 'wrap(m, "transformer.rec_block", set_loops="rec_steps", loops=4, forward_kwargs=...)'
    opened = wrapped("transformer.rec_block", set_loops="rec_steps", loops=4, forward_kwargs=targets)
    return {"open": opened, "call": call, "depths": from_two, **more}


_LOOPLM, _FORMER, _SPOT = "rkstgr+LoopLM", "armenjeddi+loopformer", "Rituraj003+readout-blind-spot"
_TINY, _POINTS, _PARCAE = (
    "SamsungSAILMontreal+TinyRecursiveModels",
    "jaisidhsingh+fixed-points",
    "sandyresearch+parcae",
)
_NANO, _MIXTURE, _HUGINN = (
    "kschwethelm+looped_nanochat",
    "mingo-wu1+mixture_of_recursions",
    "seal-rg+recurrent-pretraining",
)


def looplm_at(module: Any, loops: int) -> Tensor:
    """Logits after so many steps."""
    return module(IDS, num_steps=loops).logits[-1]


def spot(
    variant: str, verdict: str, depths: Any = None, on_the_way: bool = True, **settings: Any
) -> Repository:
    """A variant of the published class."""
    found = {"depths": depths} if depths else {}
    return Repository(
        _SPOT,
        variant,
        blind_spot(**settings),
        at_attribute("num_loops"),
        verdict,
        on_the_way=on_the_way,
        root="src",
        **found,
    )


def tiny(variant: str, file: str, name: str, **settings: Any) -> Repository:
    """A variant of TinyRecursiveModels."""
    return Repository(_TINY, variant, reasoning(file, name, **settings), at_cycles, "removed", masks=False)


REPOSITORIES = (
    Repository(_LOOPLM, "standard", looplm(), looplm_at, "blind"),
    Repository(_LOOPLM, "post-norm", looplm(postnorm=True), looplm_at, "removed"),
    Repository(_LOOPLM, "experts", looplm(experts=True), looplm_at, "blind"),
    Repository(
        _FORMER,
        "loopformer",
        loopformer("loopformer"),
        lambda m, k: m(IDS, targets=IDS, **equal_steps(k))[0],
        "blind",
        on_the_way=False,
    ),
    *(
        Repository(
            _FORMER,
            name,
            loopformer(name),
            at_steps("steps"),
            "blind",
            wrapped("transformer.h", set_loops="steps", forward_kwargs=targets),
            'wrap(m, "transformer.h", set_loops="steps", forward_kwargs=...)',
        )
        for name in ("tmlt", "base_loop")
    ),
    Repository(_NANO, "", nanochat(), lambda m, k: m(IDS, num_recur=k)[0], "removed"),
    Repository(_NANO, "passthrough", nanochat("passthrough"), lambda m, k: m(IDS, num_recur=k)[0], "removed"),
    spot("rmsnorm", "blind"),
    spot("final-only", "visible", on_the_way=False, decode_norm_final_only=True),
    spot("norm between", "removed", inter_loop_norm=True),
    spot("raw", "visible", use_decode_norm=False),
    spot("alpha", "visible", decode_norm_type="alpha_readout"),
    spot(
        "alpha per loop",
        "visible",
        no_deeper,
        decode_norm_type="alpha_readout",
        per_loop_alpha=True,
    ),
    spot("damped", "damped", use_spectral_damping=True),
    Repository(
        _MIXTURE,
        "token choice",
        mixture(),
        lambda m, k: m(IDS)[0],
        "blind",
        wrapped("shared_blocks"),
        'wrap(m, "shared_blocks")',
        trained,
    ),
    tiny("trm", "trm", "TinyRecursiveReasoningModel_ACTV1"),
    tiny(
        "trm, mixer over tokens", "trm", "TinyRecursiveReasoningModel_ACTV1", mlp_t=True, pos_encodings="none"
    ),
    tiny("trm, states in bf16", "trm", "TinyRecursiveReasoningModel_ACTV1", forward_dtype="bfloat16"),
    tiny("hrm", "hrm", "HierarchicalReasoningModel_ACTV1", H_layers=2),
    Repository(_HUGINN, "", huginn, huginn_at, "removed", bare=("recpre",), transformers=OLDER),
    Repository(_PARCAE, "diagonal", parcae(), pair_at, "visible"),
    Repository(
        _PARCAE, "linear, softcap", parcae(injection_type="linear", logit_softcap=15.0), pair_at, "visible"
    ),
    Repository("LoopedLMs+ouro_rl", "", ouro, ouro_at, "removed", transformers=OLDER),
    Repository(
        "zapabob+elastic-looped-transformer",
        "",
        elastic,
        lambda m, k: m(IDS, L=k).logits,
        "blind",
        open_elastic,
        'wrap(m, "composite", readout="final_norm", head=..., set_loops="L", loops=4)',
        root="src",
    ),
    Repository(_POINTS, "pre-norm", fixed_points(), at_steps("rec_steps"), "visible", **recursed()),
    Repository(
        _POINTS, "post-norm", fixed_points(ln_type="post"), at_steps("rec_steps"), "removed", **recursed()
    ),
    Repository(
        _POINTS,
        "norm behind",
        fixed_points(only_rec_out_norm=True),
        at_steps("rec_steps"),
        "blind",
        **recursed(),
    ),
)
"""Every model that is built, in the order of the table."""
