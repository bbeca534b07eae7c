"""Depth per step: distributions, sequences with a depth of their own, gradients cut to the last loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.depth import draw_depths, unroll_to
from loopscope.objectives.depth_config import DepthConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import LoopContext, unroll

IDS = torch.arange(24).view(2, 12)
LABELS = (IDS * 7 + 1) % 40


def made(**changes: object) -> LoopedTransformer:
    torch.manual_seed(0)
    values = {"dim": 32, "heads": 4, "loops": 3, "vocabulary": 40, "sequence": 12, **changes}
    return LoopedTransformer(ModelConfig(**values))


def draws(config: DepthConfig, count: int = 4000, loops: int = 4) -> np.ndarray:
    return np.array([draw_depths(config, loops, 1, step, 1)[0] for step in range(count)])


def test_fixed_is_the_models_depth_or_the_one_named() -> None:
    assert draw_depths(DepthConfig(), 4, 0, 9, 8) == (4,)
    assert draw_depths(DepthConfig(mean=7), 4, 0, 9, 8) == (7,)


def test_uniform_reaches_every_depth_alike() -> None:
    found = np.bincount(draws(DepthConfig(distribution="uniform", low=2, high=6)))
    assert found[:2].sum() == 0
    assert len(found) == 7
    assert abs(found[2:] / 4000 - 0.2).max() < 0.03


@pytest.mark.parametrize(("mean", "spread"), [(8.0, 0.5), (32.0, 0.5), (4.0, 0.0)])
def test_lognormal_poisson_has_its_mean_and_variance(mean: float, spread: float) -> None:
    """E = mean + 1 and, by the law of total variance, Var = mean + mean²·(e^{spread²} - 1)."""
    found = draws(DepthConfig(distribution="lognormal-poisson", mean=mean, spread=spread), 20_000)
    variance = mean + mean**2 * (np.exp(spread**2) - 1)
    assert found.mean() == pytest.approx(mean + 1, abs=4 * (variance / 20_000) ** 0.5)
    assert found.var() == pytest.approx(variance, rel=0.12)
    assert found.min() >= 1


def test_limits_and_repetition() -> None:
    config = DepthConfig(distribution="lognormal-poisson", mean=8, low=3, high=9)
    found = draws(config)
    assert (found.min(), found.max()) == (3, 9)
    assert (found == draws(config)).all()
    assert draw_depths(config, 4, 1, 5, 1) != draw_depths(config, 4, 1, 6, 1) or len(set(found)) > 3
    own = DepthConfig(distribution="lognormal-poisson", mean=8, per_sequence=True)
    assert len(draw_depths(own, 4, 0, 0, 16)) == 16
    assert len(set(draw_depths(own, 4, 0, 0, 16))) > 3


def test_a_curriculum_grows_linearly() -> None:
    fixed = DepthConfig(mean=9, curriculum=8)
    assert [draw_depths(fixed, 4, 0, step, 1)[0] for step in range(10)] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    shallow = DepthConfig(mean=9, low=3, curriculum=3)
    assert [draw_depths(shallow, 4, 0, step, 1)[0] for step in range(5)] == [3, 5, 7, 9, 9]
    uniform = DepthConfig(distribution="uniform", high=8, curriculum=100)
    assert max(draw_depths(uniform, 4, 0, step, 1)[0] for step in range(15)) <= 2
    assert max(draw_depths(uniform, 4, 0, step, 1)[0] for step in range(100, 200)) == 8


def test_the_widest_and_deepest_settings_can_be_drawn() -> None:
    """Half the depths are at most 1 + the median that the docstring of the bound names."""
    found = draws(DepthConfig(distribution="lognormal-poisson", mean=10_000, spread=2.0))
    assert np.median(found) == pytest.approx(10_000 * np.exp(-2), rel=0.1)


@pytest.mark.parametrize("last", [1, 2, 5])
def test_a_cut_gradient_is_backpropagation_from_a_constant_state(last: int) -> None:
    """The state before the last loops as a constant, the rest written out; the input keeps its gradient."""
    model = made(injection="add", carry=["decay"], start="zero", prelude=1)
    (*_, state) = unroll_to(model, IDS, [5], last)
    state.logits().square().mean().backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()

    embedded = model.embed(IDS)
    context = LoopContext(IDS, embedded, 5)
    hidden = embedded
    for loop in range(1, 6):
        if loop == 5 - last + 1:
            hidden = hidden.detach() if loop > 1 else hidden
        if loop > 1:
            hidden = model.carry(hidden, loop - 1, context)
        hidden = model.core(hidden, loop, context)
    model.head(model.readout(hidden, 5, context)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(found[name], parameter.grad), name


def test_loops_before_the_cut_keep_nothing() -> None:
    states = list(unroll(made(), IDS, 5, gradient_loops=2))
    assert [state.hidden.requires_grad for state in states] == [False, False, False, True, True]


def test_the_callers_gradient_mode_is_his_own() -> None:
    states = unroll(made(), IDS, 4, gradient_loops=2)
    next(states)
    assert torch.is_grad_enabled()
    with torch.no_grad():
        assert not next(states).hidden.requires_grad
        assert not next(states).hidden.requires_grad


@pytest.mark.parametrize("backprop", [None, 1, 2])
def test_each_sequence_stops_at_its_own_depth(backprop: int | None) -> None:
    """Values and gradients are the sum of runs of one sequence each, at its depth."""
    model = made(injection="add")
    objective = build_objective(ObjectiveConfig(placement="terminal"))
    loss = objective(unroll_to(model, IDS, [4, 2], backprop), LABELS).total
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    total = sum(
        objective(unroll_to(model, IDS[row : row + 1], [depth], backprop), LABELS[row : row + 1]).total / 2
        for row, depth in enumerate((4, 2))
    )
    total.backward()
    assert torch.allclose(loss, total)
    for name, parameter in model.named_parameters():
        assert torch.allclose(found[name], parameter.grad, rtol=1e-4, atol=1e-7), name


def test_a_sequence_that_is_done_keeps_its_state() -> None:
    model = made(carry=["damping"])
    alone = list(unroll(model, IDS, 5))
    for state in unroll_to(model, IDS, [2, 5]):
        assert torch.equal(state.hidden[0], alone[min(state.loop, 2) - 1].hidden[0])
        assert torch.equal(state.hidden[1], alone[state.loop - 1].hidden[1])
    logits = state.logits()
    expected = F.cross_entropy(alone[1].logits()[0], LABELS[0], reduction="none")
    assert torch.allclose(F.cross_entropy(logits[0], LABELS[0], reduction="none"), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 5, "high": 3}, "high 3 is below low 5"),
        ({"per_sequence": True}, "gives all sequences one depth"),
        ({"mean": 2.5}, "must be a whole number"),
        ({"distribution": "uniform", "mean": 3}, "mean does nothing for distribution 'uniform'"),
        ({"distribution": "uniform", "spread": 0.1}, "spread belongs to 'lognormal-poisson'"),
        ({"high": 8}, "high 8 limits a distribution"),
        ({"low": 8}, "low 8 limits a distribution or starts a curriculum"),
        ({"distribution": "lognormal-poisson", "spread": 8}, "spread 8.0 is above 2.0"),
        ({"distribution": "lognormal-poisson", "mean": 1e30}, "less than or equal to 10000"),
        ({"distribution": "poisson"}, "Input should be 'fixed'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DepthConfig(**settings)


def test_parts_of_one_batch_cut_alike_however_deep_the_others_are() -> None:
    """Where another part is shallower more loops are recorded, and the gradient is that of this part's own cut."""

    def gradients(fewest: int | None) -> list[torch.Tensor]:
        model = made()
        states = unroll_to(model, IDS, (5, 5), backprop=2, loops=5, fewest=fewest)
        build_objective(ObjectiveConfig())(states, LABELS).total.backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]

    for mine, other in zip(gradients(fewest=1), gradients(fewest=None), strict=True):
        assert torch.allclose(mine, other, rtol=1e-5, atol=1e-7)
