"""Muon for the layers' matrices, AdamW for the rest, behind one optimizer's interface.

Muon (Jordan et al., 2024; torch.optim.Muon) moves a matrix by its orthogonalised momentum: every singular direction of
an update has the same size. `match_rms_adamw` (Liu et al., arXiv 2502.16982) scales it to the size of an AdamW
update, so that both halves share one learning rate and its schedule.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn


class MuonWithAdamW:
    """Muon and AdamW as one optimizer: state and groups read like those of one, so checkpoints need not know."""

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self.parts: tuple[torch.optim.Optimizer, ...] = (muon, adamw)
        self.state: defaultdict[torch.Tensor, dict[str, Any]] = defaultdict(dict)
        for part in self.parts:
            part.state = self.state  # no parameter is in both

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """AdamW's groups first: `param_groups[0]` is there for every model."""
        return [*self.parts[1].param_groups, *self.parts[0].param_groups]

    def step(self) -> None:
        """Take one step of each of the two."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self.parts:
            part.zero_grad()


def layer_matrices(model: nn.Module) -> Iterator[nn.Parameter]:
    """Return the weights of the linear maps inside module lists: layers of the prelude, the shared stack and the coda.

    Embeddings, heads, norms, scalars and per-loop adapters are not among them: an embedding's rows are moved one
    token at a time, and orthogonalising over tokens means nothing.
    """
    seen: set[int] = set()
    for module in model.modules():
        if not isinstance(module, nn.ModuleList):
            continue
        for inner in module.modules():
            if isinstance(inner, nn.Linear) and id(inner.weight) not in seen:
                seen.add(id(inner.weight))
                if inner.weight.requires_grad and min(inner.weight.shape) > 1:
                    yield cast(nn.Parameter, inner.weight)
