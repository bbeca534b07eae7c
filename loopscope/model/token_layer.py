"""A layer as a cached step runs it: few tokens of every row, no gradient, and as few calls as that takes.

The formula is `Layer.forward`'s, on the same weights. What is left out is what a call of a module costs, and what a
layer asks anew every time. That is asked once a text (`TokenLayer.of`), and once a call whether anybody listens. Layers
that have more than this knows, or that somebody listens to, are called as ever: `run_cached` decides.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.hooks import any_has_hooks
from loopscope.kv_cache import AbstractKVCache, CacheRef
from loopscope.model.attention import CausalSelfAttention
from loopscope.model.feed_forward import Plain, SwiGLU
from loopscope.model.layer import Layer
from loopscope.model.rotary import RotaryTurns
from loopscope.ops.attention import attention
from loopscope.ops.dispatch import cpu_ops_apply, is_plain
from loopscope.ops.one_token import TokenNorm, full_turns, rotate_token
from loopscope.ops.rms_norm import RMSNorm

FEW_TOKENS = 16
"""New tokens of a row at most: of more, products are what takes the time, and the modules are as good."""
Norm = Callable[[Tensor], Tensor]


def run_cached(
    layer: nn.Module,
    hidden: Float[Tensor, "batch seq dim"],
    loop: int,
    condition: Float[Tensor, " dim"] | None,
    cache: CacheRef,
    value_embeddings: Float[Tensor, "batch seq width"] | None,
) -> Float[Tensor, "batch seq dim"]:
    """Run a layer over a cache: by `TokenLayer` where that may be, else by calling it."""
    if hidden.shape[1] <= FEW_TOKENS and condition is None and value_embeddings is None:
        short = cache.kv_cache.once_a_text(f"layer {id(layer)}", lambda: TokenLayer.of(layer, hidden))
        if short is not None and not short.observed():
            return short(hidden, loop, cache)
    return layer(hidden, loop, condition, cache, value_embeddings)


class TokenLayer:
    """A layer's weights and settings, read once a text.

    Args:
        modules: all whose work it does.
    """

    def __init__(
        self, layer: Layer, hidden: Float[Tensor, "rows seq dim"], modules: Sequence[nn.Module]
    ) -> None:
        self._modules, attend, branch = modules, layer.attention, layer.feed_forward
        self._placement, self._gain, self._alpha = layer.placement, layer.gain, layer.alpha
        self._feed_forward_once = layer.feed_forward_once
        self._qkv, self._out = _matrix(attend.qkv), _matrix(attend.out)
        self._heads = attend.heads, attend.key_value_heads, attend.head_dim
        self._window, self._turns = attend.settings.window, attend.turns if attend.rotary else None
        self._gate = _matrix(branch.gate) if isinstance(branch, SwiGLU) else None
        self._up, self._down = _matrix(branch.up), _matrix(branch.down)
        self._activation = None if isinstance(branch, SwiGLU) else branch.activation
        before, after = layer.attention_norm, layer.attention_norm_after
        self._attention_norms = _norm(before, hidden), None if after is None else _norm(after, hidden)
        before, after = layer.feed_forward_norm, layer.feed_forward_norm_after
        self._feed_forward_norms = _norm(before, hidden), None if after is None else _norm(after, hidden)

    @classmethod
    def of(cls, layer: nn.Module, hidden: Float[Tensor, "rows seq dim"]) -> "TokenLayer | None":
        """Return a layer in this form; None where a call of it does, or may show, more than this knows."""
        if type(layer) is not Layer or not cpu_ops_apply("one_token", hidden):
            return None
        attend, branch = layer.attention, layer.feed_forward
        if type(attend) is not CausalSelfAttention or type(branch) not in (SwiGLU, Plain):
            return None
        special = attend.query_norm, attend.qk_bias, attend.value_gate, layer.modulation
        if any(part is not None for part in special) or attend.attend is not attention:
            return None
        if attend.rotary and attend.rotated != attend.head_dim:
            return None
        if torch.is_grad_enabled() or torch.is_autocast_enabled(hidden.device.type):
            return None
        norms = layer.attention_norm, layer.attention_norm_after, layer.feed_forward_norm
        found = [norm for norm in (*norms, layer.feed_forward_norm_after) if norm is not None]
        gate = (branch.gate,) if isinstance(branch, SwiGLU) else ()
        matrices = attend.qkv, attend.out, *gate, branch.up, branch.down
        if not all(type(norm) in (RMSNorm, nn.LayerNorm) for norm in found) or not all(
            map(is_plain, matrices)
        ):
            return None
        if any(part.weight is not None and part.weight.dtype != hidden.dtype for part in (*found, *matrices)):
            return None
        short = cls(layer, hidden, [layer, attend, branch, layer.dropout, *found, *matrices])
        return None if short.observed() else short

    def observed(self) -> bool:
        """Return whether somebody listens to one of the modules, or has it do something else."""
        return any_has_hooks(self._modules)

    def __call__(
        self, hidden: Float[Tensor, "rows seq dim"], loop: int, cache: CacheRef
    ) -> Float[Tensor, "rows seq dim"]:
        """Return the state after the layer, as `Layer.forward` does."""
        seq = hidden.shape[1]
        h = hidden.squeeze(1) if seq == 1 else hidden.flatten(0, 1)
        norm, after = self._attention_norms
        h = self._added(h, self._attend(h if self._placement == "post" else norm(h), seq, cache), norm, after)
        if not (self._feed_forward_once and loop > 1):
            norm, after = self._feed_forward_norms
            h = self._added(h, self._feed_forward(h if self._placement == "post" else norm(h)), norm, after)
        return h.unsqueeze(1) if seq == 1 else h.view(hidden.shape)

    def _attend(
        self, x: Float[Tensor, "tokens dim"], seq: int, cache: CacheRef
    ) -> Float[Tensor, "tokens dim"]:
        heads, key_value_heads, head_dim = self._heads
        both = heads + key_value_heads
        rows = F.linear(x, *self._qkv)
        if seq == 1:
            rows = rows.view(len(x), both + key_value_heads, 1, head_dim)
        else:
            rows = rows.view(-1, seq, both + key_value_heads, head_dim).transpose(1, 2)
        kv_cache, turns = cache.kv_cache, self._turns
        if turns is None:
            query, key, value = rows.split([heads, key_value_heads, key_value_heads], dim=1)
        else:
            cos, sin = kv_cache.once(f"turns {id(turns)}", lambda: _turned_to(kv_cache, turns))
            turned = rotate_token(rows.narrow(1, 0, both), cos, sin)
            query, key = turned.narrow(1, 0, heads), turned.narrow(1, heads, key_value_heads)
            value = rows.narrow(1, both, key_value_heads)
        keys, values, mask, causal = kv_cache.extend(cache.slot, key, value, self._window)
        mixed = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=heads != key_value_heads
        )
        if seq > 1:
            mixed = mixed.transpose(1, 2)
        return F.linear(mixed.reshape(len(x), heads * head_dim), *self._out)

    def _feed_forward(self, x: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens dim"]:
        inner = F.linear(x, *self._up)
        if self._gate is not None:
            inner = F.silu(F.linear(x, *self._gate)).mul_(inner)
        elif self._activation is not None:
            inner = self._activation(inner)
        return F.linear(inner, *self._down)

    def _added(self, h: Tensor, added: Tensor, norm: Norm, after: Norm | None) -> Tensor:
        """The state with a branch's output, which is nobody else's, as `Layer._residual` adds it."""
        if self._placement == "sandwich" and after is not None:
            added = after(added)
        if self._gain != 1:
            added = added.mul_(self._gain)
        match self._placement:
            case "pre" | "sandwich":
                return added.add_(h)
            case "sandwich-sum":
                assert after is not None
                return after(added.add_(h))
            case _:
                return norm(added.add_(h if self._alpha == 1 else self._alpha * h))


def _matrix(module: nn.Linear) -> tuple[Tensor, Tensor | None]:
    return module.weight, module.bias


def _norm(module: nn.Module, like: Tensor) -> Norm:
    """What a norm's module does."""
    if isinstance(module, nn.LayerNorm):
        shape, weight, bias, eps = list(module.normalized_shape), module.weight, module.bias, module.eps
        return lambda x: F.layer_norm(x, shape, weight, bias, eps)
    assert isinstance(module, RMSNorm)
    return TokenNorm(module.weight, torch.finfo(like.dtype).eps if module.eps is None else module.eps, like)


def _turned_to(kv_cache: AbstractKVCache, turns: RotaryTurns) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines at the new tokens' positions, [rows 1 seq head_dim], from a table of the whole text."""
    here = kv_cache.positions.device

    def table() -> Tensor:
        return torch.stack(full_turns(*turns.angles(torch.arange(kv_cache.capacity, device=here))), dim=1)

    cos, sin = kv_cache.once_a_text(f"turns {turns} {here}", table)[kv_cache.positions].unbind(2)
    return cos.unsqueeze(1), sin.unsqueeze(1)
