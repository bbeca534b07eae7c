"""Every architecture setting against a loop written by hand, formulas in plain tensor code, and closed forms."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loopscope.model.attention import window_mask
from loopscope.model.config import ModelConfig
from loopscope.model.layer import Layer, initial_beta, residual_alpha
from loopscope.model.looped import LoopedTransformer
from loopscope.numerics import scale
from loopscope.recurrence import LoopContext, unroll
from tests.model.fixtures import TINY, VARIANTS, build

IDS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(7))


def made(name: str, **changes: Any) -> LoopedTransformer:
    """A tiny model in evaluation mode, with every zero-initialised part moved off zero."""
    torch.manual_seed(0)
    model = LoopedTransformer(build(name, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def norm(module: nn.Module, x: Tensor) -> Tensor:
    """RMSNorm and LayerNorm by torch's own functions."""
    weight = module.weight
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x, x.shape[-1:], weight, module.bias, module.eps)
    return F.rms_norm(x, x.shape[-1:], weight, module.eps)


def layer_by_hand(
    layer: Layer,
    x: Tensor,
    loop: int,
    condition: Tensor | None,
    config: ModelConfig,
    values: Tensor | None = None,
) -> Tensor:
    """What `Layer` computes, from its two branches and the four formulas of its docstring."""
    gates = [1.0, 1.0]
    gains = [0.0, 0.0]
    if condition is not None:
        gate_a, gate_f, gain_a, gain_f = layer.modulation(condition).chunk(4)
        gates, gains = [gate_a, gate_f], [gain_a, gain_f]
    parts = [
        (layer.attention, layer.attention_norm, layer.attention_norm_after),
        (layer.feed_forward, layer.feed_forward_norm, layer.feed_forward_norm_after),
    ]
    if config.looped == "attention" and loop > 1:
        parts = parts[:1]
    for place, (branch, before, after) in enumerate(parts):

        def f(y: Tensor, branch: nn.Module = branch, place: int = place) -> Tensor:
            given = {} if values is None or branch is layer.feed_forward else {"values": values}
            return gates[place] * branch(y * (1 + gains[place]), loop, **given)

        g = layer.gain
        match config.block.placement:
            case "pre":
                x = x + g * f(norm(before, x))
            case "sandwich":
                x = x + g * norm(after, f(norm(before, x)))
            case "sandwich-sum":
                x = norm(after, x + g * f(norm(before, x)))
            case "post":
                x = norm(before, layer.alpha * x + g * f(x))
    return x


@pytest.mark.parametrize("loops", [1, 3, 5])
@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_unroll_equals_a_loop_written_by_hand(name: str, loops: int) -> None:
    model = made(name)
    config = model.config
    entry = model.token_embedding(IDS)
    if config.embedding_gain == "sqrt-dim":
        entry = entry * 32**0.5
    if config.positions == "learned":
        entry = entry + model.position_embedding.weight[:9]
    count = config.prelude + config.layers + config.coda
    valued = range((count - 1) % 2, count, 2) if config.attention.value_embeddings != "none" else ()
    tables = {place: model.value_embeddings.tables[str(place)].weight for place in valued}
    rows = [tables[place][IDS] if place in tables else None for place in range(count)]
    for place, layer in enumerate(model.prelude):
        entry = layer_by_hand(layer, entry, 1, None, config, rows[place])
    if config.injection.norm:
        entry = norm(model.entry_norm, entry)
    hidden = {"embedding": entry, "zero": torch.zeros_like(entry)}.get(config.start)
    if hidden is None:
        noise = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))[:9]
        hidden = (0.4**0.5 * noise.clamp(-3, 3)).expand(2, 9, 32)
    if "decay" in config.carry:
        decay = model.carries["decay"]
        step = F.softplus(decay.raw_step)
        share = torch.exp(-step * torch.exp(decay.log_rate))
        hidden = hidden * share
    for state in unroll(model, IDS, loops):
        k = state.loop
        match config.injection.kind:
            case "add":
                hidden = hidden + entry
            case "gated":
                gate = torch.sigmoid(model.injection.gate(torch.cat([hidden, entry], dim=-1)))
                hidden = hidden + gate * entry
            case "concat":
                hidden = F.linear(torch.cat([hidden, entry], dim=-1), model.injection.mix.weight)
            case "write":
                hidden = hidden + step * F.linear(entry, model.injection.write)
        condition = None
        if config.loop_embedding == "learned":
            hidden = hidden + model.loop_embedding.table.weight[min(k, 3) - 1]
        elif config.loop_embedding == "sinusoidal":
            angle = k * 10_000.0 ** -(torch.arange(0, 32, 2) / 32)
            hidden = hidden + torch.cat([angle.sin(), angle.cos()])
        elif config.loop_embedding == "modulation":
            condition = model.loop_embedding(k, loops)
        for place, layer in enumerate(model.layers, start=config.prelude):
            hidden = layer_by_hand(layer, hidden, k, condition, config, rows[place])
        assert torch.equal(state.hidden, hidden), f"loop {k}"
        read = norm(model.reading.norm, hidden) if config.coda_norm else hidden
        if config.coda_matrix:
            read = F.linear(read, model.coda_matrix)
        for layer, values in zip(model.coda, rows[count - config.coda :], strict=True):
            read = layer_by_hand(layer, read, 1, None, config, values)
        head = model.token_embedding.weight if config.tied else model.unembedding.weight
        assert torch.equal(state.logits(), model.reading(read, k, loops) @ head.T)
        for carry in config.carry:
            if carry == "rmsnorm":
                hidden = norm(model.carries[carry].norm, hidden)
            elif carry == "readout-norm":
                hidden = norm(model.reading.norm, hidden)
            else:
                hidden = hidden * share


@pytest.mark.parametrize("name", VARIANTS)
def test_a_state_dict_round_trip_and_a_repeated_unroll_are_bitwise(name: str) -> None:
    model = made(name)
    again = LoopedTransformer(model.config).eval()
    again.load_state_dict(model.state_dict())
    for one, other in zip(unroll(model, IDS, 4), unroll(again, IDS, 4), strict=True):
        assert torch.equal(one.logits(), other.logits())


@pytest.mark.parametrize("name", VARIANTS)
def test_attention_stays_causal_and_batches_do_not_mix(name: str) -> None:
    model = made(name)
    changed = IDS.clone()
    changed[0, 6:] = (changed[0, 6:] + 1) % 61
    before, after = model(IDS), model(changed)
    assert torch.allclose(before[0, :6], after[0, :6], atol=1e-5)
    assert torch.allclose(before[1], after[1], atol=1e-6)
    assert torch.allclose(model(IDS[:1]), before[:1], atol=1e-5)
    assert torch.allclose(model(IDS[:, :5]), before[:, :5], atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradient_through_all_loops_equals_backpropagation_written_out(name: str) -> None:
    """Autograd against a central difference of the last logits along a random direction, in float64."""
    model = made(name).double()
    direction = [torch.randn_like(parameter) for parameter in model.parameters()]
    weight = torch.randn(2, 9, 61, dtype=torch.float64)

    def value() -> Tensor:
        return (model(IDS) * weight).sum()

    gradients = torch.autograd.grad(value(), list(model.parameters()), allow_unused=True)
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None)
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for parameter, d in zip(model.parameters(), direction, strict=True):
                parameter.add_(step * d)
            values.append(float(value()))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=2e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = made(name).train()
    sum(state.logits().square().mean() for state in unroll(model, IDS)).backward()
    unused = {"gate.weight", "gate.bias"}
    silent = [
        key
        for key, parameter in model.named_parameters()
        if key not in unused and (parameter.grad is None or not parameter.grad.any())
    ]
    assert silent == []


def test_gradient_checkpointing_changes_no_gradient_of_any_variant() -> None:
    for name in ("huginn", "loopformer", "adapters", "hybrid", "gated values"):
        gradients = []
        for checkpointing in ("none", "layer", "loop"):
            model = made(name, dropout=0.1).train()
            model.gradient_checkpointing = checkpointing
            torch.manual_seed(1)
            model(IDS).square().mean().backward()
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        for other in gradients[1:]:
            assert all(torch.equal(a, b) for a, b in zip(gradients[0], other, strict=True)), name


def test_deepnorm_and_deeploop_constants_and_start_values() -> None:
    deepnorm, deeploop = build("deepnorm"), build("deeploop")
    depth = 2 * 3
    assert residual_alpha(deepnorm) == pytest.approx((2 * depth) ** (1 / 4))
    assert initial_beta(deepnorm) == pytest.approx((8 * depth) ** (-1 / 4))
    assert residual_alpha(deeploop) == pytest.approx((2 * depth) ** (1 / 2))
    assert initial_beta(deeploop) == pytest.approx((8 * depth) ** (-1 / 2))
    torch.manual_seed(0)
    wide = LoopedTransformer(build("deeploop", dim=256, heads=4, attention={"key_value_heads": 2}))
    layer = wide.layers[0]
    query, key, value = layer.attention.qkv.weight.split([256, 128, 128])
    beta = initial_beta(wide.config)
    expected = (
        (query, (2 / 512) ** 0.5),
        (key, (2 / 384) ** 0.5),
        (value, beta * (2 / 384) ** 0.5),
        (layer.attention.out.weight, beta * (2 / 512) ** 0.5),
        (layer.feed_forward.down.weight, beta * (2 / 1280) ** 0.5),
    )
    for weight, deviation in expected:
        assert float(weight.detach().std()) == pytest.approx(deviation, rel=0.03)


def test_residual_gains() -> None:
    gains = {name: LoopedTransformer(build(name)).layers[0].gain for name in VARIANTS}
    assert gains["1/N"] == pytest.approx(1 / 3)
    assert gains["1/sqrt(N)"] == pytest.approx(3**-0.5)
    assert gains["factored"] == pytest.approx(1 / (3 * 2**0.5))
    assert gains["plain"] == gains["huginn"] == 1.0
    model = LoopedTransformer(build("1/N", prelude=1, coda=1))
    assert model.prelude[0].gain == model.coda[0].gain == 1.0


@pytest.mark.parametrize(
    ("name", "ends"), [("plain", False), ("ouro", False), ("huginn", True), ("deeploop", True)]
)
def test_only_stacks_that_end_in_a_norm_fix_the_scale(name: str, ends: bool) -> None:
    torch.manual_seed(0)
    model = LoopedTransformer(build(name, initialisation="published", carry=[])).eval()
    scales = [float(scale(state.hidden.detach()).mean()) for state in unroll(model, IDS, 6)]
    if ends:
        assert scales == pytest.approx([1.0] * 6, abs=1e-3)
    else:
        assert all(later > earlier for earlier, later in itertools.pairwise(scales))


def test_grouped_queries_equal_keys_repeated_by_hand() -> None:
    grouped = made("grouped queries")
    attention = grouped.layers[0].attention
    x = torch.randn(2, 7, 32)
    query, key, value = attention.qkv(x).split([32, 16, 16], dim=-1)
    heads = [part.view(2, 7, -1, 8).transpose(1, 2) for part in (query, key, value)]
    key, value = (part.repeat_interleave(2, dim=1) for part in heads[1:])
    scores = heads[0] @ key.transpose(-1, -2) / 8**0.5
    scores = scores.masked_fill(~torch.ones(7, 7, dtype=torch.bool).tril(), -math.inf)
    mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(2, 7, 32)
    assert torch.allclose(attention(x), attention.out(mixed), atol=1e-6)


def test_a_window_hides_what_is_further_back() -> None:
    assert window_mask(5, 2, torch.device("cpu")).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1],
    ]
    attention = made("window").layers[0].attention
    x = torch.randn(1, 10, 32)
    changed = x.clone()
    changed[0, 2] += 1
    differs = (attention(x) != attention(changed)).any(dim=-1)[0].tolist()
    assert differs == [False, False, True, True, True, *[False] * 5]


def test_queries_and_keys_are_normed_where_asked() -> None:
    """Scaling the query and key rows of the matrix changes nothing behind a norm."""
    attention = made("window").layers[0].attention
    x = torch.randn(1, 6, 32)
    before = attention(x)
    with torch.no_grad():
        attention.qkv.weight[:64] *= 7
    assert torch.allclose(attention(x), before, atol=1e-4)


def test_adapters_start_as_the_shared_weights_and_differ_by_loop() -> None:
    torch.manual_seed(0)
    model = LoopedTransformer(build("adapters")).eval()
    plain = LoopedTransformer(build("plain")).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "by_loop" not in k})
    assert torch.allclose(model(IDS), plain(IDS), atol=1e-6)
    qkv = made("adapters").layers[0].attention.qkv
    x = torch.randn(3, 32)
    for loop, index in ((1, 0), (3, 2), (9, 2)):
        whole = qkv.weight + 4 / 2 * qkv.up_by_loop[index] @ qkv.down_by_loop[index]
        assert torch.allclose(qkv.in_loop(x, loop), x @ whole.T, atol=1e-5)


def test_random_starts_follow_the_generator_in_training_and_nothing_in_evaluation() -> None:
    model = made("huginn")
    first = model(IDS)
    torch.manual_seed(99)
    assert torch.equal(first, model(IDS))
    model.train()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(model(IDS))
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2], atol=1e-3)


def test_modulation_starts_as_the_identity_and_depends_on_the_depth_of_the_unroll() -> None:
    torch.manual_seed(0)
    fresh = LoopedTransformer(build("loopformer")).eval()
    assert torch.equal(*(state.hidden for state in unroll(fresh, IDS, 2)))
    moved = made("loopformer")
    short, long = next(unroll(moved, IDS, 2)), next(unroll(moved, IDS, 8))
    assert not torch.allclose(short.hidden, long.hidden, atol=1e-3)


def test_a_contractive_linear_model_reaches_its_fixed_point() -> None:
    """Decay a and write dt·B over layers that add nothing: h* = dt·B e / (1 - a), per channel."""
    model = made("parcae", start="zero", prelude=0).double()
    with torch.no_grad():
        for layer in model.layers:
            layer.attention.out.weight.zero_()
            layer.feed_forward.down.weight.zero_()
    context = LoopContext(IDS, model.embed(IDS), 1)
    decay = model.carries["decay"]
    expected = decay.step() * (context.embedded @ model.injection.write.T) / (1 - decay.decay())
    *_, last = unroll(model, IDS, 400)
    assert torch.allclose(last.hidden, expected, rtol=1e-9)


@pytest.mark.parametrize("start", [0.01, 0.5, 0.9, 0.99])
def test_the_decay_can_learn_from_its_start_value(start: float) -> None:
    """d a / d log_rate = a·ln a: at least 0.009 over the allowed range, against 6e-6 for a sigmoid near 1."""
    model = LoopedTransformer(build("parcae", decay=start))
    decay = model.carries["decay"]
    assert torch.allclose(decay.decay(), torch.full((32,), start))
    assert torch.allclose(decay.step(), torch.full((32,), 1 - start))
    decay.decay().sum().backward()
    assert torch.allclose(decay.log_rate.grad, torch.full((32,), start * math.log(start)), rtol=1e-4)
    assert float(decay.log_rate.grad.abs().min()) > 0.009
    with pytest.raises(ValueError, match="less than or equal to 0.99"):
        build("parcae", decay=0.999999)


def test_a_decay_learns_in_a_hundred_steps() -> None:
    """Gradient descent moves the decay from 0.9 to where the state must vanish."""
    torch.manual_seed(0)
    decay = LoopedTransformer(build("parcae")).carries["decay"]
    optimizer = torch.optim.Adam(decay.parameters(), lr=0.05)
    hidden = torch.randn(4, 3, 32)
    for _ in range(100):
        optimizer.zero_grad()
        decay(hidden, 1).square().mean().backward()
        optimizer.step()
    assert float(decay.decay().mean()) < 0.5


def test_the_readout_norm_is_one_parameter_used_twice() -> None:
    model = made("ouro")
    assert sum("norm" in key and "reading" in key for key in model.state_dict()) == 1
    assert not any(key.startswith("carries") for key in model.state_dict())
    with torch.no_grad():
        model.reading.norm.weight.fill_(3.0)
    hidden = torch.randn(1, 2, 32)
    assert torch.allclose(scale(model.carries["readout-norm"](hidden, 1)), torch.full((1, 2), 3.0), rtol=1e-4)


def test_a_gate_may_read_the_readout() -> None:
    model = made("ouro")
    state = next(unroll(model, IDS))
    assert torch.allclose(state.gate_logit(), model.gate(state.features())[..., 0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": {"scaling": "deeploop"}}, "needs placement 'post', not 'pre'"),
        (
            {"block": {"scaling": "deepnorm", "placement": "sandwich"}},
            "needs placement 'post', not 'sandwich'",
        ),
        ({"attention": {"key_value_heads": 3}}, "key_value_heads 3 does not divide heads 4"),
        ({"attention": {"rotary_base": 5e4}}, "positions are 'learned'; set positions: rotary"),
        ({"positions": "rotary", "attention": {"rotary_fraction": 0.1}}, "leaves none to turn"),
        ({"start": "random"}, "start 'random' without an injection"),
        ({"carry": ["decay"]}, "carry 'decay' without an injection"),
        ({"injection": "write"}, "takes its step from the decay; add decay to carry"),
        ({"decay": 0.5}, "carry has no 'decay' step"),
        ({"carry": ["readout-norm"], "readout": "raw"}, "readout 'raw' has none"),
        ({"coda_norm": True}, "coda_norm needs coda layers"),
        ({"coda_matrix": True}, "there is no coda"),
        ({"loop_embedding": "modulation", "block": {"placement": "post"}}, "set block.placement: pre"),
        ({"loop_embedding": "sinusoidal", "dim": 5, "heads": 5}, "dim 5 is odd"),
        ({"gate_reads": "readout"}, "there is no gate"),
        ({"injection": {"norm": True}}, "nothing is injected"),
    ],
)
def test_contradictions_are_refused_with_the_reason(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{**TINY, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": {"window": 16}}, "window 16 has no effect on windows of 16 tokens"),
        ({"loops": 1, "looped": "attention"}, "looped: attention has no effect with 1 loop"),
        ({"loops": 1, "adapters": 2}, "adapters has no effect with 1 loop"),
        ({"adapters": {"alpha": 2.0}}, "adapters.alpha has no effect"),
    ],
)
def test_settings_without_effect_warn(settings: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        ModelConfig(**{**TINY, **settings})


@pytest.mark.parametrize("name", VARIANTS)
def test_configs_round_trip(name: str) -> None:
    config = build(name)
    assert ModelConfig(**config.model_dump(mode="json")) == config
