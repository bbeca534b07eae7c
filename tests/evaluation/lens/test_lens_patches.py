"""A patch against the module's own forward with a plain hook that replaces; what a patch may be."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import loopscope
from tests.evaluation.lens.fixtures import DEPTH, IDS, LENS_CASES, caught, lens_case, replaced
from tests.fixtures import refusal

each_model = pytest.mark.parametrize("name", LENS_CASES)


def other(state: Tensor) -> Tensor:
    draws = torch.Generator().manual_seed(3)
    return state + torch.randn(state.shape, generator=draws) * state.std()


@each_model
@pytest.mark.smoke
def test_a_patch_is_a_hook_that_replaces(name: str) -> None:
    case, module, model = lens_case(name)
    own = copy.deepcopy(module)
    seen = loopscope.lens(model, IDS, DEPTH)
    calls = caught(case.layers(own), lambda: case.at(own, DEPTH))
    plain = seen.last().logits()
    each = len(seen.layers)
    for loop, layer, places in (
        (1, 0, ("before", "after")),
        (2, each - 1, ("attention", "feed_forward", "after")),
        (DEPTH, each // 2, ("before", "after")),
    ):
        call = (loop - 1) * each + layer
        part, _, _ = calls[call]
        nth = sum(earlier is part for earlier, _, _ in calls[:call])
        seen_states = seen[loop, layer]
        for place in places:
            if getattr(seen_states, place) is None:
                assert case.names == (None, None)
                continue
            hooked, side = part, "input" if place == "before" else "output"
            if place in ("attention", "feed_forward"):
                child = case.names[place == "feed_forward"]
                assert child is not None
                hooked = part.get_submodule(child)
            state = other(getattr(seen_states, place))
            patched = seen.patch(loop, layer, state, at=place)
            expected = replaced(hooked, nth, side, state, lambda: case.at(own, DEPTH))
            assert torch.allclose(patched.last().logits(), expected, rtol=1e-4, atol=1e-5), (
                loop,
                layer,
                place,
            )
            assert not torch.equal(expected, plain)


@each_model
def test_the_state_between_attention_and_feed_forward_is_replaced_whole(name: str) -> None:
    """The feed-forward reads the new one, and is added to it: worked out from the layer's own parts."""
    _, _, model = lens_case(name)
    seen = loopscope.lens(model, IDS, DEPTH)
    if "middle" not in seen.found.sites[0].kinds:
        message = refusal(lambda: seen.patch(2, 1, torch.zeros_like, at="middle"))
        assert message is not None
        assert "has no 'middle'" in message
        return
    state = other(seen[2, 1].middle)
    patched = seen.patch(2, 1, state, at="middle")[2, 1]
    assert torch.equal(patched.middle, state)
    assert torch.equal(patched.attention, seen[2, 1].attention)
    same = seen.patch(2, 1, lambda state: state, at="middle")[2, 1]
    assert torch.equal(same.after, seen[2, 1].after)
    layer: Any = seen.found.sites[1].module
    rest: dict[str, Callable[[], Tensor]] = {
        "own": lambda: state + layer.feed_forward(layer.feed_forward_norm(state)),
        "own, sandwich-sum": lambda: layer.feed_forward_norm_after(
            state + layer.feed_forward(layer.feed_forward_norm(state))
        ),
        "own, post": lambda: layer.feed_forward_norm(state + layer.feed_forward(state)),
        "hrm": lambda: state + layer.mlp(layer.post_attention_layernorm(state)),
        "ouro": lambda: (
            state + layer.post_attention_layernorm_2(layer.mlp(layer.post_attention_layernorm(state)))
        ),
        "dory": lambda: (
            state
            + (layer.lambda_2 * layer.lambda_scale).abs()
            * (layer.post_feedforward_layernorm(layer.mlp(state)) - state)
        ),
    }
    if name in rest:
        with torch.no_grad():
            assert torch.allclose(patched.after, rest[name](), rtol=1e-4, atol=1e-5)


@each_model
def test_a_loops_state_is_replaced_as_an_unroll_does(name: str) -> None:
    _, _, model = lens_case(name)
    seen = loopscope.lens(model, IDS, DEPTH)
    state = other(seen[2].hidden)
    views = list(seen.patch(2, None, state))
    assert torch.equal(views[1].hidden, state)
    with torch.no_grad():
        states = loopscope.unroll(model, IDS, DEPTH)
        next(states), next(states)
        sent = [states.send(state), *states]
    for view, expected in zip(views[2:], sent, strict=True):
        assert torch.allclose(view.hidden, expected.hidden, rtol=1e-4, atol=1e-5)


def test_patches_add_up_and_leave_the_lens_they_are_made_of() -> None:
    _, _, model = lens_case("own")
    seen = loopscope.lens(model, IDS, DEPTH)
    one = seen.patch(1, 0, torch.zeros_like)
    both = one.patch(2, 1, lambda state: 2 * state)
    assert (len(seen.patches), len(one.patches), len(both.patches)) == (0, 1, 2)
    assert float(both[1, 0].after.abs().max()) == 0
    assert torch.equal(both[2, 1].after, 2 * one[2, 1].after)
    assert float(seen[1, 0].after.abs().max()) > 0


def test_a_patch_keeps_its_own_copy() -> None:
    _, _, model = lens_case("own")
    seen = loopscope.lens(model, IDS)
    state = torch.zeros(2, 10, 32)
    patched = seen.patch(1, 0, state)
    state += 1
    assert float(patched[1, 0].after.abs().max()) == 0


def test_a_state_of_another_text_is_carried_over() -> None:
    """The use of it: what one text's state makes of another text's prediction."""
    _, _, model = lens_case("ouro")
    there, here = loopscope.lens(model, IDS.flip(1)), loopscope.lens(model, IDS)
    moved = here.patch(2, 1, there[2, 1].after)
    assert torch.allclose(moved[3].logits(), there[3].logits(), rtol=1e-4, atol=1e-5)
