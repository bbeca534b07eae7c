"""Modules of every known family, and what their own forward gives at a depth.

HRM-Text and x-transformers are the real packages; Huginn, Ouro and Parcae are lookalikes with their structure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from x_transformers import Decoder, TransformerWrapper

import loopscope
from loopscope.recurrence import AbstractLoopedLM
from tests.interop import lookalikes

VOCABULARY = 40

IDS = torch.arange(20).view(2, 10) * 7 % VOCABULARY

LABELS = (IDS * 3 + 1) % VOCABULARY


def hrm(**settings: Any) -> nn.Module:
    from transformers import HrmTextConfig, HrmTextForCausalLM  # not in every version that these tests run on

    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = HrmTextConfig(
        num_attention_heads=2,
        initializer_range=0.3,
        head_dim=16,
        **{**sizes, "H_cycles": 3, "L_cycles": 2, **settings},
    )
    return HrmTextForCausalLM(config)


def x_transformer(layers: dict[str, Any] | None = None, **settings: Any) -> nn.Module:
    decoder = Decoder(dim=32, depth=2, heads=2, attn_dim_head=16, pre_and_post_norm=True, **(layers or {}))
    return TransformerWrapper(
        num_tokens=VOCABULARY, max_seq_len=16, attn_layers=decoder, looped=True, **settings
    )


@dataclass(frozen=True)
class Case:
    """A family, a small module of it, and how to look into the module without the adapter."""

    make: Callable[[], Any]
    loops: int
    state: Callable[[Any], tuple[nn.Module, str]]  # the part whose input or output is H_k
    own: Callable[
        [Any, int], Tensor
    ]  # logits of the module's own forward at a depth, from a zero start state
    verdict: str


def hrm_at(module: Any, loops: int) -> Tensor:
    module.config.H_cycles = loops
    return module(IDS, use_cache=False).logits


def ouro_at(module: Any, loops: int) -> Tensor:
    module.model.total_ut_steps = module.config.total_ut_steps = loops
    return module(IDS).logits


def huginn_at(module: Any, loops: int) -> Tensor:
    start = torch.zeros(2, 10, 32, dtype=module.lm_head.weight.dtype)
    return module(IDS, input_states=start, num_steps=loops).logits


def parcae_at(module: Any, loops: int) -> Tensor:
    module.config.state_init = "zero"
    return module(IDS, return_logits=True, num_steps_pair=torch.tensor([loops, 0]))["logits"]


LAST_CORE = lambda module: (module.transformer.core_block[-1], "output")  # noqa: E731

CASES = {
    "hrm": Case(hrm, 3, lambda m: (m.model.H_module.final_norm, "input"), hrm_at, "removed"),
    "x-transformers": Case(
        x_transformer, 4, lambda m: (m.attn_layers, "output"), lambda m, k: m(IDS, looped_steps=k), "removed"
    ),
    "ouro": Case(lookalikes.OuroForCausalLM, 4, lambda m: (m.model.norm, "input"), ouro_at, "removed"),
    "ouro, layers give tuples": Case(
        lambda: lookalikes.OuroForCausalLM(returns_tuple=True),
        4,
        lambda m: (m.model.norm, "input"),
        ouro_at,
        "removed",
    ),
    "huginn": Case(lookalikes.RavenForCausalLM, 3, LAST_CORE, huginn_at, "removed"),
    "huginn, blocks give tuples": Case(
        lambda: lookalikes.RavenForCausalLM(returns_tuple=True), 3, LAST_CORE, huginn_at, "removed"
    ),
    # Not `damped`: the coda is a residual stack, through which the scale reaches the logits.
    "parcae": Case(lookalikes.Parcae, 4, LAST_CORE, parcae_at, "visible"),
    "parcae, softcap": Case(lambda: lookalikes.Parcae(softcap=3.0), 4, LAST_CORE, parcae_at, "visible"),
    "parcae, linear": Case(lambda: lookalikes.Parcae("linear"), 4, LAST_CORE, parcae_at, "visible"),
    "parcae, narrow": Case(lambda: lookalikes.Parcae(state_dim=16), 4, LAST_CORE, parcae_at, "visible"),
}

MAIN = ("hrm", "x-transformers", "ouro", "huginn", "parcae", "parcae, linear")

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())

each_family = pytest.mark.parametrize("case", [CASES[name] for name in MAIN], ids=MAIN)


def build(case: Case) -> tuple[Any, AbstractLoopedLM]:
    torch.manual_seed(0)
    try:
        module = case.make().eval()
    except ImportError as error:
        pytest.skip(str(error))
    return module, loopscope.adapt(module)


def captured(case: Case, module: Any, loops: int) -> tuple[list[Tensor], Tensor]:
    """H_k of every loop as hooks see them, and the logits, in the module's own forward."""
    part, side = case.state(module)
    states: list[Tensor] = []

    def hook(part: nn.Module, args: Any, output: Any) -> None:
        value = args[0] if side == "input" else output
        states.append(value[0] if isinstance(value, tuple) else value)

    handle = part.register_forward_hook(hook)
    try:
        with torch.no_grad():
            logits = case.own(module, loops)
    finally:
        handle.remove()
    return states, logits
