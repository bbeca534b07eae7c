"""Shortcut, Jacobian, gate stage and changing weights against formulas written out, and in an audit's visibility."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from loopscope.audit.total_visibility import measure_visibility
from loopscope.config.families import FAMILIES
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.jacobian import squared_stretch
from loopscope.objectives.objective import Loss, build_objective
from loopscope.recurrence import LoopContext, LoopState, unroll

LOOPS = 4
IDS = torch.arange(24).view(2, 12)
LABELS = (IDS * 7 + 1) % 40


def made(**changes: object) -> LoopedTransformer:
    torch.manual_seed(0)
    values = {"dim": 32, "heads": 4, "loops": LOOPS, "vocabulary": 40, "sequence": 12, **changes}
    model = LoopedTransformer(ModelConfig(**values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def evaluate(model: LoopedTransformer, **config: object) -> Loss:
    return build_objective(ObjectiveConfig(**config))(unroll(model, IDS), LABELS)


def cross_entropy(logits: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, 1), LABELS.flatten())


@pytest.mark.parametrize("readout", ["rmsnorm", "final-only"])
@pytest.mark.parametrize("embedding", ["none", "modulation"])
def test_the_shortcut_is_a_shorter_unroll(embedding: str, readout: str) -> None:
    """Also where the states know their depth, and where the readout knows the last loop."""
    model = made(loop_embedding=embedding, readout=readout)
    loss = evaluate(model, shortcut={"weight": 0.3, "loss_weight": 0.2})
    *_, short = unroll(model, IDS, LOOPS // 2)
    *_, whole = unroll(model, IDS, LOOPS)
    distance = F.mse_loss(short.features(), whole.features().detach())
    assert torch.allclose(loss.terms["shortcut_consistency"], 0.3 * distance, rtol=1e-5)
    assert torch.allclose(
        loss.terms["shortcut_cross_entropy"], 0.2 * cross_entropy(short.logits()), rtol=1e-5
    )
    assert torch.allclose(loss.total, sum(loss.terms.values()))


def test_a_second_unroll_starts_from_the_same_noise() -> None:
    """In training, where states know their depth: its own run from the same seed, and nothing drawn after moves."""
    model = made(loop_embedding="modulation", start="random", injection="add").train()
    objective = build_objective(ObjectiveConfig(shortcut={"weight": 1.0, "loss_weight": 0.0}))
    for seed in range(4):
        torch.manual_seed(seed)
        found = objective(unroll(model, IDS), LABELS).terms["shortcut_consistency"]
        after = torch.rand(())
        torch.manual_seed(seed)
        states = unroll(model, IDS)
        next(states)
        short = int(torch.randint(1, LOOPS, ()))
        *_, whole = states
        assert torch.equal(torch.rand(()), after)
        torch.manual_seed(seed)
        *_, fewer = unroll(model, IDS, short)
        assert torch.allclose(found, F.mse_loss(fewer.features(), whole.features()), rtol=1e-5)


def test_the_longer_unroll_is_held_fixed() -> None:
    """A state past the shortcut gets no gradient from it."""
    model = made()
    states = list(unroll(model, IDS))
    term = build_objective(ObjectiveConfig(shortcut={"weight": 1.0}))(states, LABELS).terms[
        "shortcut_consistency"
    ]
    gradients = torch.autograd.grad(term, [state.hidden for state in states], allow_unused=True)
    assert [gradient is not None for gradient in gradients] == [True, True, False, False]


def test_the_shortcut_is_drawn_in_training_and_fixed_otherwise() -> None:
    model = made()
    assert evaluate(model, shortcut={"weight": 1.0}).total == evaluate(model, shortcut={"weight": 1.0}).total
    model.train()
    found = set()
    for seed in range(20):
        torch.manual_seed(seed)
        found.add(
            round(float(evaluate(model, shortcut={"weight": 1.0}).terms["shortcut_consistency"].detach()), 9)
        )
    assert len(found) == LOOPS - 1


def test_one_loop_has_no_shortcut() -> None:
    assert set(evaluate(made(loops=1), shortcut={"weight": 1.0}).terms) == {"cross_entropy"}


def test_power_iteration_finds_the_largest_stretch_of_the_loop_map() -> None:
    """‖Jᵀv‖ of a written-out Jacobian: one product exactly, many products near its largest singular direction."""
    model = made(carry=["damping"]).double()
    *_, last = unroll(model, IDS[:1, :4])
    hidden, context = last.hidden.detach(), last.context

    def loop_map(flat: torch.Tensor) -> torch.Tensor:
        state = flat.view_as(hidden)
        return model.core(model.carry(state, LOOPS, context), LOOPS + 1, context).flatten()

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        jacobian = torch.autograd.functional.jacobian(loop_map, hidden.flatten())
    vector = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)).double().flatten()
    vector = vector / vector.norm()
    once = squared_stretch(last, 1, random=False)
    assert torch.allclose(once, (jacobian.T @ vector).square().sum())
    # Normalised products with Jᵀ: their length tends to the spectral radius.
    radius = torch.linalg.eigvals(jacobian).abs().max()
    lengths = []
    for _ in range(301):
        vector = jacobian.T @ (vector / vector.norm())
        lengths.append(vector.norm())
    assert torch.allclose(squared_stretch(last, 301, random=False).sqrt(), vector.norm(), rtol=1e-6)
    # A complex pair makes single lengths swing; their geometric mean is the radius.
    assert float(torch.stack(lengths[100:]).log().mean().exp()) == pytest.approx(float(radius), rel=0.01)


@pytest.mark.parametrize("through_state", [False, True])
def test_the_jacobian_penalty_is_the_same_under_gradient_checkpointing(through_state: bool) -> None:
    """Loss and gradients; the model goes on checkpointing afterwards."""
    model = made(prelude=1, injection="add").train()
    found = []
    for checkpointing in ("none", "layer", "loop"):
        model.zero_grad()
        model.gradient_checkpointing = checkpointing
        torch.manual_seed(0)
        loss = evaluate(model, jacobian={"weight": 0.5, "iterations": 2, "through_state": through_state})
        loss.total.backward()
        assert model.gradient_checkpointing == checkpointing
        found.append([loss.terms["jacobian"].detach(), *(p.grad for p in model.parameters())])
    for plain, *recomputed in zip(*found, strict=True):
        assert all(torch.allclose(plain, other, rtol=1e-5, atol=1e-7) for other in recomputed)


def test_the_jacobian_penalty_makes_the_loop_map_contract() -> None:
    model = made().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    *_, before = unroll(model, IDS)
    start = float(squared_stretch(before, 20, random=False).detach())
    objective = build_objective(
        ObjectiveConfig(placement="terminal", jacobian={"weight": 1.0, "iterations": 4})
    )
    for step in range(60):
        torch.manual_seed(step)
        optimizer.zero_grad()
        objective(unroll(model, IDS), LABELS).terms["jacobian"].backward()
        optimizer.step()
    *_, after = unroll(model, IDS)
    assert float(squared_stretch(after, 20, random=False).detach()) < 0.8 * start


def test_the_gate_stage_fits_measured_improvement_and_trains_nothing_else() -> None:
    model = made(exit_gate=True)
    loss = evaluate(model, placement="gate-improvement", gate_slope=30.0, gate_threshold=0.01)
    states = list(unroll(model, IDS))
    losses = [F.cross_entropy(s.logits().transpose(1, 2), LABELS, reduction="none") for s in states]
    terms = []
    for k in range(1, LOOPS):
        target = torch.sigmoid(30 * ((losses[k - 1] - losses[k]).clamp(min=0) - 0.01)).detach()
        going_on = 1 - torch.sigmoid(states[k].gate_logit())
        terms.append(-(target * going_on.log() + (1 - target) * (1 - going_on).log()).mean())
    assert torch.allclose(loss.total, torch.stack(terms).mean(), rtol=1e-5)
    loss.total.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"gate.weight", "gate.bias"}
    with pytest.raises(ValueError, match="set model.exit_gate: true"):
        evaluate(made(), placement="gate-improvement")


@pytest.mark.parametrize("reads", ["readout", "hidden"])
def test_a_step_of_the_gate_stage_moves_the_gate_and_not_one_bit_else(reads: str) -> None:
    """On Ouro's architecture, whose gate reads through the carry's norm, with a coda before it."""
    model = made(**FAMILIES["ouro"].model, coda=1, prelude=1).train()
    if reads == "hidden":
        model.config = model.config.model_copy(update={"gate_reads": "hidden"})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logit = next(iter(unroll(model, IDS))).gate_logit()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    states = list(unroll(model, IDS))
    assert torch.equal(model.gate_alone(states[0].hidden, 1, states[0].context), logit)
    build_objective(ObjectiveConfig(placement="gate-improvement"))(states, LABELS).total.backward()
    optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"gate.weight", "gate.bias"}


def test_loop_weights_move_linearly_as_shares() -> None:
    model = made()
    losses = torch.stack([cross_entropy(state.logits()) for state in unroll(model, IDS)])
    objective = build_objective(ObjectiveConfig(loop_weights=(4, 4, 4, 4), final_loop_weights=(0, 0, 0, 1)))
    for progress, weights in ((0.0, [0.25] * 4), (0.5, [0.125, 0.125, 0.125, 0.625]), (1.0, [0, 0, 0, 1])):
        objective.advance(progress)
        total = objective(unroll(model, IDS), LABELS).total
        assert torch.allclose(total, (torch.tensor(weights) * losses).sum(), rtol=1e-5)
    fresh = build_objective(ObjectiveConfig(final_loop_weights=(0, 0, 0, 1)))
    assert torch.allclose(fresh(unroll(model, IDS), LABELS).total, losses[-1])  # untold: as at the end


def test_an_audit_lists_every_term_by_name() -> None:
    model = made()
    config = {"shortcut": {"weight": 0.5}, "jacobian": {"weight": 0.1, "through_state": True}}
    seen = measure_visibility(model, build_objective(ObjectiveConfig(**config)), IDS, LABELS)
    names = [set(loop.direct) for loop in seen]
    assert names[0] == {"cross_entropy@1/readout"}
    shortcut = {"shortcut_consistency/readout", "shortcut_cross_entropy/readout"}
    assert names[1] == {"cross_entropy@2/readout", *shortcut}
    assert names[3] == {"cross_entropy@4/readout", "jacobian/state"}
    assert seen[3].direct["jacobian/state"].share > 1e-3  # branches shrink against a larger state: it is seen
    assert set(seen[0].total) >= {"shortcut_consistency", "shortcut_cross_entropy", "jacobian", "loss"}
    blind = seen[1].direct["shortcut_consistency/readout"]
    assert blind.share < 1e-2  # behind a readout that normalises, the shortcut sees no scale either
    raw = made(readout="raw")
    seen = measure_visibility(raw, build_objective(ObjectiveConfig(**config)), IDS, LABELS)
    assert seen[1].direct["shortcut_consistency/readout"].share > 0.05
    held = measure_visibility(model, build_objective(ObjectiveConfig(jacobian={"weight": 0.1})), IDS, LABELS)
    assert not any("jacobian" in name for loop in held for name in loop.direct)  # STARS holds the state fixed
    gated = made(exit_gate=True)
    stage = measure_visibility(
        gated, build_objective(ObjectiveConfig(placement="gate-improvement")), IDS, LABELS
    )
    assert all(loop.direct == {} and loop.total["loss"].absolute == 0 for loop in stage)


def test_the_finest_terms_sum_to_the_loss() -> None:
    model = made(exit_gate=True)
    for config in (
        {"shortcut": {"weight": 0.5}, "jacobian": {"weight": 0.1}, "norm_penalty": 0.1},
        {"placement": "exit-weighted", "shortcut": {"weight": 0.5}},
        {"placement": "gate-improvement"},
        {"final_loop_weights": (1, 2, 0, 4)},
    ):
        objective = build_objective(ObjectiveConfig(**config))
        terms = objective.split(list(unroll(model, IDS)), LABELS)
        assert torch.allclose(sum(terms.values()), objective(unroll(model, IDS), LABELS).total, rtol=1e-5)
    assert build_objective(ObjectiveConfig(jacobian={"weight": 1.0})).name == "dense + jacobian"


def test_a_hand_made_state_is_enough() -> None:
    """Extras ask a state's model and context only: foreign models and replaced states work."""
    model = made()
    context = LoopContext(IDS, model.embed(IDS), 1)
    state = LoopState(1, model.core(context.embedded, 1, context), model, context)
    loss = build_objective(ObjectiveConfig(jacobian={"weight": 1.0}))([state], LABELS)
    assert set(loss.terms) == {"cross_entropy", "jacobian"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"placement": "terminal", "final_loop_weights": (1.0,)},
            "final_loop_weights belongs to placement 'dense'",
        ),
        ({"final_loop_weights": (0.0, 0.0)}, "at least one above 0"),
        ({"gate_slope": 3.0}, "gate_slope belongs to placement 'gate-improvement'"),
        ({"placement": "gate-improvement", "norm_penalty": 0.1}, "norm_penalty would train the rest"),
        ({"jacobian": {"iterations": 0}}, "greater than or equal to 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ObjectiveConfig(**settings)
