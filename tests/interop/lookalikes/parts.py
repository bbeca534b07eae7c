"""What the lookalikes are built of."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY, DIM, HEADS = 40, 32, 4
HEAD_DIM = DIM // HEADS


class Norm(nn.Module):
    def __init__(self, dim: int = DIM, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class MLP(nn.Module):
    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(F.silu(self.fc(x)))


def angles(length: int) -> Tensor:
    """Rotary angles [length, head_dim / 2]."""
    return torch.arange(length)[:, None] / 100.0 ** (torch.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of channels of [batch seq heads head_dim]; the table is [.. seq 1 head_dim/2]."""
    cos, sin = cos.to(x), sin.to(x)
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


class Attention(nn.Module):
    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, extra: Tensor | None = None) -> Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if extra is not None:
            v = v + extra.unflatten(-1, (HEADS, -1))
        mixed = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
        return self.proj(mixed.transpose(1, 2).flatten(2))
