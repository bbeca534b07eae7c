"""Exits per token: the exact strategy against no cache at all, the others against what they say they keep."""

import pytest
import torch
from torch import Tensor

from loopscope.generation.cached_steps import CachedSteps
from loopscope.generation.missing import STRATEGIES, Fill, Lazy, Reuse
from loopscope.kv_cache import Slot
from loopscope.model.looped import LoopedTransformer
from tests.generation.fixtures import Erratic, expect, lively, run
from tests.model.fixtures import VARIANTS

NEVER, ALWAYS = 2.0, -2.0


@pytest.mark.parametrize("name", VARIANTS)
def test_lazy_is_exact(name: str) -> None:
    """Every exit, and every token read there, is what a model that never left anything out would give."""
    model, rule = lively(name), Erratic(readout="coda" in name)
    made = run(model, 12, rule=rule, loops=4)
    expect(model, made, 4, rule)
    assert len({count for row in made.loops for count in row}) >= 3, "exits at several loops"


@pytest.mark.parametrize("name", ["prelude and coda", "huginn"])
@pytest.mark.parametrize("readout", [False, True])
def test_exits_without_a_cache_are_the_same(name: str, readout: bool) -> None:
    model, rule = lively(name), Erratic(readout)
    assert run(model, 6, rule=rule) == run(model, 6, rule=rule, cache=False)


@pytest.mark.parametrize("missing", ["fill", "reuse"])
def test_the_other_strategies_are_approximations(missing: str) -> None:
    """The check above can fail."""
    model = lively()
    made = run(model, 12, rule=Erratic(), loops=4, missing=missing)
    with pytest.raises(AssertionError):
        expect(model, made, 4, Erratic())


@pytest.mark.parametrize("missing", STRATEGIES)
@pytest.mark.parametrize("name", ["prelude and coda", "ouro", "loopformer"])
def test_a_rule_that_never_fires_is_fixed_depth_bit_for_bit(name: str, missing: str) -> None:
    model = lively(name)
    for readout in (False, True):
        rule = Erratic(readout, NEVER)
        logits = [_logits(model, rule, missing), _logits(model, None, missing)]
        assert torch.equal(*logits)


@pytest.mark.parametrize("missing", STRATEGIES)
def test_a_rule_that_always_fires_is_depth_one_bit_for_bit(missing: str) -> None:
    model = lively("add")
    assert torch.equal(
        _logits(model, Erratic(False, ALWAYS), missing), _logits(model, None, missing, loops=1)
    )


def test_rows_that_left_take_no_part_in_deeper_loops() -> None:
    model, batches = lively(), []
    for layer in model.layers[:1]:
        layer.register_forward_pre_hook(lambda _, given: batches.append(tuple(given[0].shape[:2])))
    prompts = (torch.arange(24).view(4, 6), None)
    made = run(model, 12, prompts=prompts, rule=Erratic(), missing="reuse")
    steps = batches[4:]  # after one token for the number of ids, and the prompt
    assert all(seq == 1 for _, seq in steps)
    assert sum(rows for rows, _ in steps) == sum(map(sum, made.loops))


def test_a_batch_in_another_order_gives_the_same_texts() -> None:
    model = lively("prelude and coda")
    ids, order = torch.arange(24).view(4, 6), torch.tensor([2, 0, 3, 1])
    for missing in STRATEGIES:
        one = run(model, 6, prompts=(ids, None), rule=Erratic(), missing=missing)
        other = run(model, 6, prompts=(ids[order], None), rule=Erratic(), missing=missing)
        assert other.tokens == tuple(one.tokens[row] for row in order)
        assert other.loops == tuple(one.loops[row] for row in order)


def test_fill_keeps_the_projection_of_the_exited_state() -> None:
    model = lively("add", carry=("rmsnorm",), positions="learned")
    steps, state = _one_exit(model, Fill)
    embedded = model.embed(torch.arange(6)[None])[:, -1:]
    for loop in (2, 3):
        entering = model.injection(model.carries["rmsnorm"](state, loop - 1), embedded, None)
        for layer in (0, 1):
            normed = model.layers[layer].attention_norm(entering)
            rows = model.layers[layer].attention.qkv(normed)[0, 0].view(3, 4, 8)
            kept = steps.store.layer(Slot("core", loop, layer))
            assert torch.allclose(kept.keys[0, :, 5], rows[1], atol=1e-12)
            assert torch.allclose(kept.values[0, :, 5], rows[2], atol=1e-12)


def test_reuse_keeps_what_the_last_loop_kept() -> None:
    steps, _ = _one_exit(lively(), Reuse)
    for layer in (0, 1):
        own = steps.store.layer(Slot("core", 1, layer))
        for loop in (2, 3):
            kept = steps.store.layer(Slot("core", loop, layer))
            assert torch.equal(kept.keys[:, :, 5], own.keys[:, :, 5])
            assert torch.equal(kept.values[:, :, 5], own.values[:, :, 5])
            assert not torch.equal(kept.keys[:, :, 4], own.keys[:, :, 4])  # the prompt's own


def test_lazy_computes_nothing_until_it_is_needed_and_then_what_full_depth_would() -> None:
    model = lively("prelude and coda")
    steps, _ = _one_exit(model, Lazy)
    slot = Slot("core", 3, 1)
    assert not steps.store.layer(slot).keys[:, :, 5].any()
    with torch.no_grad():
        steps._rule = Erratic(False, NEVER)  # the next token runs all loops
        steps.step(torch.tensor([9]))
        full = CachedSteps(model, 3, None, Lazy, torch.zeros(1, dtype=torch.int64), 9)
        full.prefill(torch.arange(6)[None])
    for loop in (2, 3):
        for layer in (0, 1):
            found = steps.store.layer(Slot("core", loop, layer))
            expected = full.store.layer(Slot("core", loop, layer))
            assert torch.allclose(found.keys[:, :, :6], expected.keys[:, :, :6], atol=1e-10)
            assert torch.allclose(found.values[:, :, :6], expected.values[:, :, :6], atol=1e-10)
    coda = Slot("readout", 3, 1)
    assert torch.allclose(
        steps.store.layer(coda).keys[:, :, :5], full.store.layer(coda).keys[:, :, :5], atol=1e-10
    )


def _logits(model: LoopedTransformer, rule: Erratic | None, missing: str, loops: int = 3) -> Tensor:
    """Logits of four steps of two rows."""
    steps = CachedSteps(model, loops, rule, STRATEGIES[missing], torch.zeros(2, dtype=torch.int64), 14)
    with torch.no_grad():
        steps.prefill(torch.arange(10).view(2, 5))
        return torch.stack([steps.step(torch.tensor([7 * n, 5 * n + 1])).logits for n in range(4)])


def _one_exit(model: LoopedTransformer, missing: type) -> tuple[CachedSteps, Tensor]:
    """Five tokens at full depth, a sixth that leaves at loop 1; and its state there."""
    states: list[Tensor] = []

    class Leave(Erratic):
        def decide(self, state, before):  # type: ignore[no-untyped-def]
            states.append(state.hidden)
            return super().decide(state, before)

    steps = CachedSteps(model, 3, Leave(False, ALWAYS), missing, torch.zeros(1, dtype=torch.int64), 9)
    with torch.no_grad():
        steps.prefill(torch.arange(5)[None])
        steps.step(torch.tensor([5]))
    return steps, states[0]
