"""The plain way to train the published looped model: what the fast way is tested and measured against.

The same mathematics and the same weights as `LoopedTransformer` at the published architecture, written as one would
write it first: softmax attention with an explicit mask, the logits of all K loops kept until the loss, the norm of
every loop fetched to the host while the step runs, an optimizer that steps one parameter after another.
Memory: K × batch × seq × vocab logits and their softmaxes, and the attention's squares of every layer and loop.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer


class PlainLooped(nn.Module):
    """The published model (pre-norm, learned positions, SwiGLU, RMSNorm readout) around another one's weights.

    Raises:
        ValueError: a config that this does not cover.
    """

    def __init__(self, model: LoopedTransformer) -> None:
        super().__init__()
        config = model.config
        covered = ModelConfig(
            dim=config.dim,
            layers=config.layers,
            heads=config.heads,
            loops=config.loops,
            vocabulary=config.vocabulary,
            sequence=config.sequence,
            dropout=config.dropout,
            initialisation=config.initialisation,
        )
        if config != covered:
            raise ValueError(f"PlainLooped covers the published architecture only, not {config!r}")
        self.config = config
        self.model = model

    def forward(self, input_ids: Int[Tensor, "batch seq"]) -> tuple[list[Tensor], list[float]]:
        """Return logits [batch seq vocab] of every loop, and the mean L2 norm of every loop's state."""
        model, config = self.model, self.config
        position = model.position_embedding
        readout_norm = model.reading.norm
        assert position is not None, "checked above"
        assert isinstance(readout_norm, nn.RMSNorm), "checked above"
        seq = input_ids.shape[1]
        hidden = model.token_embedding(input_ids) + position(torch.arange(seq, device=input_ids.device))
        hidden = F.dropout(hidden, config.dropout, self.training)
        causal = torch.tril(torch.ones(seq, seq, dtype=torch.bool, device=input_ids.device))
        every_logits, norms = [], []
        for _ in range(config.loops):
            layer: Any
            for layer in model.layers:
                hidden = hidden + self._attention(layer, _norm(layer.attention_norm, hidden), causal)
                normed = _norm(layer.feed_forward_norm, hidden)
                branch = layer.feed_forward
                inner = F.silu(branch.gate(normed)) * branch.up(normed)
                hidden = hidden + F.dropout(branch.down(inner), config.dropout, self.training)
            norms.append(hidden.float().norm(dim=-1).mean().item())
            every_logits.append(F.linear(_norm(readout_norm, hidden), model.token_embedding.weight))
        return every_logits, norms

    def _attention(
        self, layer: Any, x: Float[Tensor, "batch seq dim"], causal: Tensor
    ) -> Float[Tensor, "batch seq dim"]:
        batch, seq, dim = x.shape
        heads = self.config.heads
        query, key, value = (
            part.view(batch, seq, heads, dim // heads).transpose(1, 2)
            for part in layer.attention.qkv(x).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(-2, -1) / (dim // heads) ** 0.5
        scores = scores.masked_fill(~causal, float("-inf"))
        weights = F.dropout(scores.softmax(dim=-1), self.config.dropout, self.training)
        return layer.attention.out((weights @ value).transpose(1, 2).reshape(batch, seq, dim))


def _norm(norm: nn.RMSNorm, hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
    """Return what PyTorch computes: the module's own forward pass may be one of those that are measured."""
    return F.rms_norm(hidden, norm.normalized_shape, norm.weight, norm.eps)


def plain_loss(
    every_logits: list[Tensor], labels: Int[Tensor, "batch seq"], dense: bool = True
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over the loops (dense), or of the last (terminal)."""
    read = every_logits if dense else every_logits[-1:]
    losses = [F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten()) for logits in read]
    return torch.stack(losses).mean()


def plain_optimizer(
    model: nn.Module, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """Return AdamW with the published decay, of everything, that steps one parameter after another."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=learning_rate,
        betas=betas,
        weight_decay=weight_decay,
        foreach=False,
        fused=False,
    )
