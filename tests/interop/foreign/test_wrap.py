"""`loopscope.wrap` on modules that nothing is known of: against Loopscope's own models and hooks."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import loopscope
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import unroll
from tests.interop.fixtures import (
    DIM,
    IDS,
    LABELS,
    VOCABULARY,
    Gated,
    Injected,
    Plain,
    Remembering,
    Sampled,
    Scaled,
    Skipped,
    SkippedPair,
    Tupled,
    build,
    forward_with,
    logits_of,
    outputs,
)


@pytest.mark.parametrize(
    "settings",
    [{}, {"carry": ("rmsnorm",)}, {"carry": ("damping",)}, {"readout": "raw"}, {"exit_gate": True}],
    ids=["plain", "norm between", "damping", "raw", "gate"],
)
def test_a_wrapped_transformer_is_audited_like_itself(settings: dict[str, Any]) -> None:
    """Our own model knows its five parts; wrapped, only its forward and the name of its layers are known."""
    torch.manual_seed(0)
    config = ModelConfig(
        dim=DIM, heads=2, loops=3, vocabulary=VOCABULARY, sequence=12, tied=False, **settings
    )
    own = LoopedTransformer(config).eval()
    gate = "gate" if settings.get("exit_gate") else None
    wrapped = loopscope.wrap(own, "layers", readout="reading", head="unembedding", gate=gate)
    objective = build_objective(ObjectiveConfig(placement="exit-weighted" if gate else "dense"))
    expected = loopscope.audit(own, IDS, LABELS, objective)
    found = loopscope.audit(wrapped, IDS, LABELS, objective)
    assert found.verdict == expected.verdict
    assert found.cross_entropy == pytest.approx(expected.cross_entropy, rel=1e-5)
    for mine, other in zip(found.carry, expected.carry, strict=True):
        assert (mine.mean, mine.gain, mine.slope) == pytest.approx(
            (other.mean, other.gain, other.slope), abs=1e-4
        )
    for mine, other in zip(found.visibility, expected.visibility, strict=True):
        assert mine.total["loss"].d_log_scale == pytest.approx(other.total["loss"].d_log_scale, abs=1e-4)
        assert mine.grown == pytest.approx(other.grown, rel=1e-3, abs=1e-5)
    assert found.expansion.rms == pytest.approx(expected.expansion.rms, rel=1e-4)
    for name, clamped in expected.radial_clamp.items():
        assert found.radial_clamp[name].cross_entropy == pytest.approx(clamped.cross_entropy, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "block", "settings", "replays", "passes_on"),
    [
        (Plain, "layers", {}, True, True),
        (Injected, "layers", {}, True, False),
        (Gated, "block", {}, False, True),
        (Scaled, "layers", {}, False, False),
        (Tupled, "block", {"hidden": "state"}, True, True),
    ],
)
def test_states_logits_and_every_intervention_are_the_forwards(
    kind: type[Plain], block: str, settings: dict[str, Any], replays: bool, passes_on: bool
) -> None:
    module = build(kind)
    model: Any = loopscope.wrap(module, block, **settings)
    assert (model.loops, model.replays, model.passes_on) == (3, replays, passes_on)
    last = module.layers[-1] if block == "layers" else module.block
    logits: list[Tensor] = []
    own = outputs(last, lambda: logits.append(logits_of(module(IDS))))
    with torch.no_grad():
        states = list(unroll(model, IDS))
        for state, expected in zip(states, own, strict=True):
            assert torch.allclose(state.hidden, expected, atol=1e-6)
        assert torch.allclose(states[-1].logits(), logits[0], atol=1e-5)
        # Change the state after loop 1, in the module itself and in the unroll.
        run = unroll(model, IDS)
        changed = next(run).hidden * 1.7 + 0.2
        run.send(changed)
        *_, final = run
        assert torch.allclose(final.logits(), forward_with(module, last, changed), atol=1e-5)


@pytest.mark.parametrize("kind", [Plain, Injected, Gated, Scaled])
def test_gradients_are_the_forwards(kind: type[Plain]) -> None:
    """d logits / d H_1 and d logits / d embedding, by autograd through the wrapped model and the module."""
    module = build(kind)
    model = loopscope.wrap(module, "block" if kind is Gated else "layers")
    states = list(unroll(model, IDS))
    value = states[-1].logits().square().mean()
    mine = torch.autograd.grad(value, [states[0].hidden, module.tokens.weight])
    last = module.block if kind is Gated else module.layers[-1]
    kept: list[Tensor] = []
    handle = last.register_forward_hook(lambda part, args, output: kept.append(output))
    own_value = logits_of(module(IDS)).square().mean()
    handle.remove()
    own = torch.autograd.grad(own_value, [kept[0], module.tokens.weight])
    for found, expected in zip(mine, own, strict=True):
        assert torch.allclose(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", [Injected, Gated])
def test_loops_without_gradient_keep_that_of_the_embedding(kind: type[Plain]) -> None:
    """`gradient_loops` cuts the state's gradient, not the injected embedding's."""
    module = build(kind)
    model = loopscope.wrap(module, "block" if kind is Gated else "layers")
    first, *_, last = unroll(model, IDS, gradient_loops=1)
    assert not first.hidden.requires_grad
    last.logits().sum().backward()
    assert (module.tokens.weight.grad is not None) == (kind is Injected)


@pytest.mark.parametrize(
    ("kind", "set_loops"),
    [
        (Plain, "config.loops"),
        (Plain, ["config.loops"]),
        (Injected, "loops"),
        (Injected, lambda loops: {"loops": loops}),
    ],
    ids=["attribute", "attributes", "keyword", "function"],
)
def test_deeper_unrolls_run_the_module_at_that_depth(kind: type[Plain], set_loops: Any) -> None:
    module = build(kind)
    model = loopscope.wrap(module, "layers", set_loops=set_loops)
    with torch.no_grad():
        *_, deep = unroll(model, IDS, 6)
        assert module.config.loops == 3
        deeper = copy.deepcopy(module)
        deeper.config.loops = 6
        assert torch.allclose(deep.logits(), logits_of(deeper(IDS)), atol=1e-5)
    assert loopscope.wrap(module, "layers", loops=5, set_loops=set_loops).loops == 5
    # Without it, loops beyond the trained depth repeat the last: here the very same map.
    plain = loopscope.wrap(module, "layers")
    with torch.no_grad():
        *_, repeated = unroll(plain, IDS, 6)
    assert torch.allclose(repeated.hidden, deep.hidden, atol=1e-5)


def test_a_function_that_sets_the_depth_itself_is_called_to_set_it_back() -> None:
    module = build(Plain)

    def set_depth(loops: int) -> None:
        module.config.loops = loops

    model = loopscope.wrap(module, "layers", set_loops=set_depth)
    list(unroll(model, IDS, 7))
    assert module.config.loops == 3


def test_a_state_beside_the_blocks_output_is_followed_and_warned_of() -> None:
    module = build(Remembering)
    with pytest.warns(UserWarning, match="part of the state goes from loop to loop beside H_k"):
        model: Any = loopscope.wrap(module, "layers")
    assert not model.passes_on
    own = outputs(module.layers[-1], lambda: module(IDS))
    with torch.no_grad():
        states = list(unroll(model, IDS))
        for state, expected in zip(states, own, strict=True):
            assert torch.allclose(state.hidden, expected, atol=1e-5)
        # A run that goes on from loop 2 has loop 1's own state beside it, whatever ran in between.
        again = loopscope.recurrence.unroll_from(states[0], 5 * states[0].hidden)
        assert not torch.allclose(next(again).hidden, own[1], atol=1e-2)
        later = list(loopscope.recurrence.unroll_from(states[1], states[1].hidden))
        assert torch.allclose(later[-1].hidden, own[-1], atol=1e-5)
    value = states[-1].hidden
    assert value.shape == (2, 10, DIM)
    states = list(unroll(model, IDS))
    (gradient,) = torch.autograd.grad(states[-1].hidden.square().sum(), states[0].hidden)
    kept: list[Tensor] = []
    handle = module.layers[-1].register_forward_hook(lambda part, args, output: kept.append(output))
    module(IDS)
    handle.remove()
    (own_gradient,) = torch.autograd.grad(kept[-1].square().sum(), kept[0])
    assert torch.allclose(gradient, own_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Skipped, SkippedPair])
def test_a_stream_beside_the_block_is_followed_to_the_head(kind: type[Plain]) -> None:
    """Not the refusal of a head that reads several loops: here the next loop reads the stream as well."""
    module = build(kind)
    with pytest.warns(UserWarning, match="part of the state goes from loop to loop beside H_k"):
        model = loopscope.wrap(module, "layers")
    assert torch.allclose(model(IDS), module(IDS), atol=1e-5)


def test_the_trained_depth_is_run_as_set_loops_says() -> None:
    module = build(Sampled)
    with pytest.warns(UserWarning, match="Sampled runs loops 1 to 3 of 3 without a gradient"):
        loopscope.wrap(module, "layers")
    model = loopscope.wrap(module, "layers", set_loops="loops")
    assert model.remarks == ()
    assert model.loops == 3
    states = list(unroll(model, IDS))
    value = states[-1].logits().square().mean()
    mine = torch.autograd.grad(value, [module.tokens.weight])[0]
    own = torch.autograd.grad(module(IDS, 3)["logits"].square().mean(), [module.tokens.weight])[0]
    assert torch.allclose(mine, own, atol=1e-6, rtol=1e-4)
