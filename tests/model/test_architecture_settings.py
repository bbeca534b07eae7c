"""Single architecture settings against closed forms."""

import itertools
import math
from typing import Any

import pytest
import torch

from loopscope.model.attention import window_mask
from loopscope.model.config import ModelConfig
from loopscope.model.layer import initial_beta, residual_alpha
from loopscope.model.looped import LoopedTransformer
from loopscope.numerics import scale
from loopscope.recurrence import LoopContext, unroll
from tests.model.fixtures import IDS, TINY, VARIANTS, build, live_model


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
    grouped = live_model("grouped queries")
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
    assert window_mask(torch.arange(5), 2).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1],
    ]
    attention = live_model("window").layers[0].attention
    x = torch.randn(1, 10, 32)
    changed = x.clone()
    changed[0, 2] += 1
    differs = (attention(x) != attention(changed)).any(dim=-1)[0].tolist()
    assert differs == [False, False, True, True, True, *[False] * 5]


def test_queries_and_keys_are_normed_where_asked() -> None:
    """Scaling the query and key rows of the matrix changes nothing behind a norm."""
    attention = live_model("window").layers[0].attention
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
    qkv = live_model("adapters").layers[0].attention.qkv
    x = torch.randn(3, 32)
    for loop, index in ((1, 0), (3, 2), (9, 2)):
        whole = qkv.weight + 4 / 2 * qkv.up_by_loop[index] @ qkv.down_by_loop[index]
        assert torch.allclose(qkv.in_loop(x, loop), x @ whole.T, atol=1e-5)


def test_random_starts_follow_the_generator_in_training_and_nothing_in_evaluation() -> None:
    model = live_model("huginn")
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
    moved = live_model("loopformer")
    short, long = next(unroll(moved, IDS, 2)), next(unroll(moved, IDS, 8))
    assert not torch.allclose(short.hidden, long.hidden, atol=1e-3)


def test_a_contractive_linear_model_reaches_its_fixed_point() -> None:
    """Decay a and write dt·B over layers that add nothing: h* = dt·B e / (1 - a), per channel."""
    model = live_model("parcae", start="zero", prelude=0).double()
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
    model = live_model("ouro")
    assert sum("norm" in key and "reading" in key for key in model.state_dict()) == 1
    assert not any(key.startswith("carries") for key in model.state_dict())
    with torch.no_grad():
        model.reading.norm.weight.fill_(3.0)
    hidden = torch.randn(1, 2, 32)
    assert torch.allclose(scale(model.carries["readout-norm"](hidden, 1)), torch.full((1, 2), 3.0), rtol=1e-4)


def test_a_gate_may_read_the_readout() -> None:
    model = live_model("ouro")
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
