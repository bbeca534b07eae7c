"""Placements and penalties against hand-written formulas, on a real unroll."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Loss, build_objective
from loopscope.objectives.placements import exit_probabilities
from loopscope.recurrence import LoopState, unroll

LOOPS = 3


@pytest.fixture
def model() -> LoopedTransformer:
    torch.manual_seed(0)
    return LoopedTransformer(
        ModelConfig(dim=32, heads=4, loops=LOOPS, vocabulary=40, sequence=12, exit_gate=True)
    )


IDS = torch.arange(24).view(2, 12)
LABELS = (IDS * 7 + 1) % 40


def evaluate(model: LoopedTransformer, **config: object) -> Loss:
    return build_objective(ObjectiveConfig(**config))(unroll(model, IDS), LABELS)


def losses(states: list[LoopState]) -> list[torch.Tensor]:
    return [F.cross_entropy(state.logits().flatten(0, 1), LABELS.flatten()) for state in states]


@pytest.mark.smoke
def test_terminal_and_dense(model: LoopedTransformer) -> None:
    expected = torch.stack(losses(list(unroll(model, IDS))))
    terminal, dense = evaluate(model, placement="terminal"), evaluate(model, placement="dense")
    weighted = evaluate(model, placement="dense", loop_weights=(1.0, 0.0, 3.0))
    assert torch.allclose(terminal.total, expected[-1])
    assert torch.allclose(dense.total, expected.mean())
    assert torch.allclose(weighted.total, (expected[0] + 3 * expected[2]) / 4)
    assert torch.allclose(dense.cross_entropy, expected.detach())
    assert terminal.cross_entropy.isnan().tolist() == [True, True, False]
    assert weighted.cross_entropy.isnan().tolist() == [False, True, False]


@pytest.mark.smoke
def test_exit_weighted(model: LoopedTransformer) -> None:
    states = list(unroll(model, IDS))
    first, second = (torch.sigmoid(state.gate_logit()) for state in states[:2])
    probability = torch.stack([first, (1 - first) * second, (1 - first) * (1 - second)])
    assert torch.allclose(exit_probabilities([state.gate_logit() for state in states]), probability)
    per_token = torch.stack(
        [F.cross_entropy(state.logits().transpose(1, 2), LABELS, reduction="none") for state in states]
    )
    entropy = -(probability * probability.log()).sum(dim=0).mean()
    loss = evaluate(model, placement="exit-weighted", entropy_weight=0.3)
    assert torch.allclose(loss.total, (probability * per_token).sum(dim=0).mean() - 0.3 * entropy)
    assert torch.allclose(loss.terms["entropy"], -0.3 * entropy)


def test_exit_probabilities_of_one_loop_are_certain() -> None:
    assert torch.equal(exit_probabilities([torch.randn(2, 3)]), torch.ones(1, 2, 3))


def test_penalties_over_all_loops_and_over_each(model: LoopedTransformer) -> None:
    squares = torch.stack([state.hidden.square().mean() for state in unroll(model, IDS)])
    dense = evaluate(model).total

    def extra(**config: object) -> torch.Tensor:
        return evaluate(model, **config).total - dense

    close = {"rtol": 1e-3, "atol": 1e-5}
    assert torch.allclose(extra(norm_penalty=0.5), 0.5 * squares.mean(), **close)
    weights = {"weight": 0.5, "over": "each", "loop_weights": (0.0, 1.0, 1.0)}
    assert torch.allclose(extra(norm_penalty=weights), 0.25 * (squares[1] + squares[2]), **close)
    anchor = {"weight": 2.0, "target": 3.0}
    assert torch.allclose(extra(scale_anchor=anchor), 2 * (squares.mean().sqrt() - 3) ** 2, **close)
    each = {**anchor, "over": "each"}
    assert torch.allclose(extra(scale_anchor=each), 2 * ((squares.sqrt() - 3) ** 2).mean(), **close)


def test_ignored_labels_leave_every_mean(model: LoopedTransformer) -> None:
    labels = LABELS.clone()
    labels[1] = -100
    for placement in ("terminal", "dense", "exit-weighted"):
        objective = build_objective(ObjectiveConfig(placement=placement))
        masked = objective(unroll(model, IDS), labels).total
        alone = objective(unroll(model, IDS[:1]), LABELS[:1]).total
        assert torch.allclose(masked, alone, atol=1e-6)


def test_the_total_is_the_sum_of_its_terms(model: LoopedTransformer) -> None:
    loss = evaluate(model, placement="exit-weighted", norm_penalty=0.1, scale_anchor={"weight": 0.1})
    assert set(loss.terms) == {"cross_entropy", "entropy", "norm_penalty", "scale_anchor"}
    assert torch.allclose(loss.total, sum(loss.terms.values()))


def test_dense_over_rmsnorm_is_blind_and_a_penalty_sees(model: LoopedTransformer) -> None:
    """The paper's point in one test: d loss / d log s_k of what reads H_k itself."""

    def radial(**config: object) -> list[float]:
        seen = []
        for loop in range(1, LOOPS + 1):
            states = list(unroll(model, IDS))
            cut = [
                LoopState(s.loop, s.hidden.detach().requires_grad_(s.loop == loop), s.model, s.context)
                for s in states
            ]
            loss = build_objective(ObjectiveConfig(**config))(cut, LABELS).total
            hidden = cut[loop - 1].hidden
            (gradient,) = torch.autograd.grad(loss, hidden)
            seen.append(float((gradient * hidden).sum()))
        return seen

    with torch.no_grad():
        model.token_embedding.weight.mul_(300)  # well above the norm's eps
    squares = evaluate(model).mean_square
    assert max(map(abs, radial(placement="dense"))) < 1e-4
    seen = torch.tensor(radial(placement="dense", norm_penalty=0.01))
    assert torch.allclose(seen, 2 * 0.01 * squares / LOOPS, rtol=1e-3)


def test_a_gate_is_needed_for_exit_weighting() -> None:
    model = LoopedTransformer(ModelConfig(dim=32, heads=4, loops=2, vocabulary=40, sequence=12))
    with pytest.raises(ValueError, match="set model.exit_gate: true"):
        evaluate(model, placement="exit-weighted")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"placement": "every"},
            "unknown placement 'every'. Known: terminal, dense, exit-weighted, gate-improvement. One",
        ),
        ({"placement": "terminal", "loop_weights": (1.0, 2.0)}, "loop_weights belongs to placement 'dense'"),
        ({"loop_weights": (0.0, 0.0)}, "at least one above 0"),
        ({"entropy_weight": 0.5}, "entropy_weight belongs to placement 'exit-weighted'"),
        ({"norm_penalty": -1.0}, "greater than or equal to 0"),
        ({"norm_penalty": {"weight": 1.0, "loop_weights": (1.0,)}}, "belong to over: each"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ObjectiveConfig(**settings)


def test_weights_must_fit_the_depth() -> None:
    with pytest.raises(ValueError, match="objective.loop_weights has 2 numbers for 4 loops"):
        ObjectiveConfig(loop_weights=(1.0, 1.0)).check_loops(4)
