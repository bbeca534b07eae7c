"""Visibility against finite differences and closed forms."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from loopscope.audit.total_visibility import measure_visibility
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import unroll
from tests.audit.fixtures import IDS, LABELS, LOOPS, audit, make


@pytest.mark.parametrize("placement", ["dense", "terminal", "exit-weighted"])
@pytest.mark.parametrize("loop", [1, 2, LOOPS])
@pytest.mark.smoke
def test_total_visibility_is_the_finite_difference(placement: str, loop: int) -> None:
    model = make(readout="raw", exit_gate=True).double()
    objective = build_objective(ObjectiveConfig(placement=placement, norm_penalty=0.01))

    def loss(factor: float) -> float:
        def scaled() -> Any:
            states = unroll(model, IDS)
            state = next(states)
            while True:
                changed = state.hidden * factor if state.loop == loop else state.hidden
                yield type(state)(state.loop, changed, model, state.context)
                try:
                    state = states.send(changed)
                except StopIteration:
                    return

        return float(objective(scaled(), LABELS).total.detach())

    step = 1e-5
    slope = (loss(1 + step) - loss(1 - step)) / (2 * step)
    assert measure_visibility(model, objective, IDS, LABELS)[loop - 1].total[
        "loss"
    ].d_log_scale == pytest.approx(slope, rel=1e-4)


def test_direct_visibility_of_the_last_loop_is_the_total() -> None:
    model = make(readout="raw").double()
    last = measure_visibility(model, build_objective(ObjectiveConfig()), IDS, LABELS)[-1]
    assert sum(entry.d_log_scale for entry in last.direct.values()) == pytest.approx(
        last.total["loss"].d_log_scale
    )


def test_a_penalty_has_its_closed_form() -> None:
    model = make().double()
    objective = build_objective(ObjectiveConfig(norm_penalty=0.3))
    squares = [float(state.hidden.square().mean()) for state in unroll(model, IDS)]
    for loop, square in zip(measure_visibility(model, objective, IDS, LABELS), squares, strict=True):
        assert loop.direct["norm_penalty/state"].d_log_scale == pytest.approx(2 * 0.3 * square / LOOPS)
        assert loop.direct["norm_penalty/state"].share == pytest.approx(1)


def test_a_small_state_is_not_seen_through_the_norms_eps() -> None:
    """A norm lets through eps / (mean square + eps) of a change of scale: real, but gone once the state grows."""
    model = make(initialisation="scaled", norm_eps=1e-4)
    report = audit(model)
    with torch.no_grad():
        shares = [1e-4 / (state.hidden.square().mean(dim=-1) + 1e-4) for state in unroll(model, IDS)]
    for loop, share in zip(report.visibility, shares, strict=True):
        assert loop.readout_response == pytest.approx(float(share.mean()), rel=1e-3)
    assert report.visibility[0].readout_response > 0.05
    assert max(loop.direct for loop in report.loops) > 1e-4
    assert report.verdict == "blind"


@pytest.mark.parametrize("loop", [1, LOOPS])
def test_direct_visibility_is_the_finite_difference_of_every_term(loop: int) -> None:
    model = make(readout="raw", exit_gate=True).double()
    objective = build_objective(ObjectiveConfig(placement="exit-weighted", norm_penalty=0.01))
    with torch.no_grad():
        states = list(unroll(model, IDS))

    def terms(factor: float) -> dict[str, float]:
        scaled = [
            replace(state, hidden=state.hidden * (factor if state.loop == loop else 1.0)) for state in states
        ]
        return {name: float(term) for name, term in objective.split(scaled, LABELS).items()}

    step = 1e-5
    up, down = terms(1 + step), terms(1 - step)
    direct = measure_visibility(model, objective, IDS, LABELS)[loop - 1].direct
    assert set(up) == {"cross_entropy@1", "cross_entropy@2", "cross_entropy@3", "entropy", "norm_penalty"}
    for name in up:
        found = sum(entry.d_log_scale for path, entry in direct.items() if path.startswith(name + "/"))
        assert found == pytest.approx((up[name] - down[name]) / (2 * step), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("placement", ["terminal", "dense", "exit-weighted"])
def test_the_finest_terms_sum_to_the_loss(placement: str) -> None:
    model = make(exit_gate=True)
    objective = build_objective(
        ObjectiveConfig(placement=placement, norm_penalty=0.01, scale_anchor={"weight": 0.1})
    )
    with torch.no_grad():
        whole = objective(unroll(model, IDS), LABELS).total
        parts = objective.split(unroll(model, IDS), LABELS)
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(), whole)


def test_frozen_weights_hide_nothing() -> None:
    model = make(readout="raw")
    before = audit(model, placement="terminal")
    model.requires_grad_(False)
    after = audit(model, placement="terminal")
    for mine, other in zip(after.visibility, before.visibility, strict=True):
        assert mine.total["loss"].d_log_scale == pytest.approx(other.total["loss"].d_log_scale, rel=1e-5)
        assert mine.total["loss"].absolute > 0.1
    with torch.inference_mode():
        assert audit(model, placement="terminal").verdict == "visible"
