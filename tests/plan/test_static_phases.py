"""A schedule of objectives, read from its config: every phase judged as alone, the whole by its worst, and its cost."""

from typing import Any

import pytest
import torch

from loopscope.audit.audit_report import judge
from loopscope.audit.verdict import model_verdict
from loopscope.config.recipes import recipe
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.objective import build_objective
from loopscope.plan.static_audit import audit_config
from loopscope.plan.training_flops import phase_costs, training_cost
from tests.plan.test_static_audit import IDS, LABELS, SMALL

PENALISED: dict[str, Any] = {"until": 0.75, "placement": "dense", "norm_penalty": {"weight": 0.01}}


def config_of(readout: str, *phases: dict[str, Any], **training: Any) -> Any:
    over = {
        **SMALL,
        "model": {**SMALL["model"], "readout": readout, "exit_gate": True},
        "objective": {"schedule": phases} if len(phases) > 1 else phases[0],
        "training": {"steps": 200, **training},
    }
    return recipe("laptop", "mine", over)


@pytest.mark.parametrize("readout", ["rmsnorm", "final-only", "raw"])
def test_each_phase_has_the_verdict_that_is_measured_under_it(readout: str) -> None:
    config = config_of(
        readout,
        {"until": 0.25, "placement": "exit-weighted"},
        PENALISED,
        {"placement": "terminal"},
    )
    torch.manual_seed(0)
    model, read = LoopedTransformer(config.model), audit_config(config)
    assert len(read.phases) == 3
    for phase, objective in zip(read.phases, config.objective.phases, strict=True):
        measured = judge(model, IDS, LABELS, build_objective(objective)).loops
        assert [loop.status for loop in phase.loops] == [loop.status for loop in measured]
        assert phase.verdict == model_verdict(measured)
    assert read.verdict in [phase.verdict for phase in read.phases]


def test_the_whole_is_its_worst_phase_and_says_when() -> None:
    config = config_of("rmsnorm", PENALISED, {"placement": "terminal"})
    read = audit_config(config)
    assert (read.verdict, [phase.verdict for phase in read.phases]) == ("blind", ["visible", "blind"])
    assert read.why.startswith(
        "in phase 2, terminal (steps 151-200), blind at every loop: only loop 4 is read"
    )
    assert read.why.endswith("; phase 1, dense + norm_penalty, is visible")
    assert [row["phase"] for row in read.table()] == [1] * 4 + [2] * 4
    assert any("Phase 1, dense + norm_penalty (steps 1-150, " in line for line in read.lines())
    of_epochs = audit_config(
        config_of("rmsnorm", PENALISED, {"placement": "terminal"}, steps=None, epochs=2.0)
    )
    assert [phase.when for phase in of_epochs.phases] == [
        "0 % to 75 % of the steps",
        "75 % to 100 % of the steps",
    ]


def test_a_step_costs_what_its_phase_costs_and_the_run_the_mean() -> None:
    dense, terminal = {k: v for k, v in PENALISED.items() if k != "until"}, {"placement": "terminal"}
    config = config_of("raw", PENALISED, terminal)
    alone = [training_cost(config_of("raw", each)) for each in (dense, terminal)]
    assert list(phase_costs(config)) == alone
    assert alone[0] > alone[1]
    assert training_cost(config) == round(0.75 * alone[0] + 0.25 * alone[1])
