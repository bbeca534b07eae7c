"""Modules that nothing is known of: the published shape, and what others do otherwise, one thing each."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY, DIM = 40, 16
IDS = torch.arange(20).view(2, 10) * 7 % VOCABULARY
LABELS = (IDS * 3 + 1) % VOCABULARY


class Block(nn.Module):
    """A pre-norm residual block in which a token also sees the mean of those before it."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim)
        self.inner = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor | None = None, **_: Any) -> Tensor:
        normed = self.norm(x)
        count = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)[:, None]
        return x + self.inner(normed + normed.cumsum(dim=1) / count)


class Plain(nn.Module):
    """The published shape: embed, K times the same layers, norm, head; subclasses change one thing."""

    loops = 3

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(loops=self.loops)
        self.tokens = nn.Embedding(VOCABULARY, DIM)
        self.layers = nn.ModuleList(Block() for _ in range(2))
        self.inject = nn.Linear(2 * DIM, DIM)
        self.between = nn.LayerNorm(DIM)
        self.norm = nn.RMSNorm(DIM)
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)

    def stack(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.stack(x)
        return self.lm_head(self.norm(x))


class Injected(Plain):
    """The embedding is injected before every loop, and a norm stands after it."""

    def forward(self, ids: Tensor, loops: int | None = None) -> Any:
        embedded = x = self.tokens(ids)
        for _ in range(loops or self.config.loops):
            x = self.stack(self.inject(torch.cat([x, embedded], dim=-1)))
            x = self.between(x)
        return {"loss": None, "logits": self.lm_head(self.norm(x))}


class Gated(Plain):
    """A block argument that depends on the state: replaying it would be wrong for any other state."""

    class Layer(Block):
        def forward(self, x: Tensor, scale: Tensor | None = None, **_: Any) -> Tensor:
            assert scale is not None
            return x + scale * (super().forward(x) - x)

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Layer()

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.block(x, scale=torch.sigmoid(x.mean(dim=-1, keepdim=True)))
        return self.lm_head(self.norm(x))


class Scaled(Plain):
    """Code between the layers of one loop, as in models with learned residual scales."""

    def stack(self, x: Tensor) -> Tensor:
        start = x
        for index, layer in enumerate(self.layers):
            x = layer((0.9 - 0.2 * index) * x + 0.1 * start)
        return x


class Remembering(Plain):
    """Every loop also adds a fraction of the state two loops back: a second state beside the block's output."""

    loops = 4

    def forward(self, ids: Tensor) -> Any:
        x, older = self.tokens(ids), 0.0
        for _ in range(self.config.loops):
            x, older = self.stack(x + older), 0.3 * x
        return self.lm_head(self.norm(x))


class Skipped(Plain):
    """The block is one branch: the stream beside it reaches the next loop, and the head."""

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = x + self.stack(x)
        return self.lm_head(self.norm(x))


class SkippedPair(Skipped):
    loops = 2


class Tupled(Plain):
    """A block that returns a tuple and takes its state by name, behind a table of floats."""

    class Layer(Block):
        def forward(self, table: Tensor, state: Tensor, flag: bool = False) -> Any:  # type: ignore[override]
            return super().forward(state + 0 * table), None

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Layer()

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x, _ = self.block(x.new_ones(1, x.shape[1], DIM), state=x)
        return (None, self.lm_head(self.norm(x)))


def build(kind: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    return kind().eval()


def outputs(part: nn.Module, run: Callable[[], Any]) -> list[Tensor]:
    """What a part put out in every call of a run."""
    found: list[Tensor] = []
    handle = part.register_forward_hook(lambda part, args, output: found.append(output))
    try:
        with torch.no_grad():
            run()
    finally:
        handle.remove()
    return [output[0] if isinstance(output, tuple) else output for output in found]


def logits_of(output: Any) -> Tensor:
    if isinstance(output, dict):
        return output["logits"]
    return output[1] if isinstance(output, tuple) else output


def forward_with(module: nn.Module, part: nn.Module, changed: Tensor) -> Tensor:
    """The module's own logits when the first output of `part` is replaced."""
    calls: list[int] = []

    def hook(part: nn.Module, args: Any, output: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            return output
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = part.register_forward_hook(hook)
    try:
        return logits_of(module(IDS))
    finally:
        handle.remove()


class Sampled(Injected):
    """Told nothing, it runs all loops without gradient, as Huginn does in evaluation."""

    def forward(self, ids: Tensor, loops: int | None = None) -> Any:
        with torch.set_grad_enabled(torch.is_grad_enabled() and loops is not None):
            return super().forward(ids, loops)
