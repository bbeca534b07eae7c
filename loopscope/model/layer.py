"""One layer: attention, then feed-forward, each added to the residual as the block's placement says.

pre           h + g·f(norm h). What it adds does not shrink as h grows: the source of the drift.
sandwich      h + g·norm f(norm h): what is added has a size of its own, and h still grows (Ouro, arXiv 2510.25741).
sandwich-sum  norm(h + g·f(norm h)): nothing of the scale leaves the layer (Huginn, arXiv 2502.05171).
post          norm(αh + g·f(h)): the same; α as in DeepNorm (arXiv 2203.00555) or DeepLoop (arXiv 2607.13491).
"""

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from loopscope.kv_cache import CacheRef
from loopscope.model.attention import CausalSelfAttention
from loopscope.model.config import ModelConfig
from loopscope.model.feed_forward import build_feed_forward
from loopscope.ops.dropout import dropout_add
from loopscope.ops.rms_norm import RMSNorm

Branch = Callable[[Tensor], Tensor]
"""f: attention or feed-forward, of a state that has passed its norm."""


def residual_alpha(config: ModelConfig) -> float:
    """Return α, what the residual is multiplied by inside the norm that follows it. N is the unrolled depth."""
    match config.block.scaling:
        case "deepnorm":
            return (2 * config.depth) ** 0.25
        case "deeploop":
            return (2 * config.depth) ** 0.5
    return 1.0


def initial_beta(config: ModelConfig) -> float:
    """Return β, what the start values of values, outputs and feed-forward are multiplied by."""
    match config.block.scaling:
        case "deepnorm":
            return (8 * config.depth) ** -0.25
        case "deeploop":
            return (8 * config.depth) ** -0.5
    return 1.0


def residual_gain(config: ModelConfig) -> float:
    """Return g, the gain of the shared layers' branches, from the trained loops N and layers L (arXiv 2606.18524)."""
    match config.block.scaling:
        case "1/N":
            return 1 / config.loops
        case "1/sqrt(N)":
            return config.loops**-0.5
        case "1/(N*sqrt(L))":
            return 1 / (config.loops * config.layers**0.5)
    return 1.0


def build_norm(
    config: ModelConfig, affine: bool = True, for_matmul: bool = False
) -> nn.RMSNorm | nn.LayerNorm:
    """Return a norm over channels, of the block's kind.

    Args:
        for_matmul: what it returns goes into matmuls alone (see `RMSNorm`).
    """
    if config.block.norm == "layernorm":
        return nn.LayerNorm(config.dim, eps=config.norm_eps, elementwise_affine=affine)
    return RMSNorm(config.dim, config.norm_eps, affine, for_matmul)


class Layer(nn.Module):
    """A layer of the shared stack (`shared`), or one of the prelude or coda, which run once.

    With `modulation` (LoopFormer, Jeddi et al., ICLR 2026) the loop's condition gives each branch a gain on
    its normalised input and a gate on its output; the gates start at zero, so the layer starts as the identity.
    """

    def __init__(self, config: ModelConfig, shared: bool = True, valued: bool = False) -> None:
        super().__init__()
        block = config.block
        modulated = shared and config.loop_embedding == "modulation"
        adapted = shared and config.adapters.rank > 0
        to_matmul = block.placement != "post" and not modulated and not adapted
        self.placement = block.placement
        self.alpha = residual_alpha(config)
        self.gain = residual_gain(config) if shared else 1.0
        self.feed_forward_once = shared and config.looped == "attention"
        self.attention_norm = build_norm(config, not modulated, to_matmul and not valued)
        self.attention = CausalSelfAttention(config, adapted=shared, valued=valued)
        self.feed_forward_norm = build_norm(config, not modulated, to_matmul)
        self.feed_forward = build_feed_forward(config, adapted=shared)
        self.dropout = nn.Dropout(config.dropout)
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
        value_embeddings: Float[Tensor, "batch seq width"] | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Return the state after the layer, in loop `loop`.

        Args:
            condition: what `modulation` turns into gates and gains.
            cache: keys and values of the tokens before, in generation.
            value_embeddings: the tokens' value embeddings, in a layer that has them.
        """
        attend: Branch = partial(self.attention, loop=loop, cache=cache, value_embeddings=value_embeddings)
        feed_forward: Branch = partial(self.feed_forward, loop=loop)
        if self.modulation is not None and condition is not None:
            gate_a, gate_f, scale_a, scale_f = self.modulation(condition).chunk(4)
            attend = _modulated(attend, gate_a, scale_a)
            feed_forward = _modulated(feed_forward, gate_f, scale_f)
        hidden = self._residual(hidden, attend, self.attention_norm, self.attention_norm_after)
        if self.feed_forward_once and loop > 1:
            return hidden
        norms = self.feed_forward_norm, self.feed_forward_norm_after
        return self._residual(hidden, feed_forward, *norms, self.dropout)

    def remember(
        self,
        hidden: Float[Tensor, "batch seq dim"],
        loop: int,
        condition: Float[Tensor, " dim"] | None,
        cache: CacheRef,
        value_embeddings: Float[Tensor, "batch seq width"] | None = None,
    ) -> None:
        """Keep the keys and values that attention would make of `hidden`, and run nothing else."""
        x = hidden if self.placement == "post" else self.attention_norm(hidden)
        if self.modulation is not None and condition is not None:
            x = x * (1 + self.modulation(condition).chunk(4)[2])
        self.attention.remember(x, loop, cache, value_embeddings)

    def _residual(
        self,
        h: Float[Tensor, "batch seq dim"],
        f: Branch,
        norm: nn.Module,
        after: nn.Module | None,
        dropout: nn.Module | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """Return the state with a branch added, as the block's placement says. Dropout comes right after f."""
        if self.placement == "pre" and self.gain == 1:  # h + dropout(f(norm(h)))
            return dropout_add(h, f(norm(h)), dropout, self.modules())
        added = f(h if self.placement == "post" else norm(h))
        if dropout is not None:
            added = dropout(added)
        if self.placement == "sandwich" and after is not None:
            added = after(added)
        if self.gain != 1:
            added = self.gain * added
        match self.placement:
            case "pre" | "sandwich":
                return dropout_add(h, added, None, self.modules())
            case "sandwich-sum":
                assert after is not None
                return after(h + added)
            case _:
                return norm((h if self.alpha == 1 else self.alpha * h) + added)


def _modulated(f: Branch, gate: Float[Tensor, " dim"], scale: Float[Tensor, " dim"]) -> Branch:
    return lambda x: gate * f(x * (1 + scale))
