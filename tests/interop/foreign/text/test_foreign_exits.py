"""Exits per token in models of others: the text that a model gives which recomputes everything under the same rule."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import loopscope
from loopscope.generation import Draft, Settings, Stopping, generate_tokens
from loopscope.generation.cached_steps import CachedSteps
from loopscope.generation.missing import Lazy
from loopscope.interop.foreign.text.chained_model import ChainedModel
from loopscope.interop.foreign.text.way import foreign_way
from loopscope.kv_cache import Slot
from tests.generation.fixtures import Erratic
from tests.interop import lookalikes
from tests.interop.foreign.families.fixtures import hrm
from tests.interop.foreign.families.models import dory, inkling
from tests.interop.foreign.text.test_own_cache import adapted
from tests.interop.lookalikes.cached import CachedOuroConfig, CachedOuroForCausalLM

FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "ouro": lookalikes.OuroForCausalLM,
    "ouro, layers give tuples": lambda: lookalikes.OuroForCausalLM(returns_tuple=True),
    "huginn": lookalikes.RavenForCausalLM,
    "dory": dory,
    "nanbeige": lookalikes.NanbeigeForCausalLM,
    "nanbeige, norm skipped": lambda: lookalikes.NanbeigeForCausalLM(True),
    "looplm": lookalikes.LoopLM,
    "one's own": lambda: CachedOuroForCausalLM(CachedOuroConfig()),
    "looplm, experts": lambda: lookalikes.LoopLM("experts"),
}
each_family = pytest.mark.parametrize("name", FAMILIES)

IDS = torch.tensor([[5, 17, 3, 29, 11, 8, 2], [0, 0, 0, 38, 8, 1, 30], [7, 7, 21, 4, 33, 0, 0]])
MASK = torch.tensor([[1] * 7, [0] * 3 + [1] * 4, [1] * 5 + [0] * 2])


@cache
def built(name: str) -> tuple[Any, Any]:
    module, _ = adapted(FAMILIES[name])
    # In fp64 no rounding moves an exit. Dory rounds to fp32 on its own, and is adapted as it is.
    return module, loopscope.adapt(module if name == "dory" else module.double())


def text(name: str, count: int = 10, **settings: Any) -> Any:
    return generate_tokens(built(name)[1], IDS, Settings(Stopping(count), **settings), MASK)


@each_family
def test_lazy_exits_are_those_of_a_model_that_recomputes_everything(name: str) -> None:
    loops = built(name)[1].loops + 1
    rule = Erratic(readout=name in ("dory", "huginn", "looplm"))
    made = text(name, rule=rule, loops=loops)
    assert made == text(name, rule=rule, loops=loops, cache=False)
    assert len({count for row in made.loops for count in row}) >= 3, "exits at several loops"
    assert len({token for row in made.tokens for token in row}) > 3, "one token again and again tests nothing"


@each_family
def test_distributions_under_exits_are_those_of_the_whole_text(name: str) -> None:
    """Not the likeliest tokens alone: the logits of every step, at the exit that was taken."""
    _, model = built(name)
    chained = foreign_way(model, model.loops, True, "lazy", True)._model  # type: ignore[attr-defined]
    assert isinstance(chained, ChainedModel)
    ids = IDS[:1].repeat(2, 1) + torch.tensor([[0], [1]])
    steps = CachedSteps(chained, model.loops, Erratic(), Lazy, torch.zeros(2, dtype=torch.int64), 8)
    with torch.no_grad():
        exits = [state.logits() for state in loopscope.unroll(model, ids)]
        steps.prefill(ids[:, :2])
        for place in range(2, 7):
            read = steps.step(ids[:, place])
            for row, loop in enumerate(read.loops.tolist()):
                own = exits[loop - 1][row, place]
                assert torch.allclose(read.logits[row], own, rtol=0, atol=1e-4 * float(own.abs().max()))


@each_family
def test_there_is_one_slot_per_loop_and_layer_and_a_step_costs_one_token(name: str) -> None:
    _, model = built(name)
    way = foreign_way(model, 3, True, "lazy", True)
    steps: Any = way.steps(None, torch.zeros(2, dtype=torch.int64), 9)
    lengths: list[int] = []
    layer = steps._model.chain.core[0]
    with torch.no_grad():
        steps.prefill(IDS[:2, :5])
        watch = layer.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
        steps.step(IDS[:2, 5])
        watch.remove()
    assert lengths == [1] * 3
    chain = steps._model.chain
    assert set(steps.store.slots()) == (
        {Slot("embed", 1, layer) for layer in range(len(chain.prelude))}
        | {Slot("core", loop, layer) for loop in (1, 2, 3) for layer in range(len(chain.core))}
        | {Slot("readout", 3, layer) for layer in range(len(chain.coda))}
    )


@pytest.mark.parametrize("missing", ["fill", "reuse"])
@pytest.mark.parametrize("name", ["ouro", "dory", "huginn"])
def test_the_other_strategies_run_and_are_full_depth_where_nobody_leaves(name: str, missing: str) -> None:
    never, full = text(name, rule=Erratic(bar=2.0), missing=missing), text(name, cache=False)
    assert never == full
    made = text(name, rule=Erratic(), missing=missing)
    assert made.tokens != text(name, rule=Erratic()).tokens, "they are approximations"


@each_family
def test_a_prompt_in_pieces_is_the_prompt(name: str) -> None:
    for rule in (None, Erratic()):
        assert text(name, 4, rule=rule, prompt_piece=3) == text(name, 4, rule=rule)


@pytest.mark.parametrize("name", ["ouro", "dory"])
def test_rows_with_rules_of_their_own_get_what_they_get_alone(name: str) -> None:
    model = built(name)[1]
    rules, loops = [Erratic(), None, Erratic(True, 0.5)], [3, 2, 3]
    made = text(name, rule=rules, loops=loops)
    for row, (rule, depth) in enumerate(zip(rules, loops, strict=True)):
        ids = IDS[row][MASK[row] == 1][None]
        alone = generate_tokens(model, ids, Settings(Stopping(10), rule=rule, loops=depth))
        assert (made.tokens[row], made.loops[row]) == (alone.tokens[0], alone.loops[0])


def test_a_copy_has_weights_of_its_own() -> None:
    _, model = adapted(FAMILIES["ouro"])
    first = loopscope.generate(model, IDS, 4)
    copied: Any = copy.deepcopy(model)
    with torch.no_grad():
        copied.module.model.norm.weight.neg_()
    changed = loopscope.generate(copied, IDS, 4)
    assert changed == loopscope.generate(copied, IDS, 4, cache=False) != first


def test_rules_by_name_and_gates() -> None:
    model = built("looplm")[1]
    assert loopscope.generate(model, IDS, 4, exit_rule="fixed", threshold=2).mean_loops == 2
    for rule, threshold in (("max-probability", 0.1), ("hidden-step", 0.5), ("kl", 0.05)):
        chosen = {"exit_rule": rule, "threshold": threshold}
        made = loopscope.generate(model, IDS, 6, **chosen)
        assert made == loopscope.generate(model, IDS, 6, cache=False, **chosen)
    for name in ("ouro", "looplm"):
        chosen = {"exit_rule": "gate", "threshold": 0.5}
        made = loopscope.generate(built(name)[1], IDS, 6, **chosen)
        assert made == loopscope.generate(built(name)[1], IDS, 6, cache=False, **chosen)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: dory(recurrent_kv_cache_mode="last_loop"),
            "recurrent_kv_cache_mode='last_loop' has one slot",
        ),
        (hrm, "the low stack's state goes from cycle to cycle"),
        pytest.param(inkling, "messages between the passes", marks=pytest.mark.slow),
        (lookalikes.LoopCoderForCausalLM, "later loops read the first loop's keys and values"),
        (lookalikes.Parcae, "its adapter decays the state"),
        (lookalikes.LoopedNanochat, "is known for Ouro, Huginn, Dory, Nanbeige and LoopLM"),
        (lambda: dory(attn_implementation="eager"), "scaled_dot_product_attention 0 times, not once"),
    ],
)
def test_families_that_do_not_allow_exits_are_refused_with_the_reason(
    make: Callable[[], nn.Module], reason: str
) -> None:
    _, model = adapted(make)
    with pytest.raises(ValueError, match=f"exits per token of .* cannot keep .*({reason}).*--no-cache"):
        loopscope.generate(model, IDS, 3, exit_rule="fixed", threshold=2)
    made = loopscope.generate(model, IDS, 2, exit_rule="fixed", threshold=1, cache=False)
    assert made.mean_loops == 1


@pytest.mark.parametrize("name", ["ouro", "huginn", "dory", "nanbeige", "looplm"])
def test_an_early_exit_drafts_the_text_of_full_depth(name: str) -> None:
    assert text(name, draft=Draft(1, 3)).tokens == text(name, cache=False).tokens
