"""What a config says of more loops than trained, against the depths that training draws and the facts on scale."""

from typing import Any

import pytest

from loopscope.config import recipe
from loopscope.objectives.depth_config import draw_depths
from loopscope.plan.further_loops import further_loops
from loopscope.plan.static_audit import audit_config

SCALE = [
    ("dense/rmsnorm", {}, "changes no exit by itself: readout rmsnorm divides by the state's own size"),
    ("dense/raw", {}, "changes exits: readout raw shows the size"),
    ("dense/final-only", {}, "changes no exit by itself"),  # its last loop is normed
    ("dense/rmsnorm+interloop", {}, "removed between loops"),
]


@pytest.mark.parametrize(("condition", "over", "says"), SCALE)
def test_what_scale_alone_can_do(condition: str, over: dict[str, Any], says: str) -> None:
    said = further_loops(recipe("laptop", condition, over))
    assert says in said
    assert "every step of training runs 4, none runs 8" in said
    assert "not decided" in said


def test_drawn_depths_are_counted() -> None:
    depth = {"distribution": "uniform", "low": 1, "high": 9}
    config = recipe("laptop", "dense/rmsnorm", {"training": {"depth": depth, "steps": 200}})
    drawn = [draw_depths(config.training.depth, 4, 0, step, 1)[0] for step in range(200)]
    share = sum(loops >= 8 for loops in drawn) / 200
    assert 0.1 < share < 0.4
    assert f"{share:.0%} of the steps run 8 or more, none runs 16" in further_loops(config)


def test_both_depths_trained() -> None:
    depth = {"distribution": "uniform", "low": 1, "high": 40}
    config = recipe("laptop", "dense/rmsnorm", {"training": {"depth": depth}})
    assert "Both depths are trained" in further_loops(config)


def test_one_loop_and_the_audit_of_a_config() -> None:
    assert "one loop is trained" in further_loops(recipe("laptop", "unlooped"))
    found = audit_config(recipe("laptop", "dense/raw"))
    assert found.lines()[-1] == f"{found.deeper}." == f"{further_loops(recipe('laptop', 'dense/raw'))}."
