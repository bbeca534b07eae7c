"""A step from timed parts: costs are recovered from the models that are timed, and make up deeper ones."""

import pytest

from loopscope.config.recipes import recipe
from loopscope.plan.devices import device
from loopscope.plan.parameters import count_parameters
from loopscope.plan.timed_step import CORNERS, UNLOOPED_CORNERS, TimedStep, mean, solved
from loopscope.plan.training_plan import plan_training

COSTS = TimedStep(alone=3e-6, layer=2e-7, loop=5e-7, use=1e-6, update=1e-9)


def seconds_of(costs: TimedStep, tokens: int, layers: int, loops: int) -> float:
    return sum(costs.parts(tokens, layers, loops, parameters=0))


def test_four_models_tell_four_costs() -> None:
    taken = {(layers, loops): seconds_of(COSTS, 512, layers, loops) for layers, loops in CORNERS}
    found = solved(taken, 512, COSTS.update)
    for name in ("alone", "layer", "loop", "use", "update"):
        assert getattr(found, name) == pytest.approx(getattr(COSTS, name))


def test_layers_that_run_once_tell_two() -> None:
    taken = {(layers, loops): seconds_of(COSTS, 64, layers, loops) for layers, loops in UNLOOPED_CORNERS}
    found = solved(taken, 64, 0.0)
    assert seconds_of(found, 64, 12, 1) == pytest.approx(seconds_of(COSTS, 64, 12, 1))


def test_noise_makes_no_cost_negative() -> None:
    found = solved({(1, 2): 5.0, (3, 2): 4.9, (1, 4): 4.8, (3, 4): 4.6}, 1, 0.0)
    assert found == TimedStep(alone=5.0, layer=0.0, loop=0.0, use=0.0, update=0.0)


def test_phases_count_by_their_shares() -> None:
    assert mean([TimedStep(1, 1, 1, 1, 1), TimedStep(3, 3, 3, 3, 3)], [0.25, 0.75]) == TimedStep(
        2.5, 2.5, 2.5, 2.5, 2.5
    )


def test_a_plan_is_the_sum_of_its_parts() -> None:
    config = recipe("published-44m", "dense/rmsnorm", {"training": {"batch": 8}})
    plan = plan_training(config, device("cpu-amx"), timed=COSTS)
    tokens, count = 8 * 256, sum(count_parameters(config.model).values())
    assert plan.step_seconds == pytest.approx(sum(COSTS.parts(tokens, 8, 4, count)))
    assert plan.time.layers == pytest.approx(tokens * 8 * (2e-7 + 4 * 1e-6))
    assert plan.time.products == plan.time.passes == plan.time.weights == 0
    assert plan.mfu > 0


def test_loops_without_a_gradient_take_a_third() -> None:
    over = {"training": {"depth": {"backprop": 1}}}
    cut = plan_training(recipe("laptop", "dense/rmsnorm", over), device("cpu-amx"), timed=COSTS)
    whole = plan_training(recipe("laptop", "dense/rmsnorm"), device("cpu-amx"), timed=COSTS)
    tokens = cut.step_tokens
    use = tokens * 2 * COSTS.use
    assert whole.time.layers - cut.time.layers == pytest.approx((3 - 3 * (1 / 3)) * use)
