"""Lemma 1 of the paper as a property: a readout that normalises hides the scale from its cross-entropy."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from loopscope.model.config import ModelConfig, ReadoutConfig
from loopscope.model.readouts import AbstractReadout, build_readout

LOOPS, DIM, VOCAB = 4, 32, 50
READOUTS = {
    "rmsnorm": {"kind": "rmsnorm"},
    "layernorm": {"kind": "layernorm"},
    "raw": {"kind": "raw"},
    "final-only": {"kind": "final-only"},
    "alpha 0": {"kind": "alpha", "alpha": 0.0},
    "alpha 0.5": {"kind": "alpha", "alpha": 0.5},
    "alpha 1": {"kind": "alpha", "alpha": 1.0},
    "alpha learned": {"kind": "alpha", "learned": True, "per_loop": True, "s_ref": "learned"},
    "alpha ema": {"kind": "alpha", "alpha": 0.3, "s_ref": "ema"},
}


def build(name: str) -> AbstractReadout:
    config = ModelConfig(dim=DIM, heads=4, loops=LOOPS, vocabulary=VOCAB, readout=READOUTS[name])
    readout = build_readout(config).double().eval()
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return readout


def radial_share(readout: AbstractReadout, hidden: torch.Tensor, loop: int) -> torch.Tensor:
    """|<dL/dH, H>| / (|dL/dH| |H|) of one loop's cross-entropy, over all tokens."""
    hidden = hidden.requires_grad_()
    weight = torch.randn(VOCAB, DIM, dtype=hidden.dtype) / DIM**0.5
    logits = F.linear(readout(hidden, loop, LOOPS), weight)
    labels = torch.randint(VOCAB, hidden.shape[:2])
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    (gradient,) = torch.autograd.grad(loss, hidden)
    return ((gradient * hidden).sum().abs() / (gradient.norm() * hidden.norm())).detach()


@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize("loop", [1, LOOPS])
@given(log_rms=st.floats(0, 5), seed=st.integers(0, 2**31))
@settings(max_examples=25)
def test_lemma_1(name: str, loop: int, log_rms: float, seed: int) -> None:
    torch.manual_seed(seed)
    readout = build(name)
    hidden = torch.randn(2, 3, DIM, dtype=torch.float64)
    hidden *= 10**log_rms / hidden.square().mean().sqrt()
    if name == "layernorm":  # LayerNorm's variance must be of the order of the scale, as the RMS is
        hidden -= hidden.mean(dim=-1, keepdim=True)
    share = radial_share(readout, hidden, loop)
    if readout.scale_exponent(loop, LOOPS) == 0:
        assert share < 1e-4
    else:
        # The hypothesis draws hundreds of random heads: a cosine of exactly 0 would be the only miss.
        assert share > 1e-9
        if log_rms < 1:
            assert share > 1e-6


@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize("loop", [1, LOOPS])
def test_scale_exponent_is_the_slope_of_the_features(name: str, loop: int) -> None:
    torch.manual_seed(0)
    readout = build(name)
    hidden = 100 * torch.randn(1, 5, DIM, dtype=torch.float64)
    if name == "layernorm":
        hidden = hidden - hidden.mean(dim=-1, keepdim=True)

    def size(state: torch.Tensor) -> torch.Tensor:
        features = readout(state, loop, LOOPS).detach()
        if name == "layernorm":
            features = features - readout.norm.bias.detach()
        return features.norm()

    slope = torch.log(size(hidden * 1.1) / size(hidden)) / torch.log(torch.tensor(1.1))
    assert float(slope) == pytest.approx(readout.scale_exponent(loop, LOOPS), abs=1e-4)


@pytest.mark.parametrize("name", ["rmsnorm", "final-only"])
@given(log_rms=st.floats(-5, -1))
@settings(max_examples=25)
def test_below_rms_1_the_norm_shows_its_eps(name: str, log_rms: float) -> None:
    """Far below RMS 1 the norm is not invariant: d log|features| / d log s = eps / (mean square + eps)."""
    readout = build(name)
    hidden = torch.randn(1, 1, DIM, dtype=torch.float64)
    hidden = hidden * 10**log_rms / hidden.square().mean().sqrt()
    step = 1e-5
    larger, smaller = (readout(hidden * (1 + sign * step), LOOPS, LOOPS).norm().log() for sign in (1, -1))
    slope = float((larger - smaller) / (2 * step))
    mean_square = float(hidden.square().mean())
    assert slope == pytest.approx(1e-6 / (mean_square + 1e-6), rel=1e-4, abs=1e-8)


def test_alpha_moves_between_constant_and_raw() -> None:
    torch.manual_seed(0)
    hidden = 7 * torch.randn(2, 3, DIM, dtype=torch.float64)
    assert torch.allclose(build("alpha 1")(hidden, 1, LOOPS), hidden)
    flat = build("alpha 0")(hidden, 1, LOOPS).square().mean(dim=-1).sqrt()
    assert torch.allclose(flat, torch.ones_like(flat))


def test_alpha_moving_average_follows_training_only() -> None:
    torch.manual_seed(0)
    readout = build("alpha ema")
    hidden = torch.full((1, 2, DIM), 8.0, dtype=torch.float64)
    readout(hidden, 1, LOOPS)
    assert float(readout.log_s_ref) == 0.0
    readout.train()
    readout(hidden, 1, LOOPS)
    assert float(readout.log_s_ref) == pytest.approx(2.0794415)  # the first batch sets it: log 8
    readout(hidden * 2, 1, LOOPS)
    assert float(readout.log_s_ref) == pytest.approx(0.99 * 2.0794415 + 0.01 * 2.7725887)


def test_per_loop_alpha_beyond_the_trained_depth_uses_the_last() -> None:
    readout = build("alpha learned")
    assert torch.equal(readout.alpha(LOOPS + 3), readout.alpha(LOOPS))


def test_settings_of_another_readout_are_refused() -> None:
    with pytest.raises(ValueError, match="s_ref belong to readout kind 'alpha'"):
        ReadoutConfig(kind="raw", s_ref="ema")
    with pytest.raises(ValueError, match="alpha_min 0.5 must be below alpha_max 0.2"):
        ReadoutConfig(kind="alpha", alpha_min=0.5, alpha_max=0.2)
