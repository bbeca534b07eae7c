"""Sequences that leave: against each row run alone, bit for bit at both ends, for any family and foreign models."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import HrmTextConfig, HrmTextForCausalLM

import loopscope
from loopscope.evaluation.exits.early_exits import early_exit
from loopscope.evaluation.exits.rules import RULES, AbstractExitRule, Look, build_rule
from loopscope.evaluation.exits.speed import exit_flops, measure_speed
from loopscope.evaluation.exits.watch import Watch
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.plan.parameters import forward_flops
from loopscope.recurrence import AbstractLoopedLM, narrow, unroll, unroll_from

RUN = [name for name, rule in RULES.items() if issubclass(rule, AbstractExitRule)]
FAMILIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "final-only": {"readout": "final-only"},
    "norm between loops": {"carry": ["rmsnorm"], "readout": "raw"},
    "injected, with a coda": {"prelude": 1, "coda": 1, "injection": "concat", "coda_norm": True},
    "modulated": {"loop_embedding": "modulation", "block": {"activation": "gelu"}},
    "gate that reads the readout": {"gate_reads": "readout", "coda": 1},
}


def made(**changes: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    tiny = {"dim": 16, "layers": 2, "heads": 2, "loops": 4, "vocabulary": 50, "sequence": 12}
    return LoopedTransformer(ModelConfig(**{**tiny, "exit_gate": True, **changes})).eval()


def ids(batch: int = 6, seed: int = 0) -> Tensor:
    return torch.randint(40, (batch, 10), generator=torch.Generator().manual_seed(seed))


def rule_of(name: str) -> AbstractExitRule:
    rule = build_rule(name)
    assert isinstance(rule, AbstractExitRule)
    return rule


@torch.no_grad()
def alone(
    model: AbstractLoopedLM, row: Tensor, rule: AbstractExitRule, threshold: float
) -> tuple[int, Tensor]:
    """The definition: one sequence, loop by loop, until its mean score fires."""
    watch = Watch(rule, threshold)
    for state in unroll(model, row[None]):
        if state.is_last or bool(watch(state)):
            return state.loop, state.logits()[0]
    raise AssertionError


@torch.no_grad()
def between(model: AbstractLoopedLM, batch: Tensor, rule: AbstractExitRule, place: int) -> float:
    """A threshold in the widest gap near the middle of the scores, so that rounding decides nothing."""
    scores, kept = [], {}
    for state in list(unroll(model, batch))[:-1]:
        score, kept = rule.score(Look(state), kept)
        scores.append(score.double().mean(dim=1))
    ordered = torch.cat(scores).sort().values
    ordered = ordered[ordered.isfinite()].unique()
    if len(ordered) < 2:
        return float(ordered[0])
    start = place % (len(ordered) - 1)
    gap = start + int((ordered[start + 1 :] - ordered[start:-1])[:4].argmax())
    return float((ordered[gap] + ordered[gap + 1]) / 2)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("name", RUN)
def test_every_sequence_gets_what_it_gets_alone(name: str, family: str) -> None:
    model, batch = made(**FAMILIES[family]), ids()
    for place in (4, 11):
        rule = rule_of(name)
        threshold = between(model, batch, rule, place)
        found = early_exit(model, batch, rule, threshold)
        for row, loops, logits in zip(batch, found.loops, found.logits, strict=True):
            own_loops, own = alone(model, row, rule, threshold)
            assert int(loops) == own_loops
            torch.testing.assert_close(logits, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RUN)
@pytest.mark.smoke
def test_never_is_full_depth_and_always_is_loop_one_bit_for_bit(name: str) -> None:
    model, batch, rule = made(), ids(), rule_of(name)
    with torch.no_grad():
        states = list(unroll(model, batch))
        first, last = states[0].logits(), states[-1].logits()
    full = early_exit(model, batch, rule, rule.never)
    assert torch.equal(full.logits, last)
    assert full.loops.tolist() == [4] * 6
    loosest = rule.low if rule.leaves == "above" else rule.high
    at_once = early_exit(model, batch, rule, loosest)
    assert torch.equal(at_once.logits, first)
    assert at_once.loops.tolist() == [1] * 6


@settings(max_examples=30)
@given(st.sampled_from(RUN), st.permutations(range(6)), st.integers(0, 16), st.integers(0, 50))
def test_permuting_a_batch_changes_nothing(name: str, order: list[int], place: int, seed: int) -> None:
    model, batch, rule = made(), ids(seed=seed), rule_of(name)
    threshold = between(model, batch, rule, place)
    straight, mixed = (early_exit(model, rows, rule, threshold) for rows in (batch, batch[order]))
    assert torch.equal(mixed.loops, straight.loops[order])
    torch.testing.assert_close(mixed.logits, straight.logits[order], rtol=1e-4, atol=1e-5)


def test_sequences_really_leave_and_no_loop_or_readout_is_run_for_nothing() -> None:
    model, batch, rule = made(), ids(), rule_of("logit-margin")
    threshold = between(model, batch, rule, 8)
    taken = early_exit(model, batch, rule, threshold).loops
    assert len(taken.unique()) > 1
    rows: dict[str, list[int]] = {"core": [], "head": []}

    class Counted(LoopedTransformer):
        def core(self, hidden: Tensor, *rest: Any) -> Tensor:
            rows["core"].append(len(hidden))
            return super().core(hidden, *rest)

        def head(self, features: Tensor) -> Tensor:
            rows["head"].append(len(features))
            return super().head(features)

    counted = Counted(model.config).eval()
    counted.load_state_dict(model.state_dict())
    early_exit(counted, batch, rule, threshold)
    running = [int((taken >= loop).sum()) for loop in range(1, int(taken.max()) + 1)]
    assert rows["core"] == running
    assert rows["head"] == running  # an exit's logits are those that the rule read, and nothing is read twice
    rows["core"].clear(), rows["head"].clear()
    quiet = rule_of("direction-step")
    taken = early_exit(counted, batch, quiet, between(model, batch, quiet, 8)).loops
    assert rows["core"] == [int((taken >= loop).sum()) for loop in range(1, int(taken.max()) + 1)]
    assert rows["head"] == [6]  # all exits in one call


class Injected(nn.Module):
    """A stranger's model: the embedding is injected before every loop, so the carry follows the forward."""

    loops = 4

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.inject = nn.Embedding(40, 16), nn.Linear(32, 16)
        self.layers = nn.ModuleList([nn.Sequential(nn.RMSNorm(16), nn.Linear(16, 16), nn.Tanh())])
        self.norm, self.lm_head = nn.RMSNorm(16), nn.Linear(16, 40)

    def forward(self, ids: Tensor, loops: int | None = None) -> Tensor:
        embedded = x = self.tokens(ids)
        for _ in range(loops or self.loops):
            x = x + self.layers[0](self.inject(torch.cat([x, embedded], dim=-1)))
        return self.lm_head(self.norm(x))


@cache
def wrapped() -> AbstractLoopedLM:
    own = made(exit_gate=False, tied=False)
    return loopscope.wrap(own, "layers", readout="reading", head="unembedding")


@cache
def injected() -> AbstractLoopedLM:
    torch.manual_seed(0)
    return loopscope.wrap(Injected(), "layers", set_loops="loops")


def hrm() -> AbstractLoopedLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
    config = HrmTextConfig(
        vocab_size=40, num_attention_heads=2, initializer_range=0.3, H_cycles=4, L_cycles=2, **sizes
    )
    return loopscope.adapt(HrmTextForCausalLM(config).eval())


@pytest.mark.parametrize("make", [wrapped, injected, hrm])
@pytest.mark.parametrize("narrows", [False, True])
@pytest.mark.parametrize("name", ["logit-margin", "direction-step", "shortlist-margin"])
def test_foreign_models_exit_too(
    make: Callable[[], AbstractLoopedLM], narrows: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch, rule = make(), ids(), rule_of(name)
    assert not type(model).narrows
    # Also the way that is not taken by default, which records again for the rows that are left.
    monkeypatch.setattr(model, "narrows", narrows, raising=False)
    for place in (8, 3, 13):  # the first at which sequences leave at different loops
        threshold = between(model, batch, rule, place)
        found = early_exit(model, batch, rule, threshold)
        if len(found.loops.unique()) > 1:
            break
    assert len(found.loops.unique()) > 1
    for row, loops, logits in zip(batch, found.loops, found.logits, strict=True):
        own_loops, own = alone(model, row, rule, threshold)
        assert int(loops) == own_loops
        torch.testing.assert_close(logits, own, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_narrowed_state_goes_on_as_its_rows_do() -> None:
    model, batch = made(prelude=1, injection="add"), ids()
    rows = torch.tensor([4, 1])
    (first, second, *later) = unroll(model, batch)
    few = narrow(second, rows)
    assert (few.loop, few.context.loops) == (2, 4)
    assert torch.equal(few.context.input_ids, batch[rows])
    for state, whole in zip(unroll_from(few, few.hidden), later, strict=True):
        torch.testing.assert_close(state.hidden, whole.hidden[rows], rtol=1e-5, atol=1e-6)
    assert torch.equal(narrow(first, rows).logits(), first.logits()[rows])


def test_bad_input_is_refused_before_anything_runs() -> None:
    model, batch = made(exit_gate=False), ids()
    model.embed = None  # type: ignore[assignment,method-assign]
    with pytest.raises(ValueError, match=r"threshold is 1.5; rule 'max-probability' .* from 0 to 1"):
        early_exit(model, batch, rule_of("max-probability"), 1.5)
    with pytest.raises(ValueError, match=r"rule is 'oracle', which cannot be run.*knows the labels"):
        early_exit(model, batch, build_rule("oracle"), 0.1)
    with pytest.raises(ValueError, match="rule is 'kl', which cannot be run; give an exit rule"):
        early_exit(model, batch, "kl", 0.1)
    with pytest.raises(ValueError, match="loops is 0"):
        early_exit(model, batch, rule_of("kl"), 0.1, loops=0)
    with pytest.raises(ValueError, match="pairs is 0"):
        measure_speed(model, batch, rule_of("kl"), 0.1, pairs=0)
    with pytest.raises(ValueError, match="needs a model with an exit gate"):
        early_exit(made(exit_gate=False), batch, rule_of("gate"), 0.5)
    broken = made()
    with torch.no_grad():
        broken.token_embedding.weight[int(batch[0, 0])] = torch.nan
    with pytest.raises(ValueError, match="scores that are not numbers at loop 1"):
        early_exit(broken, batch, rule_of("direction-step"), 0.5)


def test_any_depth_can_be_left_early() -> None:
    model, batch, rule = made(), ids(), rule_of("fixed")
    for threshold, expected in ((1, 1), (2.5, 3), (6, 6), (40, 7)):
        found = early_exit(model, batch, rule, threshold, loops=7)
        assert found.loops.tolist() == [expected] * 6
        assert found.mean_loops == expected


def test_speed_is_realised_ideal_and_allowed() -> None:
    model, batch = made(prelude=1, coda=1), ids()

    def flops(loops: int, exits: int) -> float:
        return float(forward_flops(model.config, 10, loops, exits))

    for name in ("logit-margin", "direction-step", "shortlist-margin"):
        rule = rule_of(name)
        threshold = between(model, batch, rule, 8)
        speed = measure_speed(model, batch, rule, threshold, pairs=3, flops=flops)
        taken = early_exit(model, batch, rule, threshold).loops
        assert len(speed.fixed_seconds) == len(speed.exit_seconds) == 3
        assert speed.mean_loops == pytest.approx(float(taken.double().mean()))
        assert speed.ideal == pytest.approx(4 / speed.mean_loops)
        assert speed.allowed is not None
        assert speed.allowed < speed.ideal
        ratios = sorted(a / b for a, b in zip(speed.fixed_seconds, speed.exit_seconds, strict=True))
        assert speed.realised == pytest.approx(ratios[1])
    assert measure_speed(model, batch, rule_of("fixed"), 2, pairs=1).allowed is None


def test_flops_are_those_of_the_loops_and_readouts_taken() -> None:
    model = made(coda=1)

    def flops(loops: int, exits: int) -> float:
        return float(forward_flops(model.config, 10, loops, exits))

    taken = torch.tensor([1, 3, 4])
    counted = {name: 3 * exit_flops(model, ids()[:1], rule_of(name), taken, 4, flops) for name in RUN}
    # A readout at every loop, the exit's own among them.
    assert counted["logit-margin"] == pytest.approx(flops(1, 1) + flops(3, 3) + flops(4, 4))
    assert counted["direction-step"] == pytest.approx(flops(1, 1) + flops(3, 1) + flops(4, 1))
    # Features for the rule at loops 1, 3 and 3 (the last loop is not looked at), whole logits of 1 token in 10 at
    # loop 1, and the vocabulary being smaller than a shortlist, all of its 50 entries at every look.
    coda, few = flops(1, 1) - flops(1, 0) - 2 * 16 * 50, 2 * 16 * 50
    more = 7 * (coda + few) + 3 * few / 10
    assert counted["shortlist-margin"] == pytest.approx(counted["direction-step"] + more)
