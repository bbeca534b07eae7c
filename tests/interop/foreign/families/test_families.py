"""Adapters of known families: against the module's own forward, its hooks, and finite differences."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import loopscope
from loopscope.recurrence import LoopContext, unroll
from tests.interop.foreign.families.fixtures import IDS, LABELS, Case, build, captured, each_case, each_family


@each_case
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.smoke
def test_states_and_logits_are_the_modules_own(case: Case, times: int) -> None:
    module, model = build(case)
    assert model.loops == case.loops
    depth = times * case.loops
    with torch.no_grad():
        states = list(unroll(model, IDS, depth))
        logits = states[-1].logits()
    own_states, own_logits = captured(case, copy.deepcopy(module), depth)
    assert len(own_states) == depth
    for state, own in zip(states, own_states, strict=True):
        assert torch.allclose(state.hidden, own, rtol=1e-4, atol=1e-5)
    assert torch.allclose(logits, own_logits, rtol=1e-4, atol=1e-5)


@each_family
def test_the_gradient_goes_through_every_loop(case: Case) -> None:
    _, model = build(case)
    model.double()
    states = list(unroll(model, IDS))
    (weights,) = (torch.randn(states[-1].hidden.shape[:2], generator=torch.Generator().manual_seed(0)),)

    def value(state: Any) -> Tensor:
        return (state.logits().logsumexp(dim=-1) * weights + state.logits()[..., 0]).sum()

    along = torch.randn(states[0].hidden.shape, generator=torch.Generator().manual_seed(1)).double()
    for index, state in enumerate(states[:-1]):
        (gradient,) = torch.autograd.grad(value(states[-1]), state.hidden, retain_graph=True)

        def shifted(step: float, loop: int = index + 1) -> float:
            run = unroll(model, IDS)
            current = next(run)
            while not current.is_last:
                moved = current.hidden + step * along if current.loop == loop else current.hidden
                current = run.send(moved)
            return float(value(current))

        with torch.no_grad():
            slope = (shifted(1e-3) - shifted(-1e-3)) / 2e-3
        # Norms that compute in fp32 whatever they are given leave about four digits.
        assert float((gradient * along).sum()) == pytest.approx(slope, rel=1e-2, abs=1e-3)


@each_family
def test_the_audit_runs_and_its_verdict_is_the_structures(case: Case) -> None:
    _, model = build(case)
    report = loopscope.audit(model, IDS, LABELS)
    assert report.verdict == case.verdict, report.why
    if case.verdict == "removed":
        assert all(abs(loop.carry) < 0.05 for loop in report.loops)


@each_case
def test_runs_repeat_and_disturb_nothing(case: Case) -> None:
    module, model = build(case)
    modes = [part.training for part in module.modules()]
    state = torch.get_rng_state()
    with torch.no_grad():
        first, second = model(IDS), model(IDS)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.module is module
    assert [part.training for part in module.modules()] == modes
    for part in module.modules():
        assert "forward" not in part.__dict__
        assert not part._forward_hooks
        assert not part._forward_pre_hooks


@each_case
def test_a_tokens_states_do_not_depend_on_what_follows(case: Case) -> None:
    """Also where the module starts from a random state: here it is the same for every length."""
    _, model = build(case)
    with torch.no_grad():
        assert torch.allclose(model(IDS)[:, :6], model(IDS[:, :6]), rtol=1e-4, atol=1e-4)


@each_case
def test_a_context_of_other_hands_gives_the_same(case: Case) -> None:
    """Nothing that was recorded is needed: an equal context made anew, at any loop, runs as before."""
    _, model = build(case)
    with torch.no_grad():
        states = list(unroll(model, IDS))
        before, last = states[-2], states[-1]
        context = LoopContext(IDS, before.context.embedded.clone(), case.loops)
        carried = model.carry(before.hidden, before.loop, context)
        assert torch.allclose(model.core(carried, last.loop, context), last.hidden, rtol=1e-4, atol=1e-5)
        assert torch.allclose(model.readout(last.hidden, last.loop, context), last.features(), atol=1e-5)
