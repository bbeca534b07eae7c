"""One layer: attention, then feed-forward, each added to the residual as the block's placement says.

pre           h + g·f(norm h). What it adds does not shrink as h grows: the source of the drift.
sandwich      h + g·norm f(norm h): what is added has a size of its own, and h still grows (Ouro, arXiv 2510.25741).
sandwich-sum  norm(h + g·f(norm h)): nothing of the scale leaves the layer (Huginn, arXiv 2502.05171).
post          norm(αh + g·f(h)): the same; α as in DeepNorm (arXiv 2203.00555) or DeepLoop (arXiv 2607.13491).
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscope.kv_cache import CacheRef
from loopscope.model.attention import CausalSelfAttention
from loopscope.model.config import ModelConfig
from loopscope.model.feed_forward import build_feed_forward
from loopscope.ops.dispatch import listened_to, own_operations
from loopscope.ops.dropout import Dropout, join, joins
from loopscope.ops.rms_norm import RMSNorm

Branch = Callable[..., Tensor]
"""Of a state, a loop, and the norm that the state passes first, if any."""


def residual_alpha(config: ModelConfig) -> float:
    """α: what the residual is multiplied by inside the norm that follows it. N is the unrolled depth."""
    match config.block.scaling:
        case "deepnorm":
            return (2 * config.depth) ** 0.25
        case "deeploop":
            return (2 * config.depth) ** 0.5
    return 1.0


def initial_beta(config: ModelConfig) -> float:
    """β: what the start values of values, outputs and feed-forward are multiplied by."""
    match config.block.scaling:
        case "deepnorm":
            return (8 * config.depth) ** -0.25
        case "deeploop":
            return (8 * config.depth) ** -0.5
    return 1.0


def residual_gain(config: ModelConfig) -> float:
    """g: gain of the shared layers' branches, from the trained loops N and layers L (arXiv 2606.18524)."""
    match config.block.scaling:
        case "1/N":
            return 1 / config.loops
        case "1/sqrt(N)":
            return config.loops**-0.5
        case "1/(N*sqrt(L))":
            return 1 / (config.loops * config.layers**0.5)
    return 1.0


def build_norm(config: ModelConfig, affine: bool = True) -> nn.RMSNorm | nn.LayerNorm:
    """A norm over channels, of the block's kind."""
    kind = RMSNorm if config.block.norm == "rmsnorm" else nn.LayerNorm
    return kind(config.dim, eps=config.norm_eps, elementwise_affine=affine)


class Layer(nn.Module):
    """A layer of the shared stack (`shared`), or one of the prelude or coda, which run once.

    With `modulation` (LoopFormer, Jeddi et al., ICLR 2026) the loop's condition gives each branch a gain on
    its normalised input and a gate on its output; the gates start at zero, so the layer starts as the identity.
    """

    def __init__(self, config: ModelConfig, shared: bool = True, valued: bool = False) -> None:
        super().__init__()
        block = config.block
        modulated = shared and config.loop_embedding == "modulation"
        self.placement = block.placement
        self.alpha = residual_alpha(config)
        self.gain = residual_gain(config) if shared else 1.0
        self.feed_forward_once = shared and config.looped == "attention"
        self.attention_norm = build_norm(config, affine=not modulated)
        self.attention = CausalSelfAttention(config, adapted=shared, valued=valued)
        self.feed_forward_norm = build_norm(config, affine=not modulated)
        self.feed_forward = build_feed_forward(config, adapted=shared)
        self.dropout = Dropout(config.dropout)
        two = block.placement in ("sandwich", "sandwich-sum")
        self.attention_norm_after = build_norm(config) if two else None
        self.feed_forward_norm_after = build_norm(config) if two else None
        self.modulation = nn.Linear(config.dim, 4 * config.dim) if modulated else None

    def forward(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        loop: int = 1,
        condition: Float[Tensor, " dim"] | None = None,
        cache: CacheRef | None = None,
        values: Float[Tensor, "batch seq width"] | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Run the layer in loop `loop`.

        Args:
            condition: what `modulation` turns into gates and gains.
            cache: keys and values of the tokens before, in generation.
            values: the tokens' value embeddings, in a layer that has them.
        """
        attention: Branch = self.attention
        if cache is not None or values is not None:
            attention = partial(self.attention, cache=cache, values=values)
        feed_forward: Branch = self.feed_forward
        if self.modulation is not None and condition is not None:
            gate_a, gate_f, scale_a, scale_f = self.modulation(condition).chunk(4)
            attention = _modulated(attention, gate_a, scale_a)
            feed_forward = _modulated(feed_forward, gate_f, scale_f)
        hidden = self._add(hidden, attention, loop, self.attention_norm, self.attention_norm_after)
        if self.feed_forward_once and loop > 1:
            return hidden
        norms = self.feed_forward_norm, self.feed_forward_norm_after
        return self._add(hidden, feed_forward, loop, *norms, drops=self.dropout.training)

    def remember(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        loop: int,
        condition: Tensor | None,
        cache: CacheRef,
        values: Tensor | None = None,
    ) -> None:
        """Keep the keys and values that attention would make of `hidden`, and run nothing else."""
        x = hidden if self.placement == "post" else self.attention_norm(hidden)
        if self.modulation is not None and condition is not None:
            x = x * (1 + self.modulation(condition).chunk(4)[2])
        self.attention.remember(x, loop, cache, values)

    def _add(
        self,
        hidden: Tensor,
        branch: Branch,
        loop: int,
        norm: nn.Module,
        after: nn.Module | None,
        drops: bool = False,
    ) -> Tensor:
        added = branch(hidden, loop, norm=None if self.placement == "post" else norm)
        known = not drops or (type(self.dropout) is Dropout and not listened_to(self.dropout))
        if self.placement == "pre" and self.gain == 1 and known:
            share = self.dropout.p if drops else 0.0
            if joins(hidden, added, share):
                return join(hidden, added, share)
        if drops:
            added = self.dropout(added)
        if self.placement == "sandwich" and after is not None:
            added = after(added)
        if self.gain != 1:
            added = self.gain * added
        match self.placement:
            case "pre" | "sandwich":
                # In place where nobody else has it: one block less between those that are kept.
                return added.add_(hidden) if self._own(added, hidden) else hidden + added
            case "sandwich-sum":
                assert after is not None
                return after(hidden + added)
            case _:
                return norm((hidden if self.alpha == 1 else self.alpha * hidden) + added)

    def _own(self, added: Tensor, hidden: Tensor) -> bool:
        alike = added.dtype == hidden.dtype and added.shape == hidden.shape
        if not (alike and added.requires_grad and torch.is_grad_enabled() and own_operations(added)):
            return False
        return not any(listened_to(module) for module in self.modules())


def _modulated(branch: Branch, gate: Float[Tensor, " dim"], scale: Float[Tensor, " dim"]) -> Branch:
    def run(x: Tensor, loop: int, norm: nn.Module | None) -> Tensor:
        normal = x if norm is None else norm(x)
        return gate * branch(normal * (1 + scale), loop)

    return run
