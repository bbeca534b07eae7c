"""Models of every kind a lens looks into, and what plain hooks see in their own forwards."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import loopscope
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import AbstractLoopedLM
from tests.interop.fixtures import IDS, Plain
from tests.interop.foreign.families.fixtures import hrm, hrm_at
from tests.interop.lookalikes import OuroForCausalLM
from tests.model.fixtures import TINY

DEPTH = 4


def dory(**settings: Any) -> nn.Module:
    if not hasattr(transformers, "DoryConfig"):
        pytest.skip(f"transformers {transformers.__version__} has no Dory")
    sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
    heads = {"head_dim": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    loops = {"n_input_layers": 1, "n_output_layers": 1, "n_recurrent_loops": 3, "sliding_window": 8}
    config = transformers.DoryConfig(**{**sizes, **heads, **loops, **settings})
    module = transformers.DoryForCausalLM(config)
    with torch.no_grad():
        for layer in module.model.layers:  # rates differ by channel, as trained ones do
            layer.lambda_1 *= 0.5 + torch.rand(32)
            layer.lambda_2 *= 0.5 + torch.rand(32)
    return module


def dory_at(module: Any, loops: int) -> Tensor:
    module.config.n_recurrent_loops = loops
    return module(IDS, use_cache=False).logits


def ouro_at(module: Any, loops: int) -> Tensor:
    module.model.total_ut_steps = loops
    return module(IDS).logits


def plain_at(module: Any, loops: int) -> Tensor:
    module.config.loops = loops
    return module(IDS)


def own_at(module: Any, loops: int) -> Tensor:
    return list(loopscope.unroll(module, IDS, loops))[-1].logits()


def hrm_layers(module: Any) -> list[nn.Module]:
    return [*module.model.L_module.layers, *module.model.H_module.layers]


@dataclass(frozen=True)
class LensCase:
    """A module, the looped model around it, its layers, and its own forward at a depth."""

    make: Callable[[], Any]
    adapted: Callable[[Any], AbstractLoopedLM]
    layers: Callable[[Any], list[nn.Module]]
    at: Callable[[Any, int], Tensor]
    names: tuple[str | None, ...] = ("self_attn", "mlp")  # attention and feed-forward
    middle: tuple[str, str] | None = None  # the child, and whether its input or its output


def own(**settings: Any) -> LensCase:
    post = settings.get("block", {}).get("placement") == "post"
    return LensCase(
        lambda: LoopedTransformer(ModelConfig(**{**TINY, "vocabulary": 40, **settings})),
        lambda module: module,
        lambda module: list(module.layers),
        own_at,
        ("attention", "feed_forward"),
        ("attention_norm", "output") if post else ("feed_forward_norm", "input"),
    )


LENS_CASES = {
    "own": own(),
    "own, sandwich, gate": own(block={"placement": "sandwich"}, exit_gate=True, carry=["rmsnorm"]),
    "own, sandwich-sum": own(block={"placement": "sandwich-sum"}, prelude=1, coda=1, injection="add"),
    "own, post": own(block={"placement": "post", "norm": "layernorm"}),
    "own, gains": own(block={"scaling": "1/N"}),
    "dory": LensCase(
        dory,
        loopscope.adapt,
        lambda module: list(module.model.layers[1:3]),
        dory_at,
        middle=("pre_feedforward_layernorm", "output"),
    ),
    "hrm": LensCase(hrm, loopscope.adapt, hrm_layers, hrm_at, middle=("post_attention_layernorm", "input")),
    "ouro": LensCase(
        OuroForCausalLM,
        loopscope.adapt,
        lambda module: list(module.model.layers),
        ouro_at,
        middle=("post_attention_layernorm", "input"),
    ),
    "ouro, tuples": LensCase(
        lambda: OuroForCausalLM(returns_tuple=True),
        loopscope.adapt,
        lambda module: list(module.model.layers),
        ouro_at,
        middle=("post_attention_layernorm", "input"),
    ),
    "wrapped": LensCase(
        Plain,
        lambda module: loopscope.wrap(module, "layers", set_loops="config.loops"),
        lambda module: list(module.layers),
        plain_at,
        (None, None),
    ),
}


@cache
def lens_case(name: str) -> tuple[LensCase, Any, AbstractLoopedLM]:
    """A case with its module and the looped model around it, made once."""
    case = LENS_CASES[name]
    torch.manual_seed(0)
    module = case.make().eval()
    return case, module, case.adapted(module)


def tensor_of(value: Any) -> Tensor:
    return value[0] if isinstance(value, tuple) else value


def called_with(args: Any, kwargs: Any) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def caught(parts: Sequence[nn.Module], run: Callable[[], Any]) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Every call of these parts in a run, by plain hooks: the part, its input, its output."""
    found: list[tuple[nn.Module, Tensor, Tensor]] = []

    def hook(part: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        found.append((part, called_with(args, kwargs).clone(), tensor_of(output).clone()))

    with ExitStack() as stack, torch.no_grad():
        for part in parts:
            stack.callback(part.register_forward_hook(hook, with_kwargs=True).remove)
        run()
    return found


def replaced(part: nn.Module, call: int, side: str, state: Tensor, run: Callable[[], Tensor]) -> Tensor:
    """What a run gives with the input or the output of one call (from 0) of a part replaced, by a plain hook."""
    calls: list[int] = []

    def before(part: nn.Module, args: Any, kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) != call + 1:
            return None
        return ((state, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": state})

    def after(part: nn.Module, args: Any, output: Any) -> Any:
        calls.append(1)
        if len(calls) != call + 1:
            return output
        return (state, *output[1:]) if isinstance(output, tuple) else state

    if side == "input":
        handle = part.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = part.register_forward_hook(after)
    try:
        with torch.no_grad():
            return run()
    finally:
        handle.remove()
