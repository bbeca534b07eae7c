"""What holds of every variant: bitwise repeats, causality, gradients, checkpointing."""

import pytest
import torch
from torch import Tensor

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import unroll
from tests.model.fixtures import IDS, VARIANTS, build, live_model


@pytest.mark.parametrize("name", VARIANTS)
def test_a_state_dict_round_trip_and_a_repeated_unroll_are_bitwise(name: str) -> None:
    model = live_model(name)
    again = LoopedTransformer(model.config).eval()
    again.load_state_dict(model.state_dict())
    for one, other in zip(unroll(model, IDS, 4), unroll(again, IDS, 4), strict=True):
        assert torch.equal(one.logits(), other.logits())


@pytest.mark.parametrize("name", VARIANTS)
def test_attention_stays_causal_and_batches_do_not_mix(name: str) -> None:
    model = live_model(name)
    changed = IDS.clone()
    changed[0, 6:] = (changed[0, 6:] + 1) % 61
    before, after = model(IDS), model(changed)
    assert torch.allclose(before[0, :6], after[0, :6], atol=1e-5)
    assert torch.allclose(before[1], after[1], atol=1e-6)
    assert torch.allclose(model(IDS[:1]), before[:1], atol=1e-5)
    assert torch.allclose(model(IDS[:, :5]), before[:, :5], atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradient_through_all_loops_equals_backpropagation_written_out(name: str) -> None:
    """Autograd against a central difference of the last logits along a random direction, in float64."""
    model = live_model(name).double()
    direction = [torch.randn_like(parameter) for parameter in model.parameters()]
    weight = torch.randn(2, 9, 61, dtype=torch.float64)

    def value() -> Tensor:
        return (model(IDS) * weight).sum()

    gradients = torch.autograd.grad(value(), list(model.parameters()), allow_unused=True)
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None)
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for parameter, d in zip(model.parameters(), direction, strict=True):
                parameter.add_(step * d)
            values.append(float(value()))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=2e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = live_model(name).train()
    sum(state.logits().square().mean() for state in unroll(model, IDS)).backward()
    unused = {"gate.weight", "gate.bias"}
    silent = [
        key
        for key, parameter in model.named_parameters()
        if key not in unused and (parameter.grad is None or not parameter.grad.any())
    ]
    assert silent == []


def test_gradient_checkpointing_changes_no_gradient_of_any_variant() -> None:
    for name in ("huginn", "loopformer", "adapters", "hybrid", "gated values"):
        gradients = []
        for checkpointing in ("none", "layer", "loop"):
            model = live_model(name, dropout=0.1).train()
            model.gradient_checkpointing = checkpointing
            torch.manual_seed(1)
            model(IDS).square().mean().backward()
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        for other in gradients[1:]:
            assert all(torch.equal(a, b) for a, b in zip(gradients[0], other, strict=True)), name


@pytest.mark.parametrize("name", VARIANTS)
def test_configs_round_trip(name: str) -> None:
    config = build(name)
    assert ModelConfig(**config.model_dump(mode="json")) == config
