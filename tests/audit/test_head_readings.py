"""Losses that are read once against the plain formula, in value and gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor

from loopscope.audit.head_readings import HeadReadings
from loopscope.audit.total_visibility import measure_visibility
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.objectives.token_loss import plain_cross_entropy
from loopscope.recurrence import unroll
from tests.audit.fixtures import IDS, LABELS, make


@pytest.fixture(params=["matrix", "any head"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LoopedTransformer:
    made = make()
    if request.param == "any head":
        monkeypatch.setattr(made, "head_matrix", lambda: None)
    return made


def test_values_and_gradients_are_the_plain_formula_s(model: LoopedTransformer) -> None:
    features = torch.randn(2, 12, 32, requires_grad=True)
    labels = LABELS.masked_fill(LABELS % 5 == 0, -100)
    weights = torch.randn(2, 12)
    found = HeadReadings(model)(model.head, features, labels)
    expected = plain_cross_entropy(model.head, features, labels)
    torch.testing.assert_close(found, expected)
    (one,) = torch.autograd.grad((found * weights).sum(), features)
    (other,) = torch.autograd.grad((expected * weights).sum(), features)
    torch.testing.assert_close(one, other)


def test_the_head_is_asked_once_for_features_that_are_the_same_to_rounding(
    model: LoopedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = HeadReadings(model)
    read: list[Any] = []
    own = readings._read
    monkeypatch.setattr(readings, "_read", lambda *given: read.append(given) or own(*given))
    features = torch.randn(2, 12, 32)
    first = readings(model.head, features.clone().requires_grad_(), LABELS)
    again = readings(model.head, (features * (1 + 1e-7)).requires_grad_(), LABELS)
    assert len(read) == 1
    assert torch.equal(first, again)
    other = features.clone()
    other[1, 11] *= 1 + 1e-5  # one token is another one
    readings(model.head, other.requires_grad_(), LABELS)
    readings(model.head, features.clone().requires_grad_(), LABELS.clone())  # other labels
    assert len(read) == 3


@pytest.mark.parametrize(
    "objective",
    [{}, {"placement": "terminal"}, {"placement": "exit-weighted"}, {"norm_penalty": {"weight": 0.1}}],
)
@pytest.mark.parametrize("readout", ["rmsnorm", "raw"])
def test_total_visibility_loop_by_loop_is_that_of_one_graph(objective: dict[str, Any], readout: str) -> None:
    """The chain rule against autograd through all loops at once, term by term."""
    model = make(readout=readout, exit_gate=True)
    loss = build_objective(ObjectiveConfig(**objective))
    first, *_ = unroll(model, IDS)
    unrolling = unroll(model, IDS)
    next(unrolling)
    start = first.hidden.detach().requires_grad_()
    states = [unrolling.send(start), *unrolling]
    hiddens = [start, *(state.hidden for state in states)]
    from dataclasses import replace

    terms = loss.split([replace(first, hidden=start), *states], LABELS)
    found = measure_visibility(model, loss, IDS, LABELS)
    for name, term in {**terms, "loss": torch.stack(list(terms.values())).sum()}.items():
        gradients = torch.autograd.grad(term, hiddens, retain_graph=True, allow_unused=True)
        for loop, hidden, gradient in zip(found, hiddens, gradients, strict=True):
            if gradient is None:
                assert name not in loop.total
                continue
            inner = (gradient * hidden).sum(dim=-1).double()
            size = float((gradient.norm(dim=-1) * hidden.norm(dim=-1)).sum())
            assert loop.total[name].d_log_scale == pytest.approx(float(inner.sum()), abs=1e-5 * size), name


def test_an_audit_leaves_gradients_asked_for_as_they_were() -> None:
    import loopscope

    model = make()
    frozen: Tensor = next(model.parameters())
    frozen.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    loopscope.audit(model, IDS, LABELS, rounding="none")
    assert [parameter.requires_grad for parameter in model.parameters()] == before
