"""Every shipped placement's record against its class."""

from typing import Any

import pytest
import torch

from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_placement
from loopscope.objectives.placement_config import PLACEMENTS, placement_of
from loopscope.objectives.placements import LossInput

CONFIGS: list[dict[str, Any]] = [
    *({"placement": name} for name in PLACEMENTS.shipped),
    {"placement": "dense", "loop_weights": (0.0, 1.0, 0.0, 2.0)},
    {"placement": "dense", "loop_weights": (1.0, 1.0, 1.0, 1.0), "final_loop_weights": (0.0, 0.0, 1.0, 1.0)},
]


@pytest.mark.parametrize("settings", CONFIGS, ids=str)
def test_placements(settings: dict[str, Any]) -> None:
    config = ObjectiveConfig(**settings)
    chosen, placement = placement_of(config), build_placement(config)
    assert type(placement).declaration is chosen.declaration
    assert placement.name == settings["placement"]
    assert [placement.reads(k, 4) for k in range(1, 5)] == [chosen.reads(k, 4) for k in range(1, 5)]
    # What the loss does with gates and cross-entropies, by its own gradient.
    gates = [torch.zeros(1, 3, requires_grad=True) for _ in range(4)]
    losses = [torch.rand(1, 3, requires_grad=True) for _ in range(4)]
    loss_inputs = [
        LossInput(k, loss if placement.reads(k, 4) else None, gate)
        for k, (loss, gate) in enumerate(zip(losses, gates, strict=True), start=1)
    ]
    counted = torch.ones(1, 3, dtype=torch.bool)
    total = torch.stack(list(placement.terms(loss_inputs, counted).values())).sum()
    to_gates = torch.autograd.grad(total, gates, allow_unused=True, retain_graph=True)
    assert chosen.needs_gate is any(gradient is not None for gradient in to_gates)
    assert chosen.gate_only is placement.gate_only is (chosen.declaration.gate == "alone")
    if not chosen.gate_only:
        to_losses = torch.autograd.grad(total, losses, allow_unused=True)
        assert [gradient is not None for gradient in to_losses] == [chosen.trains(k, 4) for k in range(1, 5)]
        assert chosen.declaration.by_token is (placement.share(4, 4) is None)
