"""TRM and HRM in their real form: puzzle positions before the tokens, (carry, batch) in and out, a no_grad prefix."""

from typing import Any

import pytest
import torch

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.recurrence import unroll
from tests.interop.foreign.families.models import IDS, LABELS, at_cycles
from tests.interop.lookalikes import TinyRecursive


@pytest.fixture(params=[False, True], ids=["trm", "hrm"])
def module(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return TinyRecursive(own_high=request.param).eval()


def test_states_are_those_of_the_high_stack_at_the_tokens(module: Any) -> None:
    model = loopscope.adapt(module)
    inner = module.inner
    calls: list[torch.Tensor] = []
    level = inner.H_level if hasattr(inner, "H_level") else inner.L_level
    handle = level.register_forward_hook(lambda part, args, output: calls.append(output))
    with torch.no_grad():
        at_cycles(module, 3)
    handle.remove()
    high = calls if hasattr(inner, "H_level") else calls[2::3]  # two low passes, then the high one
    states = list(unroll(model, IDS))
    assert len(states) == len(high) == model.loops
    for state, due in zip(states, high, strict=True):
        assert torch.allclose(state.hidden, due[:, inner.puzzle_emb_len :], atol=1e-5)
        beside = model.beside(state.hidden, state.loop, state.context)
        assert torch.allclose(beside["puzzle positions"], due[:, : inner.puzzle_emb_len], atol=1e-5)
        assert set(beside) == {"low stack", "puzzle positions"}


def test_every_cycle_has_a_gradient_and_that_is_said(module: Any) -> None:
    model = loopscope.adapt(module)
    first, *_, last = unroll(model, IDS)
    (gradient,) = torch.autograd.grad(last.logits().sum(), first.hidden)
    assert gradient.abs().max() > 0
    batch = {"inputs": IDS, "labels": IDS, "puzzle_identifiers": torch.zeros_like(IDS[:, 0])}
    assert not module(module.initial_carry(batch), batch)[0].z_H.requires_grad  # its own is as it was
    (remark,) = model.remarks
    assert "TinyRecursive runs all cycles but its last without a gradient" in remark


def test_what_is_beside_the_state_has_rows_of_its_own(module: Any) -> None:
    report = loopscope.audit(loopscope.adapt(module), IDS, LABELS)
    assert report.verdict == "removed"
    assert {side.name for side in report.side_scales} == {"low stack", "puzzle positions"}
    assert any("without a gradient" in note for note in report.notes)


def test_no_puzzle_positions_are_no_side_state() -> None:
    torch.manual_seed(0)
    model = loopscope.adapt(TinyRecursive(puzzle_positions=0).eval())
    state = next(iter(unroll(model, IDS)))
    assert set(model.beside(state.hidden, 1, state.context)) == {"low stack"}
    assert {loop.status for loop in judge(model, IDS, LABELS).loops} == {"removed"}


def test_a_text_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="24 tokens, and TinyRecursive was made for 12"):
        loopscope.audit(loopscope.adapt(TinyRecursive().eval()), IDS.repeat(1, 2), LABELS.repeat(1, 2))
