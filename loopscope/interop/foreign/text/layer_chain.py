"""Families whose layers can be called one by one over a cache of ours: which layers, and what is done between them.

    tokens -> prelude -> start -> (core, carry) per loop -> enter -> coda -> leave -> head

Each is the family's own part, as its forward uses it; that the chain computes what the forward does is checked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loopscope.interop.foreign.families.huginn import Huginn
from loopscope.interop.foreign.families.named import FOLLOWED
from loopscope.interop.foreign.families.ouro import Ouro
from loopscope.interop.foreign.tracing.traced_model import TracedModel

Map = Callable[[Tensor], Tensor]


def _same(state: Tensor) -> Tensor:
    return state


@dataclass(frozen=True)
class LayerChain:
    """A looped model as the layers that it calls, in order.

    Attributes:
        tokens: from ids to what the first layer receives.
        core: layers of the loop.
        carry: from H_k and the first loop's input to the next loop's input.
        leave: from the last layer's output, or H_k where there is no coda, to what the head reads.
        prelude: layers before the loops.
        start: from the prelude's output to the first loop's input.
        enter: from H_k to what the coda receives.
        coda: layers behind the loops.
        gate: the exit gate's logit of H_k; None: no gate.
    """

    tokens: Map
    core: Sequence[nn.Module]
    carry: Callable[[Tensor, Tensor], Tensor]
    leave: Map
    prelude: Sequence[nn.Module] = ()
    start: Map = _same
    enter: Map = _same
    coda: Sequence[nn.Module] = ()
    gate: Map | None = None

    @property
    def layers(self) -> list[nn.Module]:
        """All layers, in the order in which they are called first."""
        return [*self.prelude, *self.core, *self.coda]


def layer_chain(model: Any) -> LayerChain:
    """Return the chain of an adapted model.

    Raises:
        ValueError: a family that does not allow it: why.
    """
    module: Any = model.module
    if isinstance(model, Ouro):
        return _ouro(module)
    if isinstance(model, Huginn):
        return _huginn(module)
    known = (named.family for named in FOLLOWED if named.recognises(module))
    family: str = getattr(model, "family", None) or next(known, "")
    if isinstance(model, TracedModel) and family in _FOLLOWED_CHAINS:
        return _FOLLOWED_CHAINS[family](module)
    raise ValueError(_REASONS.get(family, _UNKNOWN))


def _ouro(module: Any) -> LayerChain:
    inner = module.model
    return LayerChain(
        tokens=inner.embed_tokens,
        core=list(inner.layers),
        carry=lambda hidden, first: inner.norm(hidden),
        leave=inner.norm,
        gate=lambda hidden: inner.early_exit_gate(inner.norm(hidden)).squeeze(-1),
    )


def _huginn(module: Any) -> LayerChain:
    parts, width = module.transformer, module.transformer.wte.embedding_dim
    adapter = parts.adapter
    if not isinstance(adapter, nn.Linear) or adapter.in_features != 2 * width:
        raise ValueError(
            f"its adapter is a {type(adapter).__name__}; only a linear one of state and input side by side can add the "
            "input of earlier tokens again"
        )

    def start(injected: Tensor) -> Tensor:
        mapped: Tensor = adapter(torch.cat([torch.zeros_like(injected), injected], dim=-1))
        return mapped

    def carry(hidden: Tensor, first: Tensor) -> Tensor:
        # The adapter is linear: the first loop's input, from a state of zeros, is what the injected input adds.
        return first + nn.functional.linear(hidden, adapter.weight[:, :width])

    return LayerChain(
        tokens=lambda ids: parts.wte(ids) * getattr(module, "emb_scale", 1.0),
        prelude=list(parts.prelude),
        start=start,
        core=list(parts.core_block),
        carry=carry,
        enter=parts.ln_f,
        coda=list(parts.coda),
        leave=parts.ln_f,
    )


def _dory(module: Any) -> LayerChain:
    config, inner = module.config, module.model
    if config.recurrent_kv_cache_mode == "last_loop":
        raise ValueError(
            "recurrent_kv_cache_mode='last_loop' has one slot per layer, of the last loop: earlier loops read what a "
            "token that leaves early never computes"
        )
    first, end = config.n_input_layers, config.n_input_layers + config.n_recurrent_layers
    return LayerChain(
        tokens=inner.embed_tokens,
        prelude=list(inner.layers[:first]),
        start=lambda hidden: (
            2 * inner.norm(hidden)
        ),  # the state is the input section's output, and it is added again
        core=list(inner.layers[first:end]),
        carry=lambda hidden, first: inner.norm(hidden) + first / 2,
        coda=list(inner.layers[end:]),
        leave=inner.norm,
    )


def _nanbeige(module: Any) -> LayerChain:
    inner, skips = module.model, bool(getattr(module.config, "skip_loop_final_norm", False))
    return LayerChain(
        tokens=inner.embed_tokens,
        core=list(inner.layers),
        carry=lambda hidden, first: hidden if skips else inner.norm(hidden),
        leave=inner.norm,
    )


def _looplm(module: Any) -> LayerChain:
    return LayerChain(
        tokens=module.embed,
        core=list(module.layers),
        carry=lambda hidden, first: hidden,
        leave=module.final_norm,
        gate=lambda hidden: module.exit_gate(hidden).squeeze(-1),
    )


_FOLLOWED_CHAINS: Mapping[str, Callable[[Any], LayerChain]] = {
    "Dory": _dory,
    "Nanbeige": _nanbeige,
    "LoopLM": _looplm,
}
_REASONS: Mapping[str, str] = {
    "HRM-Text": "the low stack's state goes from cycle to cycle beside H, and stops with a token that leaves",
    "Inkling-2 loop": "messages between the passes, and convolutions over earlier tokens, are kept beside them",
    "LoopCoder": "later loops read the first loop's keys and values, so the loops of earlier tokens are not apart",
    "Parcae": "its adapter decays the state by itself, which no cache here has been held to",
    "x-transformers (looped=True)": "its masks and positions are made inside its layers",
}
_UNKNOWN = "which layers it calls, and what it does between them, is known for Ouro, Huginn, Dory, Nanbeige and LoopLM"
