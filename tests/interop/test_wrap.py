"""`loopscope.wrap` on modules that nothing is known of: against Loopscope's own models, hooks and refusals."""

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
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import AbstractLoopedLM, unroll

VOCABULARY, DIM = 40, 16
IDS = torch.arange(20).view(2, 10) * 7 % VOCABULARY
LABELS = (IDS * 3 + 1) % VOCABULARY


class Block(nn.Module):
    """A pre-norm residual block in which a token also sees the mean of those before it."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim)
        self.inner = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor | None = None, **_: Any) -> Tensor:
        normed = self.norm(x)
        count = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)[:, None]
        return x + self.inner(normed + normed.cumsum(dim=1) / count)


class Plain(nn.Module):
    """The published shape: embed, K times the same layers, norm, head; subclasses change one thing."""

    loops = 3

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(loops=self.loops)
        self.tokens = nn.Embedding(VOCABULARY, DIM)
        self.layers = nn.ModuleList(Block() for _ in range(2))
        self.inject = nn.Linear(2 * DIM, DIM)
        self.between = nn.LayerNorm(DIM)
        self.norm = nn.RMSNorm(DIM)
        self.lm_head = nn.Linear(DIM, VOCABULARY, bias=False)

    def stack(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.stack(x)
        return self.lm_head(self.norm(x))


class Injected(Plain):
    """The embedding is injected before every loop, and a norm stands after it."""

    def forward(self, ids: Tensor, loops: int | None = None) -> Any:
        embedded = x = self.tokens(ids)
        for _ in range(loops or self.config.loops):
            x = self.stack(self.inject(torch.cat([x, embedded], dim=-1)))
            x = self.between(x)
        return {"loss": None, "logits": self.lm_head(self.norm(x))}


class Gated(Plain):
    """A block argument that depends on the state: replaying it would be wrong for any other state."""

    class Layer(Block):
        def forward(self, x: Tensor, scale: Tensor | None = None, **_: Any) -> Tensor:
            assert scale is not None
            return x + scale * (super().forward(x) - x)

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Layer()

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.block(x, scale=torch.sigmoid(x.mean(dim=-1, keepdim=True)))
        return self.lm_head(self.norm(x))


class Scaled(Plain):
    """Code between the layers of one loop, as in models with learned residual scales."""

    def stack(self, x: Tensor) -> Tensor:
        start = x
        for index, layer in enumerate(self.layers):
            x = layer((0.9 - 0.2 * index) * x + 0.1 * start)
        return x


class Remembering(Plain):
    """Every loop also adds a fraction of the state two loops back: a second state beside the block's output."""

    loops = 4

    def forward(self, ids: Tensor) -> Any:
        x, older = self.tokens(ids), 0.0
        for _ in range(self.config.loops):
            x, older = self.stack(x + older), 0.3 * x
        return self.lm_head(self.norm(x))


class Skipped(Plain):
    """The block is one branch: the stream beside it reaches the next loop, and the head."""

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = x + self.stack(x)
        return self.lm_head(self.norm(x))


class SkippedPair(Skipped):
    loops = 2


class Tupled(Plain):
    """A block that returns a tuple and takes its state by name, behind a table of floats."""

    class Layer(Block):
        def forward(self, table: Tensor, state: Tensor, flag: bool = False) -> Any:  # type: ignore[override]
            return super().forward(state + 0 * table), None

    def __init__(self) -> None:
        super().__init__()
        self.block = self.Layer()

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x, _ = self.block(x.new_ones(1, x.shape[1], DIM), state=x)
        return (None, self.lm_head(self.norm(x)))


def build(kind: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    return kind().eval()


def outputs(part: nn.Module, run: Callable[[], Any]) -> list[Tensor]:
    """What a part put out in every call of a run."""
    found: list[Tensor] = []
    handle = part.register_forward_hook(lambda part, args, output: found.append(output))
    try:
        with torch.no_grad():
            run()
    finally:
        handle.remove()
    return [output[0] if isinstance(output, tuple) else output for output in found]


# ------------------------------------------------------------------- against Loopscope's own transformer


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


# ------------------------------------------------------------------------------ what is followed, and how


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


def logits_of(output: Any) -> Tensor:
    if isinstance(output, dict):
        return output["logits"]
    return output[1] if isinstance(output, tuple) else output


def forward_with(module: nn.Module, part: nn.Module, changed: Tensor) -> Tensor:
    """The module's own logits when the first output of `part` is replaced."""
    calls: list[int] = []

    def hook(part: nn.Module, args: Any, output: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            return output
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = part.register_forward_hook(hook)
    try:
        return logits_of(module(IDS))
    finally:
        handle.remove()


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


class Sampled(Injected):
    """Told nothing, it runs all loops without gradient, as Huginn does in evaluation."""

    def forward(self, ids: Tensor, loops: int | None = None) -> Any:
        with torch.set_grad_enabled(torch.is_grad_enabled() and loops is not None):
            return super().forward(ids, loops)


def test_the_trained_depth_is_run_as_set_loops_says() -> None:
    module = build(Sampled)
    with pytest.raises(ValueError, match="the gradient from loop 1 to the next loop"):
        loopscope.wrap(module, "layers")
    model = loopscope.wrap(module, "layers", set_loops="loops")
    assert model.loops == 3
    states = list(unroll(model, IDS))
    value = states[-1].logits().square().mean()
    mine = torch.autograd.grad(value, [module.tokens.weight])[0]
    own = torch.autograd.grad(module(IDS, 3)["logits"].square().mean(), [module.tokens.weight])[0]
    assert torch.allclose(mine, own, atol=1e-6, rtol=1e-4)


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


# ---------------------------------------------------------------------------------------------- refusals


class Detached(Injected):
    def forward(self, ids: Tensor, loops: int | None = None) -> Any:
        embedded = x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.stack(self.inject(torch.cat([x.detach(), embedded], dim=-1)))
        return self.lm_head(self.norm(x))


class NoGradPrefix(Injected):
    def forward(self, ids: Tensor, loops: int | None = None) -> Any:
        embedded = x = self.tokens(ids)
        for loop in range(self.config.loops):
            with torch.set_grad_enabled(loop == self.config.loops - 1):
                x = self.stack(self.inject(torch.cat([x, embedded], dim=-1)))
        return self.lm_head(self.norm(x))


class PlainDetached(Plain):
    """The state is passed on as it is: the values are those of a forward without the detach."""

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.stack(x.detach())
        return self.lm_head(self.norm(x))


class PlainNoGradPrefix(Plain):
    without = 2

    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids)
        for loop in range(self.config.loops):
            with torch.set_grad_enabled(torch.is_grad_enabled() and loop >= self.without):
                x = self.stack(x)
        return self.lm_head(self.norm(x))


class PlainNoGradFirst(PlainNoGradPrefix):
    without = 1


class TwoReadouts(Plain):
    """Raw at every loop but the last: no single readout is the module's."""

    def forward(self, ids: Tensor) -> Any:
        x, found = self.tokens(ids), []
        for loop in range(self.config.loops):
            x = self.stack(x)
            found.append(self.lm_head(self.norm(x) if loop == self.config.loops - 1 else x))
        return SimpleNamespace(logits=found)


class Averaged(Plain):
    """The head reads the mean of all loops' states."""

    def forward(self, ids: Tensor) -> Any:
        x, found = self.tokens(ids), []
        for _ in range(self.config.loops):
            x = self.stack(x)
            found.append(x)
        return self.lm_head(self.norm(torch.stack(found).mean(dim=0)))


class AveragedPair(Averaged):
    loops = 2


class AveragedInjected(Plain):
    """The same where a carry is followed, so that the history gives the last loop's logits all the same."""

    def forward(self, ids: Tensor) -> Any:
        embedded = x = self.tokens(ids)
        found: Any = 0.0
        for _ in range(self.config.loops):
            x = self.stack(self.inject(torch.cat([x, embedded], dim=-1)))
            found = found + x
        return self.lm_head(self.norm(found))


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


class OnlyLoss(Plain):
    def forward(self, ids: Tensor) -> Any:
        return {"logits": None, "loss": super().forward(ids).mean()}


class NeedsMore(Plain):
    def forward(self, ids: Tensor, mask: Tensor) -> Any:  # type: ignore[override]
        return super().forward(ids)


class SequenceFirst(Plain):
    def forward(self, ids: Tensor) -> Any:
        x = self.tokens(ids).transpose(0, 1)
        for _ in range(self.config.loops):
            x = self.stack(x)
        return self.lm_head(self.norm(x.transpose(0, 1)))


class Zigzag(Plain):
    def stack(self, x: Tensor) -> Tensor:
        return self.layers[0](self.layers[1](self.layers[0](x)))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Plain, {"block": "layer"}, r"block is 'layer', but Plain has no such part; did you mean layers"),
        (Plain, {"block": "norm"}, "block 'norm' is called once in the forward of Plain: it is not a loop"),
        (Plain, {"block": "tokens"}, "Embedding is called without a float tensor"),
        (Plain, {"block": "inject"}, "block 'inject' is never called"),
        (Plain, {"block": "config"}, "which is SimpleNamespace, not a module"),
        (Plain, {"head": "head"}, r"head is 'head', but Plain has no such part; did you mean lm_head"),
        (Plain, {"head": "config"}, "cannot be called"),
        (Plain, {"readout": None}, "the readout is not what the module uses: what reaches its head differs"),
        (Plain, {"readout": "between"}, "the readout is not what the module uses"),
        (Plain, {"readout": "inject"}, "the head cannot read what the readout gives it"),
        (Plain, {"readout": "norm", "head": nn.Linear(8, VOCABULARY)}, "name the head or the readout"),
        (Plain, {"readout": "norm", "head": nn.Linear(DIM, 7)}, "the vocabulary is 7 entries wide"),
        (Plain, {"readout": "norm", "head": lambda x: x}, "not what the forward does with the last state"),
        (Plain, {"head": lambda x: x}, "say what it reads"),
        (Plain, {"head": "inject"}, "does not call this head after its last loop.* name the readout too"),
        (Plain, {"gate": "inject"}, "gate cannot read the state"),
        (Plain, {"gate": "norm"}, "an exit gate gives one logit per token"),
        (Plain, {"loops": 5}, "calls block 'layers' 3 times; give set_loops"),
        (Plain, {"set_loops": "config.depth"}, "set_loops is 'config.depth', but Plain has no such part"),
        (Plain, {"set_loops": "config"}, "must be the attribute that holds the number of loops"),
        (Injected, {"loops": 5, "set_loops": lambda loops: {}}, "asks the forward for 5 loops, but it calls"),
        (Plain, {"hidden": "state"}, "hidden is 'state', but Block is called with"),
        (Plain, {"forward_kwargs": {"steps": 3}}, "pass what else it needs in forward_kwargs"),
        (NeedsMore, {}, "pass what else it needs in forward_kwargs"),
        (Averaged, {}, "the head reads the states of earlier loops too"),
        (Averaged, {"readout": "norm"}, "the head reads the states of earlier loops too"),
        (AveragedPair, {}, "there is no readout of one loop's state"),
        (AveragedInjected, {}, "the head reads the states of earlier loops too"),
        (OnlyLoss, {}, "returns no logits"),
        (Detached, {}, "the gradient from loop 1 to the next loop misses the finite difference by 100%"),
        (NoGradPrefix, {}, "a no_grad prefix, a detach, truncated backpropagation"),
        (PlainDetached, {}, "the gradient from loop 1 to the next loop misses the finite difference by 100%"),
        (PlainDetached, {"readout": "norm"}, "the gradient from loop 1 to the next loop misses"),
        (
            PlainNoGradPrefix,
            {},
            "the gradient from loop 1 to the next loop misses the finite difference by 100%",
        ),
        (PlainNoGradFirst, {}, "the gradient from the first loop's input to the block's output misses"),
        (TwoReadouts, {}, "at loop 1 the logits differ.*reads this loop otherwise than its last"),
        (SequenceFirst, {}, r"a hidden state is \[batch, seq, dim\]"),
        (Zigzag, {}, "are not called once each, in their order, per loop"),
    ],
)
def test_bad_input_is_refused(kind: type[Plain], settings: dict[str, Any], message: str) -> None:
    module = build(kind)
    with pytest.raises(ValueError, match=message):
        loopscope.wrap(module, **{"block": "layers", **settings})
    assert all("forward" not in part.__dict__ for part in module.modules())
    assert module.config.loops == kind.loops


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
