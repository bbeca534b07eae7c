"""Every rule against its definition, written out; thresholds, directions and refusals."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loopscope.evaluation.exits.rules import RULES, AbstractExitRule, Look, ShortlistMargin, build_rule
from loopscope.evaluation.exits.rules.head_matrix import HeadMatrix
from loopscope.evaluation.exits.rules.largest import BLOCK_LOGITS, two_largest
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.placements import exit_probabilities
from loopscope.recurrence import LoopState, unroll

TINY: dict[str, Any] = {"dim": 16, "layers": 1, "heads": 2, "loops": 4, "vocabulary": 600, "sequence": 32}


def made(**changes: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    return LoopedTransformer(ModelConfig(**{**TINY, **changes})).eval()


def ids(batch: int = 3, seq: int = 20) -> Tensor:
    return torch.randint(600, (batch, seq), generator=torch.Generator().manual_seed(1))


def scores(rule: AbstractExitRule, states: list[LoopState]) -> list[Tensor]:
    """Every loop's scores, as a driver gets them."""
    kept: Any = {}
    found = []
    with torch.no_grad():
        for state in states:
            score, kept = rule.score(Look(state), kept)
            found.append(score)
    return found


@torch.no_grad()
def by_hand(name: str, states: list[LoopState]) -> list[Tensor]:
    """The same scores from their definitions, in float64."""
    logits = [state.logits().double() for state in states]
    hidden = [states[0].context.embedded.double(), *(state.hidden.double() for state in states)]
    steps = list(zip(hidden[1:], hidden[:-1], strict=True))
    match name:
        case "logit-margin":
            tops = [values.topk(2, dim=-1).values for values in logits]
            return [top[..., 0] - top[..., 1] for top in tops]
        case "max-probability":
            return [values.softmax(dim=-1).amax(dim=-1) for values in logits]
        case "entropy-confidence":
            entropies = [torch.distributions.Categorical(logits=values).entropy() for values in logits]
            return [1 - entropy / math.log(600) for entropy in entropies]
        case "kl":
            first = torch.full(logits[0].shape[:2], math.inf, dtype=torch.float64)
            logs = [values.log_softmax(dim=-1) for values in logits]
            pairs = zip(logs[1:], logs[:-1], strict=True)
            return [
                first,
                *(F.kl_div(then, now, reduction="none", log_target=True).sum(-1) for now, then in pairs),
            ]
        case "hidden-step":
            return [(now - then).norm(dim=-1) / now.norm(dim=-1) for now, then in steps]
        case "direction-step":
            angles = [F.cosine_similarity(now, then, dim=-1).clamp(-1, 1).acos() for now, then in steps]
            return [2 * (angle / 2).sin() for angle in angles]
        case "gate":
            # The exit distribution gives the last loop what is left, so ask with one loop more.
            gates = [state.gate_logit() for state in states]
            return list(exit_probabilities([*gates, gates[-1]])[:-1].double().cumsum(dim=0))
        case "fixed":
            return [torch.full(ids().shape, float(state.loop)) for state in states]
    raise AssertionError(name)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if issubclass(rule, AbstractExitRule)])
def test_scores_are_their_definitions(name: str) -> None:
    states = list(unroll(made(exit_gate=True, readout="raw"), ids()))
    rule = build_rule(name)
    assert isinstance(rule, AbstractExitRule)
    if name == "shortlist-margin":
        name, rule = "logit-margin", ShortlistMargin(entries=600)  # the whole vocabulary is on the list
    for found, expected in zip(scores(rule, states), by_hand(name, states), strict=True):
        torch.testing.assert_close(found.double(), expected.double(), rtol=2e-4, atol=2e-5)


def test_a_shortlist_holds_what_the_first_exit_finds_likely_and_stays() -> None:
    (first, second, *_) = unroll(made(), ids(seq=32))
    rule = ShortlistMargin(entries=5)
    with torch.no_grad():
        _, kept = rule.score(Look(first), {})
        score, again = rule.score(Look(second), kept)
        sampled = first.logits()[:, [31, 15]].softmax(-1).mean(1).topk(5, dim=1).indices
        few = second.logits().gather(2, kept["shortlist"][:, None].expand(-1, 32, -1)).sort(dim=2).values
    assert torch.equal(kept["shortlist"].sort().values, sampled.sort().values)
    assert again["shortlist"] is kept["shortlist"]
    torch.testing.assert_close(score, few[..., -1] - few[..., -2], rtol=1e-4, atol=1e-5)


def test_the_head_matrix_follows_the_weights() -> None:
    model, rule = made(tied=False), ShortlistMargin(entries=600)
    assert model.unembedding is not None
    states = list(unroll(model, ids()))[:1]
    before = scores(rule, states)[0]
    with torch.no_grad():
        model.unembedding.weight.mul_(2)
    torch.testing.assert_close(scores(rule, states)[0], 2 * before)


def test_a_head_that_is_no_matrix_is_refused() -> None:
    class Capped(LoopedTransformer):
        def head(self, features: Tensor) -> Tensor:
            return super().head(features).tanh()

    model = Capped(ModelConfig(**TINY)).eval()
    with pytest.raises(ValueError, match="needs a head that is a matrix"):
        ShortlistMargin().check_model(model, ids())
    features = next(unroll(made(), ids())).features()
    matrix = HeadMatrix.of(made(), features)
    torch.testing.assert_close(matrix.rows, made().token_embedding.weight)


def test_a_gate_rule_needs_a_gate() -> None:
    rule = build_rule("gate")
    assert isinstance(rule, AbstractExitRule)
    with pytest.raises(ValueError, match="needs a model with an exit gate, and this one has none"):
        rule.check_model(made(), ids())
    rule.check_model(made(exit_gate=True), ids())


@given(
    st.integers(2, 3 * BLOCK_LOGITS + 7),
    st.integers(0, 10_000),
    st.sampled_from(["far apart", "ties", "masked"]),
)
def test_two_largest_is_topk(width: int, seed: int, kind: str) -> None:
    values = torch.randn(4, width, generator=torch.Generator().manual_seed(seed))
    if kind == "ties":
        values = values.round()
    if kind == "masked":
        values[:, 2:] = -torch.inf
    assert torch.equal(two_largest(values), values.topk(2, dim=1).values)


@pytest.mark.parametrize("name", list(RULES))
def test_thresholds_have_a_range_and_a_way_to_never_leave(name: str) -> None:
    rule = build_rule(name)
    assert rule.check_threshold(rule.never) == rule.never
    assert rule.check_threshold(max(1, int(rule.low))) == max(1.0, rule.low)
    for wrong in (rule.low - 0.1, -rule.never, math.nan, "0.5", True, None):
        if wrong == rule.high == math.inf:
            continue  # a score below infinity is every score
        with pytest.raises(ValueError, match=rf"threshold is .*; rule '{name}' leaves at a score"):
            rule.check_threshold(wrong)
    if rule.high < math.inf:
        with pytest.raises(ValueError, match=rf"from {rule.low:g} to {rule.high:g}"):
            rule.check_threshold(rule.high + 0.1)


def test_a_score_equal_to_the_threshold_fires_on_either_side() -> None:
    score = torch.tensor([0.25, 0.5, 0.75])
    assert build_rule("max-probability").fires(score, 0.5).tolist() == [False, True, True]
    assert build_rule("direction-step").fires(score, 0.5).tolist() == [True, True, False]
    assert not bool(build_rule("kl").fires(torch.tensor([-math.inf]), -math.inf).any())


def test_an_unknown_rule_gets_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"unknown exit rule 'logit-margn'; did you mean logit-margin\?"):
        build_rule("logit-margn")


def test_masked_logits_do_not_spoil_entropy_or_kl() -> None:
    logits = torch.tensor([[2.0, 1.0, -torch.inf]])
    entropy = float(torch.distributions.Categorical(logits=logits[:, :2]).entropy())
    found = build_rule("entropy-confidence").score_logits(logits, None)  # type: ignore[attr-defined]
    assert float(found) == pytest.approx(1 - entropy / math.log(3), rel=1e-6)
    assert float(build_rule("kl").score_logits(logits, logits)) == 0.0  # type: ignore[attr-defined]
