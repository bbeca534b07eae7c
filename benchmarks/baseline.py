"""The training step that a good engineer writes today for the published looped model, in PyTorch and nothing of ours.

Fused attention (`scaled_dot_product_attention`), PyTorch's RMSNorm, `F.cross_entropy` on whole logits of every loop,
autocast for bf16, fused AdamW, one clip over all gradients. Nothing waits for the host. On a CPU with dropout PyTorch
has no fused attention kernel: it falls back to plain products there by itself, as it would for anyone.

It shares no code with the package: weights are copied from a `LoopedTransformer`, and a test holds both to the same
losses. Memory: K × batch × seq × vocab logits with their log-softmaxes, and every layer's and loop's activations.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loopscope.model import LoopedTransformer, ModelConfig
from loopscope.training import TrainingConfig


class BaselineLayer(nn.Module):
    """Pre-norm attention and SwiGLU."""

    def __init__(self, dim: int, heads: int, width: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_1, self.norm_2 = nn.RMSNorm(dim, eps), nn.RMSNorm(dim, eps)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.gate, self.up = nn.Linear(dim, width, bias=False), nn.Linear(dim, width, bias=False)
        self.down = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, dim = x.shape
        qkv = self.qkv(self.norm_1(x)).view(batch, seq, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, seq, dim))
        normed = self.norm_2(x)
        branch = self.down(F.silu(self.gate(normed)) * self.up(normed))
        return x + F.dropout(branch, self.dropout, self.training)


class BaselineLooped(nn.Module):
    """The published architecture: learned positions, one stack for all loops, RMSNorm readout, tied head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.loops, self.dropout = config.loops, config.dropout
        self.tokens = nn.Embedding(config.vocabulary, config.dim)
        self.positions = nn.Embedding(config.sequence, config.dim)
        self.layers = nn.ModuleList(
            BaselineLayer(config.dim, config.heads, config.width, config.dropout, config.norm_eps)
            for _ in range(config.layers)
        )
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)

    @classmethod
    def like(cls, model: LoopedTransformer) -> "BaselineLooped":
        """Return one with a copy of another's weights.

        Raises:
            RuntimeError: a model with other weights than the published architecture's.
        """
        own = cls(model.config)
        own.load_state_dict({_renamed(name): tensor for name, tensor in model.state_dict().items()})
        return own.to(model.token_embedding.weight.device).train(model.training)

    def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over loops of the mean cross-entropy."""
        x = self.tokens(input_ids) + self.positions.weight[: input_ids.shape[1]]
        x = F.dropout(x, self.dropout, self.training)
        losses = []
        for _ in range(self.loops):
            for layer in self.layers:
                x = layer(x)
            logits = F.linear(self.norm(x), self.tokens.weight)
            losses.append(F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten()))
        return torch.stack(losses).mean()


def baseline_step(
    model: BaselineLooped, config: TrainingConfig, precision: str
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that takes one optimizer step on a batch and returns its loss, detached."""
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )

    def step(input_ids: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = model(input_ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


_NAMES = {
    "token_embedding": "tokens",
    "position_embedding": "positions",
    "attention_norm": "norm_1",
    "feed_forward_norm": "norm_2",
    "reading.norm": "norm",
    "attention.": "",
    "feed_forward.": "",
}


def _renamed(name: str) -> str:
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    return name
