"""What a config says of its loops must be what an audit of the model measures."""

import pytest
import torch

from loopscope.audit.audit_report import judge
from loopscope.audit.verdict import model_verdict
from loopscope.config.recipes import CONDITIONS, recipe
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.objective import build_objective
from loopscope.plan.static_audit import audit_config
from tests.fixtures import VERDICTS

IDS = torch.arange(64).view(2, 32) * 3 % 96
LABELS = (IDS * 5 + 1) % 96
SMALL = {
    "model": {"dim": 32, "heads": 4, "vocabulary": 96, "sequence": 32},
    "data": {"tokenizer": {"vocabulary": 96}},
}


@pytest.mark.parametrize("initialisation", ["published", "scaled"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_shipped_conditions(condition: str, initialisation: str) -> None:
    over = {**SMALL, "model": {**SMALL["model"], "initialisation": initialisation}}
    config = recipe("laptop", condition, over)
    torch.manual_seed(0)
    model = LoopedTransformer(config.model)
    measured = judge(model, IDS, LABELS, build_objective(config.objective)).loops
    read = audit_config(config)
    assert read.verdict == model_verdict(measured) == VERDICTS[condition]
    assert [loop.status for loop in read.loops] == [loop.status for loop in measured]


@pytest.mark.parametrize(
    ("over", "statuses"),
    [
        (
            {
                "model": {"readout": "rmsnorm", "carry": ["damping"]},
                "objective": {"placement": "dense"},
            },
            ["damped"] * 4,
        ),
        (
            {
                "model": {"readout": "rmsnorm"},
                "objective": {
                    "placement": "dense",
                    "norm_penalty": {"weight": 1.0, "over": "each", "loop_weights": [0, 1, 0, 0]},
                },
            },
            ["visible", "visible", "blind", "blind"],
        ),
        (
            {"model": {"readout": "raw"}, "objective": {"placement": "dense", "loop_weights": [1, 1, 0, 0]}},
            ["visible", "visible", "blind", "blind"],
        ),
        (
            {
                "model": {"readout": {"kind": "alpha", "alpha": 0.0}},
                "objective": {"placement": "dense"},
            },
            ["blind"] * 4,
        ),
        (
            {
                "model": {"readout": "layernorm"},
                "objective": {"placement": "dense", "scale_anchor": {"weight": 0.1}},
            },
            ["visible"] * 4,
        ),
        (
            {
                "model": {"readout": "rmsnorm", "exit_gate": True},
                "objective": {"placement": "exit-weighted"},
            },
            ["visible"] * 4,
        ),
        (
            {"model": {"readout": "raw", "loops": 1}, "objective": {"placement": "terminal"}},
            ["visible"],
        ),
        (
            {"model": {"readout": "rmsnorm", "loops": 1}, "objective": {"placement": "terminal"}},
            ["removed"],  # there is no next loop to carry it to
        ),
    ],
)
def test_conditions_of_ones_own(over: dict[str, dict[str, object]], statuses: list[str]) -> None:
    over = {**over, "model": {**SMALL["model"], **over["model"]}, "data": SMALL["data"]}
    config = recipe("laptop", "mine", over)
    torch.manual_seed(0)
    measured = judge(LoopedTransformer(config.model), IDS, LABELS, build_objective(config.objective)).loops
    assert [loop.status for loop in audit_config(config).loops] == statuses
    assert [loop.status for loop in measured] == statuses


def test_every_reason_names_its_cause() -> None:
    assert "readout rmsnorm is scale-invariant" in audit_config(recipe("laptop", "dense/rmsnorm")).why
    assert "only loop 4 is read" in audit_config(recipe("laptop", "terminal/rmsnorm")).why
    assert "norm penalty sees it" in audit_config(recipe("laptop", "dense/rmsnorm+penalty")).why
    assert "carry rmsnorm" in audit_config(recipe("laptop", "dense/rmsnorm+interloop")).why
    first = audit_config(recipe("laptop", "terminal/raw")).loops[0]
    assert "at loop 4, to which the scale is carried" in first.reason
