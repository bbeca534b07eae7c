"""Value embeddings: what a token is, added to what attention carries from it, whatever the state has become.

One table per layer that has them; every loop looks up a shared layer's again. Form and places (every
other layer, the last included) as in nanochat (Karpathy, github.com/karpathy/nanochat), after modded-nanogpt (Jordan et
al.) and value residual learning (Zhou et al., arXiv 2410.17897). They depend on tokens alone, so that no scale of the
state goes through them.

Memory: vocabulary × (key-value heads × head_dim) numbers per table, and batch × seq × that for the looked-up rows.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.model.config import ModelConfig

GATE_CHANNELS = 32
"""Channels of the layer's input that a gate reads, as in nanochat."""


class ValueEmbeddings(nn.Module):
    """The tables of a model, by layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.key_value_heads * config.head_dim
        self.tables = nn.ModuleDict(
            {
                str(place): nn.Embedding(config.vocabulary, width)
                for place, on in enumerate(config.value_layers)
                if on
            }
        )

    def forward(
        self, place: int, input_ids: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq width"] | None:
        """Return the tokens' rows for layer `place` (0-based, prelude to coda), or None for a layer without."""
        key = str(place)
        return self.tables[key](input_ids) if key in self.tables else None


def add_value_embeddings(
    value: Float[Tensor, "batch heads seq head_dim"],
    embedded: Float[Tensor, "batch seq width"],
    x: Float[Tensor, "batch seq dim"],
    gate: nn.Linear | None,
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Return values plus the tokens' embeddings, times 2σ(gate of the first channels of `x`) where there is one."""
    # No einops: exported models run this code where it is not installed.
    added = embedded.unflatten(-1, (value.shape[1], -1)).transpose(1, 2)
    if gate is not None:
        gate_factor = 2 * torch.sigmoid(gate(x[..., : gate.in_features]))
        added = gate_factor.transpose(1, 2)[..., None] * added
    return value + added.to(value.dtype)
