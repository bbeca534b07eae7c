"""Verdicts, and the sentence that gives their reason."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.audit.verdict import loop_verdicts, why
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import unroll
from loopscope.results import SEEN, Carry, LoopVisibility, Radial
from tests.audit.fixtures import IDS, LABELS, LOOPS, audit, make, verdict


@pytest.mark.parametrize(
    ("model", "objective", "expected"),
    [
        ({}, {}, "blind"),
        ({"readout": "layernorm"}, {}, "blind"),
        ({}, {"placement": "terminal"}, "blind"),
        ({"readout": {"kind": "alpha", "alpha": 0.0}}, {}, "blind"),
        ({"readout": "raw"}, {}, "visible"),
        ({"readout": "raw"}, {"placement": "terminal"}, "visible"),
        ({"readout": "final-only"}, {}, "visible"),
        ({"readout": {"kind": "alpha", "alpha": 0.5}}, {}, "visible"),
        ({}, {"norm_penalty": 0.01}, "visible"),
        ({}, {"placement": "terminal", "norm_penalty": 0.01}, "visible"),
        ({}, {"scale_anchor": {"weight": 0.1}}, "visible"),
        ({"exit_gate": True}, {"placement": "exit-weighted"}, "visible"),
        ({"carry": ("rmsnorm",)}, {}, "removed"),
        ({"carry": ("layernorm",)}, {}, "removed"),
        ({"carry": ("damping",)}, {}, "damped"),
    ],
)
def test_verdicts_before_any_training(
    model: dict[str, Any], objective: dict[str, Any], expected: str
) -> None:
    assert verdict(make(**model), **objective) == expected


@pytest.mark.parametrize(
    ("model", "objective"),
    [({}, {}), ({"exit_gate": True}, {"placement": "exit-weighted"}), ({"carry": ("damping",)}, {})],
)
def test_the_verdict_alone_is_the_audits(model: dict[str, Any], objective: dict[str, Any]) -> None:
    built = make(**model)
    report = audit(built, **objective)
    judged = judge(built, IDS, LABELS, build_objective(ObjectiveConfig(**objective)))
    for alone, whole in zip(judged.loops, report.loops, strict=True):
        assert alone.status == whole.status
        assert alone.carry == pytest.approx(whole.carry, abs=1e-3)  # one-sided
        assert alone.exposure == pytest.approx(whole.exposure, rel=1e-2, abs=1e-5)
    assert verdict(built, **objective) == report.verdict


def test_exposure_is_direct_visibility_carried_along() -> None:
    report = audit(
        make(), placement="terminal", norm_penalty={"weight": 0.1, "loop_weights": [0, 1, 0], "over": "each"}
    )
    one, two, three = report.loops
    assert one.direct == pytest.approx(0, abs=1e-7)
    assert one.exposure == pytest.approx(two.direct * report.carry[0].mean)
    assert two.exposure == two.direct > 0.01
    assert three.exposure == three.direct < 1e-5
    assert [loop.status for loop in report.loops] == [
        "visible",
        "visible",
        "visible",
    ]  # the last as the one before


def test_a_satisfied_anchor_is_not_blind() -> None:
    """Where the anchor holds the scale its gradient is nil; what a larger state would meet is not."""
    model = make().double()
    mean_square = sum(float(state.hidden.square().mean()) for state in unroll(model, IDS)) / LOOPS
    report = audit(model, scale_anchor={"weight": 0.1, "target": mean_square**0.5})
    assert max(loop.exposure for loop in report.loops) < 1e-4
    assert report.verdict == "visible"
    assert "meets it once it grows" in report.why


def test_a_padding_token_of_zeros_changes_no_verdict() -> None:
    """It has no scale: left out of the carry, noted, and nothing measured becomes NaN."""

    class Padded(LoopedTransformer):
        def embed(self, input_ids: Tensor) -> Tensor:
            return super().embed(input_ids) * (input_ids > 0)[..., None]

        def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            return super().core(hidden, loop, context) * (context.input_ids > 0)[..., None]

    torch.manual_seed(0)
    padded = Padded(make().config).eval()
    ids, labels = IDS.clone(), LABELS.clone()
    ids[0, :3], labels[0, :3] = 0, -100
    report = loopscope.audit(padded, ids, labels)
    assert report.verdict == "blind"
    assert report.notes[0].startswith("3 of 24 tokens have a state of zeros")
    assert all(math.isfinite(value) for loop in report.carry for value in (loop.mean, loop.gain, loop.slope))
    assert all(
        math.isfinite(value) for clamp in report.radial_clamp.values() for value in clamp.cross_entropy
    )
    with torch.no_grad():
        padded.token_embedding.weight.zero_()
        padded.position_embedding.weight.zero_()
    with pytest.raises(ValueError, match="the carry of loop 1 is not a number"):
        loopscope.audit(padded, ids, labels)


def test_the_sentence_speaks_of_the_loops_concerned() -> None:
    """A gate that sees loop 1 well is no reason to say that it sees the others so much."""
    model = make(exit_gate=True)
    with torch.no_grad():
        model.gate.weight.mul_(0.05)
        model.gate.bias.fill_(9.0)  # everything leaves at loop 1
    report = audit(model, placement="exit-weighted", entropy_weight=0)
    blind = [loop for loop in report.loops if loop.status == "blind"]
    assert [loop.loop for loop in blind] == [2, 3]
    named = float(report.why.split("sees at most ")[1].split(" nats")[0])
    assert named <= max(loop.direct for loop in blind) * 1.05 < report.loops[0].direct


def test_a_last_loop_that_nothing_sees_is_not_called_seen() -> None:
    """It has the verdict of the loop before, and the sentence says why."""
    report = audit(make(readout={"kind": "final-only"}))
    assert report.verdict == "visible"
    assert "The scale of loops 1-2 is seen by" in report.why
    assert report.why.endswith("Loop 3 hands its own on to none.")
    assert "hands" not in audit(make(readout={"kind": "raw"})).why


def test_what_is_seen_only_where_it_is_carried_to_has_its_term_named() -> None:
    """Each loop's own visibility is below what counts; carries above 1 bring it over."""
    weak = Radial(0.8 * SEEN, 0.8 * SEEN, 0.1)
    seen = [LoopVisibility(loop, {"norm_penalty/state": weak}, {}, 10 * SEEN, 0.0, 0.0) for loop in (1, 2)]
    loops = loop_verdicts(seen, [Carry(loop, 1.5, 0.0, 1.0, 1.0) for loop in (1, 2)])
    assert loops[0].status == "visible"
    assert loops[0].exposure == pytest.approx(1.2 * SEEN)
    said = why(loops, seen, ["cross_entropy", "norm_penalty"])
    assert "is seen by the norm penalty, there or at a loop it is carried to" in said
