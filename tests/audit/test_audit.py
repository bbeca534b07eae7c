"""The audit against finite differences, closed forms and refusals."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import loopscope
from loopscope.audit.carry import carries
from loopscope.audit.expansion import fit
from loopscope.audit.visibility import visibility
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import unroll
from loopscope.results import to_json

LOOPS = 3
IDS = torch.arange(24).view(2, 12)
LABELS = (IDS * 7 + 1) % 40


def make(**settings: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    values = {"dim": 32, "heads": 4, "loops": LOOPS, "vocabulary": 40, "sequence": 12}
    return LoopedTransformer(ModelConfig(**{**values, "initialisation": "published", **settings})).eval()


def audit(model: LoopedTransformer, **objective: Any) -> Any:
    return loopscope.audit(model, IDS, LABELS, build_objective(ObjectiveConfig(**objective)))


def carried(model: LoopedTransformer, loops: int = LOOPS) -> list[Any]:
    with torch.no_grad():
        return carries(list(unroll(model, IDS, loops)))


@pytest.mark.parametrize("placement", ["dense", "terminal", "exit-weighted"])
@pytest.mark.parametrize("loop", [1, 2, LOOPS])
def test_total_visibility_is_the_finite_difference(placement: str, loop: int) -> None:
    model = make(readout="raw", exit_gate=True).double()
    objective = build_objective(ObjectiveConfig(placement=placement, norm_penalty=0.01))

    def loss(factor: float) -> float:
        def scaled() -> Any:
            states = unroll(model, IDS)
            state = next(states)
            while True:
                changed = state.hidden * factor if state.loop == loop else state.hidden
                yield type(state)(state.loop, changed, model, state.context)
                try:
                    state = states.send(changed)
                except StopIteration:
                    return

        return float(objective(scaled(), LABELS).total.detach())

    step = 1e-5
    slope = (loss(1 + step) - loss(1 - step)) / (2 * step)
    assert visibility(model, objective, IDS, LABELS)[loop - 1].total["loss"].d_log_scale == pytest.approx(
        slope, rel=1e-4
    )


def test_direct_visibility_of_the_last_loop_is_the_total() -> None:
    model = make(readout="raw").double()
    last = visibility(model, build_objective(ObjectiveConfig()), IDS, LABELS)[-1]
    assert sum(entry.d_log_scale for entry in last.direct.values()) == pytest.approx(
        last.total["loss"].d_log_scale
    )


def test_a_penalty_has_its_closed_form() -> None:
    model = make().double()
    objective = build_objective(ObjectiveConfig(norm_penalty=0.3))
    squares = [float(state.hidden.square().mean()) for state in unroll(model, IDS)]
    for loop, square in zip(visibility(model, objective, IDS, LABELS), squares, strict=True):
        assert loop.direct["norm_penalty/state"].d_log_scale == pytest.approx(2 * 0.3 * square / LOOPS)
        assert loop.direct["norm_penalty/state"].share == pytest.approx(1)


def test_carry_of_known_recurrences() -> None:
    """h -> a·h + b: d log s' / d log s = a·s / (a·s + b) for a constant state; a norm between loops gives 0."""

    class Affine(LoopedTransformer):
        def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            return 0.5 * hidden + 3.0

        def embed(self, input_ids: Tensor) -> Tensor:
            return torch.full((*input_ids.shape, 32), 4.0)

    config = make().config
    found = carried(Affine(config), 2)
    # H_1 = 5, H_2 = 5.5: from H_1, 0.5·5 / 5.5.
    assert found[0].mean == pytest.approx(2.5 / 5.5, rel=1e-3)
    assert found[0].spread == pytest.approx(0, abs=1e-4)
    normed = carried(make(carry=("layernorm",)))
    assert max(abs(carry.mean) for carry in normed) < 1e-3
    damped = carried(make(carry=("damping",), damping=0.6))
    assert all(carry.gain == pytest.approx(0.6, rel=1e-4) for carry in damped)
    assert all(carry.slope == pytest.approx(0.6, rel=1e-4) for carry in damped)
    assert all(carry.slope == pytest.approx(0, abs=1e-3) for carry in normed)


def test_a_decay_beside_an_injection_is_damped() -> None:
    """The step is affine: what it injects says nothing of how much of the state it leaves."""

    class Injected(LoopedTransformer):
        def carry(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            return 0.5 * hidden + 3 * context.embedded

    report = loopscope.audit(Injected(make().config), IDS, LABELS)
    assert report.carry[0].gain > 1
    assert report.carry[0].slope == pytest.approx(0.5, rel=1e-4)
    assert report.verdict == "damped"


def test_a_large_state_is_carried_whole() -> None:
    model = make()
    with torch.no_grad():
        model.token_embedding.weight.mul_(1e4)
    assert all(carry.mean == pytest.approx(1, abs=0.01) for carry in carried(model))


@pytest.mark.parametrize(
    ("model", "objective", "verdict"),
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
def test_verdicts_before_any_training(model: dict[str, Any], objective: dict[str, Any], verdict: str) -> None:
    assert audit(make(**model), **objective).verdict == verdict


def test_the_report_is_a_record_that_json_can_hold() -> None:
    report = audit(make())
    data = json.loads(to_json(report))
    assert data["verdict"] == "blind"
    assert len(data["loops"]) == LOOPS
    assert len(data["expansion"]["rms"]) == 4 * LOOPS
    assert set(data["rescaled"]) == {"1", "2", "3"}


def test_an_audit_leaves_the_model_as_it_was() -> None:
    model = make(dropout=0.1).train()
    model.layers[0].eval()  # a frozen part stays in its mode
    before = {name: value.clone() for name, value in model.state_dict().items()}
    audit(model)
    assert model.training
    assert not model.layers[0].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_in_half_precision_is_audited_in_fp32() -> None:
    model = make().bfloat16()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = audit(model)
    assert report.notes == ("The model's weights are bfloat16; fp32 copies of them were audited.",)
    assert report.verdict == "blind"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert report.cross_entropy == audit(make().bfloat16().float()).cross_entropy
    assert audit(make()).notes == ()


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


def test_a_small_state_is_not_seen_through_the_norms_eps() -> None:
    """A norm lets through eps / (mean square + eps) of a change of scale: real, but gone once the state grows."""
    model = make(initialisation="scaled", norm_eps=1e-4)
    report = audit(model)
    with torch.no_grad():
        shares = [1e-4 / (state.hidden.square().mean(dim=-1) + 1e-4) for state in unroll(model, IDS)]
    for loop, share in zip(report.visibility, shares, strict=True):
        assert loop.readout_response == pytest.approx(float(share.mean()), rel=1e-3)
    assert report.visibility[0].readout_response > 0.05
    assert max(loop.direct for loop in report.loops) > 1e-4
    assert report.verdict == "blind"


@pytest.mark.parametrize("loop", [1, LOOPS])
def test_direct_visibility_is_the_finite_difference_of_every_term(loop: int) -> None:
    model = make(readout="raw", exit_gate=True).double()
    objective = build_objective(ObjectiveConfig(placement="exit-weighted", norm_penalty=0.01))
    with torch.no_grad():
        states = list(unroll(model, IDS))

    def terms(factor: float) -> dict[str, float]:
        scaled = [
            replace(state, hidden=state.hidden * (factor if state.loop == loop else 1.0)) for state in states
        ]
        return {name: float(term) for name, term in objective.split(scaled, LABELS).items()}

    step = 1e-5
    up, down = terms(1 + step), terms(1 - step)
    direct = visibility(model, objective, IDS, LABELS)[loop - 1].direct
    assert set(up) == {"cross_entropy@1", "cross_entropy@2", "cross_entropy@3", "entropy", "norm_penalty"}
    for name in up:
        found = sum(entry.d_log_scale for path, entry in direct.items() if path.startswith(name + "/"))
        assert found == pytest.approx((up[name] - down[name]) / (2 * step), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("placement", ["terminal", "dense", "exit-weighted"])
def test_the_finest_terms_sum_to_the_loss(placement: str) -> None:
    model = make(exit_gate=True)
    objective = build_objective(
        ObjectiveConfig(placement=placement, norm_penalty=0.01, scale_anchor={"weight": 0.1})
    )
    with torch.no_grad():
        whole = objective(unroll(model, IDS), LABELS).total
        parts = objective.split(unroll(model, IDS), LABELS)
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(), whole)


def test_rescaling_a_blind_readout_leaves_its_own_exit_as_it_was() -> None:
    report = audit(make())
    for loop in range(1, LOOPS + 1):
        after = report.rescaled[str(loop)]
        assert after.rms[loop - 1] == pytest.approx(2 * report.expansion.rms[loop - 1], rel=1e-4)
        assert after.cross_entropy[:loop] == pytest.approx(report.cross_entropy[:loop], rel=1e-4)
        if loop < LOOPS:
            assert after.cross_entropy[loop] != report.cross_entropy[loop]


def test_remedies_are_measured() -> None:
    """What helps depends on the objective: a raw readout before the last loop is never read by a terminal loss."""
    dense = {remedy.change.split("(")[-1]: remedy for remedy in audit(make()).remedies}
    terminal = {
        remedy.change.split("(")[-1]: remedy for remedy in audit(make(), placement="terminal").remedies
    }
    assert dense["readout final-only)"].verdict == "visible"
    assert terminal["readout final-only)"].verdict == "blind"
    assert dense["readout raw)"].verdict == terminal["readout raw)"].verdict == "visible"
    assert dense["add a norm penalty of weight 0.01"].cost == 0
    assert dense["put an RMSNorm between loops"].verdict == "removed"
    raw = make(readout="raw")
    raw.load_state_dict({k: v for k, v in make().state_dict().items() if not k.startswith("reading")})
    assert dense["readout raw)"].cross_entropy == pytest.approx(sum(audit(raw).cross_entropy) / LOOPS)


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


def test_frozen_weights_hide_nothing() -> None:
    model = make(readout="raw")
    before = audit(model, placement="terminal")
    model.requires_grad_(False)
    after = audit(model, placement="terminal")
    for mine, other in zip(after.visibility, before.visibility, strict=True):
        assert mine.total["loss"].d_log_scale == pytest.approx(other.total["loss"].d_log_scale, rel=1e-5)
        assert mine.total["loss"].absolute > 0.1
    with torch.inference_mode():
        assert audit(model, placement="terminal").verdict == "visible"


@pytest.mark.parametrize("inside", [False, True])
def test_a_decay_is_seen_wherever_it_stands(inside: bool) -> None:
    """Where a stranger's module ends is no part of the mathematics."""

    class Decaying(LoopedTransformer):
        def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            start = 0.9 * hidden if inside and loop > 1 else hidden
            return super().core(start, loop, context)

        def carry(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            return hidden if inside else 0.9 * hidden

    report = loopscope.audit(Decaying(make().config), IDS, LABELS)
    assert report.verdict == "damped"
    assert report.carry[0].slope == pytest.approx(0.9, rel=1e-3)
    assert audit(make()).carry[0].slope == pytest.approx(1.0, rel=1e-3)


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


def test_labels_that_are_the_inputs_are_noted() -> None:
    assert "every cross-entropy is of the token that was read" in loopscope.audit(make(), IDS, IDS).notes[0]
    some = IDS.clone()
    some[:, ::3] = -100  # labels that do not count say nothing: the rest repeat the input all the same
    assert "every cross-entropy is of the token that was read" in loopscope.audit(make(), IDS, some).notes[0]


def test_lines_are_fitted_by_least_squares() -> None:
    line = fit([1.0, 2.0, 3.0, 4.0], [3.0, 5.0, 7.0, 9.0])
    assert (line.slope, line.intercept, line.r_squared) == pytest.approx((2, 1, 1))
    assert fit([1.0, 2.0], [1.0, 2.0]) is None
    assert fit([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


def test_bad_input_is_refused() -> None:
    model = make()
    for labels, message in (
        (LABELS[:1], "one label per token"),
        (LABELS + 40, "this model has ids 0 to 39"),
        (torch.full_like(LABELS, -100), "no token to measure"),
    ):
        with pytest.raises(ValueError, match=message):
            loopscope.audit(model, IDS, labels)
    with pytest.raises(ValueError, match="12 learned positions"):
        loopscope.audit(model, IDS.view(1, 24), LABELS.view(1, 24))
    with pytest.raises(ValueError, match=r"loopscope.adapt\(model\)"):
        loopscope.audit(torch.nn.Linear(2, 2), IDS, LABELS)
    with pytest.raises(ValueError, match="objective is 'dense'; pass an Objective"):
        loopscope.audit(model, IDS, LABELS, "dense")
    with pytest.raises(ValueError, match="input_ids is a list; give a tensor"):
        loopscope.audit(model, IDS.tolist(), LABELS)
    with pytest.raises(ValueError, match="dtype torch.float32"):
        loopscope.audit(model, IDS, LABELS.float())
    with torch.no_grad():
        model.layers[1].attention.out.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="layers.1.attention.out.weight are not all finite"):
        loopscope.audit(model, IDS, LABELS)
