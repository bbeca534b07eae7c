"""What of a wrapped module may be named, where its head is called, and that nothing of it is changed."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import loopscope
from loopscope.recurrence import AbstractLoopedLM, unroll
from tests.interop.fixtures import (
    DIM,
    IDS,
    LABELS,
    VOCABULARY,
    Block,
    Injected,
    Plain,
    build,
)


def test_readouts_heads_and_embeddings_can_be_named() -> None:
    module = build(Injected)
    followed = loopscope.wrap(module, "layers")
    head: Callable[[Tensor], Tensor] = lambda features: module.lm_head(features)  # noqa: E731
    named = loopscope.wrap(module, "layers", readout=["between", "norm"], head=head)
    for mine, other in zip(unroll(named, IDS), unroll(followed, IDS), strict=True):
        assert torch.allclose(mine.logits(), other.logits(), atol=1e-5)
    plain = build(Plain)
    model = loopscope.wrap(
        plain, "layers", readout=lambda x: F.rms_norm(x, (DIM,), plain.norm.weight), embed="tokens"
    )
    assert torch.allclose(model(IDS), plain(IDS), atol=1e-5)


def test_an_embedding_that_something_follows_is_left_with_a_warning() -> None:
    """Whoever names the token embedding means well: positions, a scale or an adapter behind it are followed."""
    module = build(Injected)
    with pytest.warns(UserWarning, match="what embed gives is not the first loop's input"):
        named = loopscope.wrap(module, "layers", embed="tokens")
    assert torch.allclose(named(IDS), module(IDS)["logits"], atol=1e-5)


def test_a_sequential_block_is_found_whole_or_by_its_layers() -> None:
    class Whole(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(Block(), Block())

        def stack(self, x: Tensor) -> Tensor:
            return self.layers(x)

    class OneByOne(Whole):
        def stack(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    for kind in (Whole, OneByOne):
        module = build(kind)
        assert torch.allclose(loopscope.wrap(module, "layers")(IDS), module(IDS), atol=1e-6)


def test_wrapping_leaves_the_module_and_the_generator_as_they_were() -> None:
    torch.manual_seed(0)
    module = Injected().train()
    module.norm.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    torch.manual_seed(3)
    generator = torch.get_rng_state()
    model = loopscope.wrap(module, "layers", set_loops="loops")
    assert torch.equal(torch.get_rng_state(), generator)
    assert [part.training for part in module.modules()] == modes
    loopscope.audit(model, IDS, LABELS)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    for part in module.modules():
        assert "forward" not in part.__dict__
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    assert all(parameter.grad is None for parameter in module.parameters())
    names = [name for name, _ in model.named_parameters()]
    assert names == [f"module.{name}" for name, _ in module.named_parameters()]


def test_a_forward_that_fails_leaves_the_module_as_it_was() -> None:
    module = build(Plain)
    model = loopscope.wrap(module, "layers")
    with pytest.raises(IndexError):
        list(unroll(model, IDS + VOCABULARY))
    assert all("forward" not in part.__dict__ for part in module.modules())


def test_half_precision_is_followed_and_audited_in_fp32() -> None:
    module = build(Injected).bfloat16()
    model = loopscope.wrap(module, "layers")
    report = loopscope.audit(model, IDS, LABELS)
    assert "bfloat16" in report.notes[0]
    assert report.verdict == "removed"
    bound = loopscope.wrap(module, "layers", readout=["between", "norm"], head=lambda x: module.lm_head(x))
    assert loopscope.audit(bound, IDS, LABELS).verdict == "removed"  # the function meets the fp32 weights too
    assert module.lm_head.weight.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="a function that refers to a module"):
        copy.deepcopy(bound)


class HeadsAtTheEnd(Plain):
    """Every loop's state reaches the head, one by one, after the last loop."""

    def forward(self, ids: Tensor) -> Any:
        x, found = self.tokens(ids), []
        for _ in range(self.config.loops):
            x = self.stack(x)
            found.append(x)
        return SimpleNamespace(logits=[self.lm_head(self.norm(state)) for state in found])


class InjectedHeadsAtTheEnd(Plain):
    def forward(self, ids: Tensor) -> Any:
        embedded = x = self.tokens(ids)
        found = []
        for _ in range(self.config.loops):
            x = self.stack(self.inject(torch.cat([x, embedded], dim=-1)))
            found.append(x)
        return SimpleNamespace(logits=[self.lm_head(self.norm(state)) for state in found])


@pytest.mark.parametrize("kind", [HeadsAtTheEnd, InjectedHeadsAtTheEnd])
def test_heads_that_are_called_after_the_loops_read_one_loop_each(kind: type[Plain]) -> None:
    module = build(kind)
    model = loopscope.wrap(module, "layers", set_loops="config.loops")
    with torch.no_grad():
        for state, own in zip(unroll(model, IDS), module(IDS).logits, strict=True):
            assert torch.allclose(state.logits(), own, atol=1e-5)
        deeper = copy.deepcopy(module)
        deeper.config.loops = 5
        for state, own in zip(unroll(model, IDS, 5), deeper(IDS).logits, strict=True):
            assert torch.allclose(state.logits(), own, atol=1e-5)


class Checkpointed(Plain):
    """Layers that are computed again in the backward pass."""

    def stack(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False)
        return x


def test_a_checkpointed_block_is_no_cut_gradient() -> None:
    module = build(Checkpointed)
    assert torch.allclose(loopscope.wrap(module, "layers")(IDS), module(IDS), atol=1e-5)


def test_a_token_that_is_embedded_as_zero_is_no_cut_gradient() -> None:
    """A norm bends sharply at zero, where a finite difference is not its derivative."""
    module = build(Plain)
    with torch.no_grad():
        module.tokens.weight[::2] = 0
    assert torch.allclose(loopscope.wrap(module, "layers")(IDS), module(IDS), atol=1e-5)


def test_a_wrapped_model_is_a_looped_model() -> None:
    model = loopscope.wrap(build(Plain), "layers")
    assert isinstance(model, AbstractLoopedLM)
    with pytest.raises(ValueError, match="module is str"):
        loopscope.wrap("gpt2", "layers")
