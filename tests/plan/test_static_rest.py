"""What a config says of a resting scale, held to what a measured audit says holds it."""

from typing import Any

import pytest

import loopscope
from loopscope.config import recipe
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.objective import build_objective
from loopscope.plan.static_audit import audit_config
from tests.audit.fixtures import IDS, LABELS

SMALL = {"dim": 32, "heads": 4, "layers": 1, "loops": 3, "vocabulary": 256, "sequence": 12}
ANCHORED = {"placement": "dense", "scale_anchor": {"weight": 0.1, "target": 2.0}}


@pytest.mark.parametrize(
    ("condition", "objective"),
    [
        ("dense/rmsnorm", {}),
        ("dense/rmsnorm+penalty", {}),
        ("anchored", ANCHORED),
        ("dense/raw", {}),
        ("dense/final-only", {}),
        ("dense/rmsnorm+interloop", {}),
    ],
)
def test_a_config_and_an_audit_name_the_same_holder(condition: str, objective: dict[str, Any]) -> None:
    own = {"readout": {"kind": "rmsnorm"}} if objective else {}
    over = {"model": SMALL | own, "data": {"tokenizer": {"kind": "bytes"}}, "objective": objective}
    config = recipe("laptop", condition, over)
    said = audit_config(config).resting
    model = LoopedTransformer(config.model).eval()
    found = loopscope.audit(model, IDS, LABELS, build_objective(config.objective), rounding=None).resting
    assert found is not None
    for word in ("nothing", "cross-entropy", "removed"):
        assert (word in said.partition(":")[0].partition(",")[0]) == (word in found.status)
    assert ("penalty" in said or "anchor" in said) == (found.status == "held by penalties")


def test_an_anchor_names_its_target() -> None:
    over = {"model": {"readout": {"kind": "rmsnorm"}}, "objective": ANCHORED}
    assert "RMS 2 (an L2 norm of 22.6)" in audit_config(recipe("laptop", "anchored", over)).resting
