"""Truncated backpropagation in the static reading, against the gradients that a truncated unroll has."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopscope.audit.carry import measure_carries
from loopscope.audit.total_visibility import measure_visibility
from loopscope.audit.verdict import loop_verdicts
from loopscope.config.recipes import recipe
from loopscope.config.run_config import RunConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.depth import unroll_to
from loopscope.objectives.objective import build_objective
from loopscope.plan.static_audit import CUT, audit_config, loops_before_cut
from loopscope.recurrence import LoopContext, unroll
from loopscope.results import Verdict

IDS = torch.arange(32).view(2, 16) * 3 % 48
LABELS = (IDS * 5 + 1) % 48
LOOPS = 4


class Probed(LoopedTransformer):
    """Its layers' output at loop k is multiplied by e^t_k, t_k = 0: dL/dt_k is what they learn there of scale."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.exponents = nn.Parameter(torch.zeros(config.loops))

    def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return super().core(hidden, loop, context) * self.exponents[loop - 1].exp()


def made(backprop: int | None, model: dict[str, Any], objective: dict[str, Any]) -> RunConfig:
    small = {"dim": 16, "heads": 2, "layers": 1, "loops": LOOPS, "vocabulary": 48, "sequence": 16}
    over = {
        "model": {**small, "norm_eps": 1e-12, **model},
        "objective": objective,
        "data": {"tokenizer": {"vocabulary": 48}},
        "training": {"depth": {"backprop": backprop}},
    }
    return recipe("laptop", "mine", over)


def learned(config: RunConfig) -> Tensor:
    """dL/dt_k of one training step's loss, by loop."""
    torch.manual_seed(0)
    model = Probed(config.model).double().eval()
    objective = build_objective(config.objective)
    states = unroll_to(model, IDS, (LOOPS,), config.training.depth.backprop)
    objective(states, LABELS).total.backward()
    return torch.zeros(LOOPS) if model.exponents.grad is None else model.exponents.grad


def truncated_verdicts(config: RunConfig) -> list[Verdict]:
    """The measured verdict's rule, on what terms see of the loops whose gradient reaches the layers."""
    torch.manual_seed(0)
    model = LoopedTransformer(config.model).double().eval()
    cut = loops_before_cut(config)
    seen = measure_visibility(model, build_objective(config.objective), IDS, LABELS)
    for loop in seen[:cut]:
        loop.direct.clear()
    with torch.no_grad():
        carried = measure_carries(list(unroll(model, IDS)))
    kept = [type(loop)(**{**loop.__dict__, "grown": 0.0}) if loop.loop <= cut else loop for loop in seen]
    return [loop.status for loop in loop_verdicts(kept, carried)]


DENSE, TERMINAL = {"placement": "dense"}, {"placement": "terminal"}
EARLY = {"placement": "dense", "loop_weights": [1, 1, 0, 0]}


@pytest.mark.filterwarnings("ignore:training.depth.backprop")
@pytest.mark.parametrize("backprop", [None, 1, 2, 3])
@pytest.mark.parametrize(
    ("model", "objective"),
    [
        ({"readout": "raw"}, DENSE),
        ({"readout": "raw"}, TERMINAL),
        ({"readout": "raw"}, EARLY),
        ({"readout": "rmsnorm"}, DENSE),
        ({"readout": "final-only"}, DENSE),
        ({"readout": "rmsnorm", "carry": ["damping"]}, {**DENSE, "norm_penalty": 0.1}),
        ({"readout": "rmsnorm", "carry": ["rmsnorm"]}, DENSE),
        (
            {"readout": "rmsnorm", "carry": ["damping"]},
            {**DENSE, "norm_penalty": {"weight": 0.1, "over": "each", "loop_weights": [1, 0, 0, 0]}},
        ),
    ],
)
def test_the_reading_is_what_a_truncated_step_measures(
    model: dict[str, Any], objective: dict[str, Any], backprop: int | None
) -> None:
    config = made(backprop, model, objective)
    read = audit_config(config)
    slopes = learned(config)
    cut = LOOPS - (backprop or LOOPS)
    assert [loop.gradient for loop in read.loops] == [loop > cut for loop in range(1, LOOPS + 1)]
    assert not slopes[:cut].any()  # exactly: nothing is recorded there
    reads_after = any(term > cut for term in range(1, LOOPS + 1) if objective is not EARLY or term <= 2)
    assert bool(slopes[cut:].any()) == reads_after
    assert [CUT in loop.reason for loop in read.loops] == [loop <= cut for loop in range(1, LOOPS + 1)]
    assert [loop.status for loop in read.loops] == truncated_verdicts(config)


@pytest.mark.filterwarnings("ignore:training.depth.backprop")
def test_what_only_early_loops_show_is_blind_once_they_are_cut_off() -> None:
    whole = audit_config(made(None, {"readout": "final-only"}, DENSE))
    cut = audit_config(made(1, {"readout": "final-only"}, DENSE))
    assert (whole.verdict, cut.verdict) == ("visible", "blind")
    assert "reads loops before the cut of training.depth.backprop (loop 3)" in cut.loops[0].reason
    assert "its layers are trained at loop 4 only" in cut.loops[0].reason


def test_a_published_cut_is_read_per_loop() -> None:
    read = audit_config(recipe("huginn-3.5b", "huginn"))
    assert [loop.gradient for loop in read.loops] == [False] * 24 + [True] * 8
    assert {loop.status for loop in read.loops} == {"removed"}
    assert read.why.endswith("nothing of the scale reaches the next loop; no gradient reaches loops 1-24")
