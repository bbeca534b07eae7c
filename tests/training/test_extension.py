"""What is said of a run that is made longer: nothing where it goes on exactly, values where a schedule moves."""

import pytest

from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.training.config import TrainingConfig
from loopscope.training.extension import extension_note
from loopscope.training.optim import learning_rate

DENSE = build_objective(ObjectiveConfig())


def test_a_constant_schedule_goes_on_exactly() -> None:
    config = TrainingConfig(steps=20, warmup=5)
    assert [learning_rate(step, 10, config) for step in range(10)] == [
        learning_rate(step, 20, config) for step in range(10)
    ]
    assert "as if it had been so long from the start" in extension_note(config, DENSE, 10, 20, done=10)


@pytest.mark.parametrize("done", [5, 10])
def test_a_cosine_says_where_it_was_and_where_it_is(done: int) -> None:
    config = TrainingConfig(steps=20, schedule="cosine", learning_rate=1e-3)
    note = extension_note(config, DENSE, 10, 20, done)
    assert f"step {done + 1} has learning rate {learning_rate(done, 20, config):.3g}" in note
    assert f"{learning_rate(done, 10, config):.3g}" in note
    assert ("ended with 0.0001" in note) == (done == 10)
    assert "as if" not in note


def test_weights_that_move_and_steps_that_are_compiled_are_said() -> None:
    moving = build_objective(ObjectiveConfig(loop_weights=(1.0, 1.0), final_loop_weights=(0.0, 1.0)))
    note = extension_note(TrainingConfig(steps=21), moving, 11, 21, done=5)
    assert "25% of the way at step 6, where the run of 11 steps was 50% of it" in note
    assert "compiled from here on" in extension_note(
        TrainingConfig(steps=21), DENSE, 11, 21, 5, compiled=True
    )
