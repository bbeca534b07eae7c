"""States by loop and layer against plain hooks in the module's own forward; what is kept, and for how long."""

import copy
import gc
import weakref
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.evaluation.lens import STATE_PLACES
from loopscope.guards import evaluating
from loopscope.recurrence import LoopState, unroll_from
from tests.evaluation.lens.fixtures import DEPTH, IDS, LENS_CASES, caught, lens_case
from tests.interop.fixtures import Gated, Injected, Remembering, build
from tests.interop.foreign.families.fixtures import hrm, hrm_at

each_model = pytest.mark.parametrize("name", LENS_CASES)


def same(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@each_model
@pytest.mark.smoke
def test_states_are_those_that_plain_hooks_catch(name: str) -> None:
    case, module, model = lens_case(name)
    own = copy.deepcopy(module)
    layers = case.layers(own)
    calls = caught(layers, lambda: case.at(own, DEPTH))
    views = list(loopscope.lens(model, IDS, DEPTH))
    states = [state for view in views for state in view.layers]
    assert len(states) == len(calls) == DEPTH * len(views[0].layers)
    assert [(state.loop, state.layer) for state in states] == [
        (loop, layer) for loop in range(1, DEPTH + 1) for layer in range(len(views[0].layers))
    ]
    for state, (_, before, after) in zip(states, calls, strict=True):
        assert same(state.before, before)
        assert same(state.after, after)
    parts: list[tuple[str, str | None, int]] = [
        ("attention", case.names[0], 2),
        ("feed_forward", case.names[1], 2),
    ]
    if case.middle is not None:
        parts.append(("middle", case.middle[0], 1 if case.middle[1] == "input" else 2))
    for place, child, side in parts:
        if child is None:
            assert all(getattr(state, place) is None for state in states)
            continue
        children = [layer.get_submodule(child) for layer in layers]
        found = caught(children, lambda: case.at(own, DEPTH))
        for state, call in zip(states, found, strict=True):
            assert same(getattr(state, place), call[side]), place


@each_model
def test_figures_of_a_loop_are_those_of_its_state(name: str) -> None:
    _, _, model = lens_case(name)
    with torch.no_grad():
        states = list(loopscope.unroll(model, IDS, DEPTH))
        logits = [state.logits() for state in states]
        gates = [state.gate_logit() for state in states]
    before: Any = None
    for view, state, own, gate in zip(loopscope.lens(model, IDS, DEPTH), states, logits, gates, strict=True):
        hidden = state.hidden
        assert view.loop == state.loop
        assert same(view.hidden, hidden)
        assert same(view.logits(), own)
        assert same(view.rms, hidden.square().mean(dim=-1).sqrt())
        assert same(view.l2_norm, hidden.norm(dim=-1))
        assert same(view.l2_norm, view.rms * hidden.shape[-1] ** 0.5)
        assert (gate is None) == (view.gate() is None)
        if gate is not None:
            assert same(view.gate(), gate.sigmoid())
        if before is None:
            assert view.cosine is None
        else:
            assert same(view.cosine, nn.functional.cosine_similarity(hidden, before, dim=-1))
        before = hidden


def test_only_the_models_with_a_gate_have_one() -> None:
    names = ("own", "own, sandwich, gate", "dory", "ouro")
    gated = {name for name in names if loopscope.lens(lens_case(name)[2], IDS, 1).last().gate() is not None}
    assert gated == {"own, sandwich, gate", "ouro"}


@each_model
def test_what_is_asked_for_by_place_is_what_streams(name: str) -> None:
    _, _, model = lens_case(name)
    seen = loopscope.lens(model, IDS, DEPTH)
    streamed = {(state.loop, state.layer): state for view in seen for state in view.layers}
    last = len(seen.layers) - 1
    for place in STATE_PLACES:
        asked = seen.states(place, loops=[2, DEPTH], layers=[0, last])
        there = {key for key in {(2, 0), (2, last), (DEPTH, 0), (DEPTH, last)}
                 if getattr(streamed[key], place) is not None}  # fmt: skip
        assert set(asked) == there
        for key, state in asked.items():
            assert torch.equal(state, getattr(streamed[key], place))
    assert torch.equal(seen[3, last].after, streamed[3, last].after)
    assert torch.equal(seen[3].layers[last].before, streamed[3, last].before)
    assert seen[3].loop == 3
    assert list(seen.states(loops=2, layers=last)) == [(2, last)]
    assert seen.last().loop == DEPTH


def test_layers_are_named_by_their_paths() -> None:
    def names(name: str) -> tuple[str, ...]:
        return loopscope.lens(lens_case(name)[2], IDS).layers

    assert names("own") == ("layers.0", "layers.1")
    assert names("dory") == ("model.layers.1", "model.layers.2")
    low = [f"model.L_module.layers.{layer}, call {call}" for call in (1, 2) for layer in (0, 1)]
    assert names("hrm") == (*low, "model.H_module.layers.0", "model.H_module.layers.1")


def test_a_stack_of_one_layer_counts_as_its_layer() -> None:
    """Its state is before the norm that ends the stack, and attention and feed-forward are its own."""
    module = hrm(num_hidden_layers=1, L_cycles=1).eval()
    seen = loopscope.lens(loopscope.adapt(module), IDS, loops=2)
    assert seen.layers == ("model.L_module.layers.0", "model.H_module.layers.0")
    returned: list[torch.Tensor] = []
    hook = module.model.H_module.layers[0].register_forward_hook(
        lambda layer, args, output: returned.append(output)
    )
    with torch.no_grad():
        hrm_at(module, 2)
    hook.remove()
    high = [seen[loop, 1] for loop in (1, 2)]
    assert all(torch.equal(states.after, own) for states, own in zip(high, returned, strict=True))
    assert all(states.attention is not None and states.middle is not None for states in high)


@pytest.mark.parametrize("kind", [Injected, Gated, Remembering])
def test_forwards_that_are_run_again_for_every_loop(kind: Any) -> None:
    """What precedes a loop is answered without its layers, or with them: a lens sees the loop's own calls."""
    module = build(kind)
    block = "block" if kind is Gated else "layers"
    with pytest.warns(UserWarning, match="beside") if kind is Remembering else _quiet():
        model = loopscope.wrap(module, block)
    layers = list(module.layers) if block == "layers" else [module.block]
    for reruns in (False, True):
        model.interceptor.reruns = reruns
        states = [state for view in loopscope.lens(model, IDS) for state in view.layers]
        calls = caught(layers, lambda: module(IDS))
        assert len(states) == len(calls)
        for state, (_, before, after) in zip(states, calls, strict=True):
            assert same(state.before, before)
            assert same(state.after, after)


class _quiet:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("name", ["own", "ouro", "wrapped"])
def test_a_streamed_lens_holds_two_loops_however_deep_it_looks(name: str) -> None:
    """The one that is shown, and the one that is made: no state of an earlier loop is alive."""
    _, _, model = lens_case(name)

    def alive(loops: int) -> int:
        made: list[weakref.ref[Tensor]] = []
        most = 0
        for view in loopscope.lens(model, IDS, loops):
            for state in view.layers:
                held = (state.before, state.attention, state.middle, state.feed_forward, state.after)
                made += [weakref.ref(tensor) for tensor in held if tensor is not None]
            made.append(weakref.ref(view.hidden))
            tensors = {id(tensor) for reference in made if (tensor := reference()) is not None}
            most = max(most, len(tensors))
        return most

    assert alive(4) == alive(16) > 3


@pytest.mark.parametrize("name", ["dory", "hrm"])
def test_what_goes_on_beside_the_state_is_kept_for_the_last_loops_alone(name: str) -> None:
    """A low stack's state, the block's earlier outputs: what an adapter keeps of an unroll does not grow with it."""
    _, _, model = lens_case(name)

    def kept(loops: int) -> int:
        views = loopscope.lens(model, IDS, loops).stream()
        for _ in range(loops - 1):
            next(views)
        found, stack = {}, [model.records]
        seen: set[int] = set()
        while stack:
            value = stack.pop()
            if id(value) in seen or isinstance(value, nn.Module | type | ModuleType | FunctionType):
                continue
            seen.add(id(value))
            if isinstance(value, Tensor):
                found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            stack += gc.get_referents(value)
        return sum(found.values())

    assert kept(4) == kept(12) > 0


@pytest.mark.parametrize("name", ["dory", "hrm"])
def test_a_state_that_is_held_has_what_was_beside_it_and_one_that_was_let_go_gets_it_again(name: str) -> None:
    _, _, model = lens_case(name)
    with torch.no_grad(), evaluating(model):
        states = list(loopscope.unroll(model, IDS, 6))
        own = [state.hidden.clone() for state in states]
        loop, context = states[2].loop, states[2].context
        again = [state.hidden for state in unroll_from(states[2], states[2].hidden)]
        assert all(torch.equal(one, other) for one, other in zip(again, own[3:], strict=True))
        changed = [state.hidden for state in unroll_from(states[2], 2 * states[2].hidden)]
        del states, again
        late = LoopState(loop, own[2], model, context)
        again = [state.hidden for state in unroll_from(late, own[2])]
        assert all(torch.equal(one, other) for one, other in zip(again, own[3:], strict=True))
        later = [state.hidden for state in unroll_from(late, 2 * own[2])]
        assert all(torch.equal(one, other) for one, other in zip(later, changed, strict=True))


def test_what_was_not_asked_for_is_not_kept() -> None:
    _, _, model = lens_case("own")
    seen = loopscope.lens(model, IDS, DEPTH)
    kept: list[Any] = []
    for loop in range(1, DEPTH + 1):
        kept += [seen[loop, 1]]
    assert [state.layer for state in kept] == [1] * DEPTH
    assert len(seen._at(2, [1]).layers) == 1
    assert seen.last().layers == []


def test_the_model_is_left_as_it_was() -> None:
    for name in ("own", "dory", "hrm"):
        _, module, model = lens_case(name)
        state = torch.get_rng_state()
        module.train()
        try:
            list(loopscope.lens(model, IDS, 2).patch(1, 0, torch.zeros_like))
            assert all(part.training for part in module.modules())
        finally:
            module.eval()
        assert torch.equal(torch.get_rng_state(), state)
        for part in model.modules():
            assert "forward" not in part.__dict__
            assert "core" not in part.__dict__
            assert not part._forward_hooks
            assert not part._forward_pre_hooks


def test_dropout_of_a_model_in_training_is_off() -> None:
    _, module, model = lens_case("own")
    with evaluating(module):
        quiet = loopscope.lens(model, IDS).last().logits()
    module.train()
    try:
        assert torch.equal(loopscope.lens(model, IDS).last().logits(), quiet)
    finally:
        module.eval()


def test_a_state_that_its_module_changes_in_place_is_shown_as_it_was() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            x += self.linear(x)
            return x

    class Looped(loopscope.AbstractLoopedLM):
        loops = 2

        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = nn.Embedding(40, 16), InPlace()

        def embed(self, input_ids: Tensor) -> Tensor:
            return self.table(input_ids)

        def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            return self.layer(hidden.clone())

        def carry(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            return hidden

        def readout(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            return hidden

        def head(self, features: Tensor) -> Tensor:
            return features @ self.table.weight.T

    model = Looped()
    seen = loopscope.lens(model, IDS)
    assert seen.layers == ("layer",)
    assert torch.equal(seen[1, 0].before, model.table(IDS))
    assert not torch.equal(seen[1, 0].before, seen[1, 0].after)
