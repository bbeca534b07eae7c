"""A model that is no better than guessing: what depth does to it says nothing of its loops."""

import math

from loopscope.jobs.evaluate_depth import _untaught
from loopscope.results import DepthCurve, LoopQuality


def curve(*losses: float) -> DepthCurve:
    figures = {"bits_per_byte": 1.0, "l2_norm": 1.0, "rms": 1.0, "accuracy": 0.0}
    exits = tuple(LoopQuality(k, loss, math.exp(loss), **figures) for k, loss in enumerate(losses, 1))
    return DepthCurve(reading="at depth", per_loop=exits, window_loss=())


def test_a_model_that_guesses_is_named_and_one_that_learned_is_not() -> None:
    note = _untaught("theirs", [curve(5.6, math.nan), curve(5.55)], 256)
    assert note is not None
    assert note.startswith("theirs: the best exit's loss is 5.550 nats")
    assert "256 tokens equally likely gives 5.545" in note
    assert _untaught("theirs", [curve(5.6, 5.5)], 256) is None
