"""What the config says about scale, against derivatives measured in float64 at a small and a large scale."""

import pytest
import torch
import torch.nn.functional as F

from loopscope.model.looped import LoopedTransformer
from loopscope.numerics import scale
from loopscope.plan.scale_facts import carry_does, core_does, gate_sees, holds_scale, readout_sees, step_does
from loopscope.recurrence import LoopContext
from tests.model.fixtures import VARIANTS, build

IDS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(3))
LABELS = (IDS * 5 + 2) % 61
LOOPS = 3
READOUTS = [
    "rmsnorm",
    "layernorm",
    "raw",
    "final-only",
    {"kind": "alpha", "alpha": 0.5},
    {"kind": "alpha", "alpha": 0.0},
]


def made(name: str, **changes: object) -> LoopedTransformer:
    torch.manual_seed(0)
    model = LoopedTransformer(build(name, **changes)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def radial_share(model: LoopedTransformer, loop: int, size: float, gate: bool = False) -> float:
    """|<dL/dH, H>| over the product of norms, of loop `loop`'s cross-entropy (or gate) at an H of RMS `size`."""
    torch.manual_seed(1)
    hidden = torch.randn(2, 9, 32, dtype=torch.float64)
    if model.config.readout.kind == "layernorm":
        hidden = hidden - hidden.mean(dim=-1, keepdim=True)
    hidden = (hidden / scale(hidden)[..., None] * size).requires_grad_()
    context = LoopContext(IDS, model.embed(IDS), LOOPS)
    if gate:
        value = model.exit_gate(hidden, loop, context).sin().sum()
    else:
        logits = model.head(model.readout(hidden, loop, context))
        value = F.cross_entropy(logits.flatten(0, 1), LABELS.flatten())
    (gradient,) = torch.autograd.grad(value, hidden)
    return float(((gradient * hidden).sum(-1).abs() / (gradient.norm(dim=-1) * hidden.norm(dim=-1))).mean())


@pytest.mark.parametrize("loop", [1, LOOPS])
@pytest.mark.parametrize("readout", READOUTS, ids=str)
@pytest.mark.parametrize(
    "coda", [{}, {"coda": 1}, {"coda": 2, "block": {"placement": "sandwich-sum"}}], ids=str
)
def test_readouts_see_what_the_config_says(coda: dict, readout: object, loop: int) -> None:
    model = made("plain", readout=readout, **coda)
    near, far = (radial_share(model, loop, size) for size in (10.0, 1000.0))
    match readout_sees(model.config, loop, LOOPS).sight:
        case "nothing":
            assert max(near, far) < 1e-6
        case "ratio":
            assert near > 1e-4
            assert far < near / 20  # 100 times the scale: about a hundredth is left
        case "scale":
            assert min(near, far) > 1e-3


@pytest.mark.parametrize("readout", ["rmsnorm", "layernorm"])
def test_a_norm_before_the_coda_hides_everything(readout: str) -> None:
    model = made("plain", coda=1, coda_norm=True, readout=readout)
    assert readout_sees(model.config, 1, LOOPS).sight == "nothing"
    assert radial_share(model, 1, 10.0) < 1e-6


@pytest.mark.parametrize(("reads", "sight"), [("hidden", "scale"), ("readout", "nothing")])
def test_gates(reads: str, sight: str) -> None:
    model = made("plain", exit_gate=True, gate_reads=reads)
    seen = gate_sees(model.config, 1, LOOPS)
    assert seen is not None
    assert seen.sight == sight
    assert (radial_share(model, 1, 10.0, gate=True) > 1e-3) is (sight == "scale")
    assert gate_sees(build("plain"), 1, LOOPS) is None


def slope(model: LoopedTransformer, size: float) -> float:
    """d log s_2 / d log s_1, measured across one carry and core."""
    torch.manual_seed(1)
    hidden = torch.randn(2, 9, 32, dtype=torch.float64)
    hidden = hidden / scale(hidden)[..., None] * size
    context = LoopContext(IDS, model.embed(IDS), LOOPS)
    with torch.no_grad():
        logs = [
            scale(model.core(model.carry(hidden * (1 + sign * 1e-3), 1, context), 2, context)).log().mean()
            for sign in (1, -1)
        ]
    return float(logs[0] - logs[1]) / 2e-3


@pytest.mark.parametrize("carry", [None, [], ["rmsnorm"], ["layernorm"], ["damping"]], ids=str)
@pytest.mark.parametrize("name", VARIANTS)
def test_steps_do_what_the_config_says(name: str, carry: list[str] | None) -> None:
    if carry is not None and build(name).injection.kind == "write":
        carry = [*carry, "decay"]
    model = made(name, **({} if carry is None else {"carry": carry}))
    # The gains of norms are moved, so that what a norm leaves depends a little on direction, not on scale.
    for parameter_name, parameter in model.named_parameters():
        if "norm" in parameter_name and parameter.ndim == 1:
            parameter.data.fill_(1.0 if parameter_name.endswith("weight") else 0.0)
    measured = slope(model, 1e5)
    match step_does(model.config).effect:
        case "removes":
            assert abs(measured) < 1e-3
        case "damps":
            hidden = torch.randn(1, 2, 32, dtype=torch.float64)
            assert bool(
                (model.carry(hidden, 1, LoopContext(IDS, model.embed(IDS), LOOPS)).abs() < hidden.abs()).all()
            )
            assert measured == pytest.approx(1, abs=0.02)
        case "keeps":
            assert measured == pytest.approx(1, abs=0.02)
    removes = any(step.removes_scale() for step in model.carries.values())
    assert removes is (carry_does(model.config).effect == "removes")
    assert (core_does(model.config).effect == "removes") is model.config.block.ends_in_norm


def test_what_holds_the_scale_in_words() -> None:
    words = {name: holds_scale(build(name)) for name in VARIANTS}
    assert words["plain"] == "nothing: readout rmsnorm divides by the state's own size"
    assert words["huginn"].startswith("every layer ends in a norm")
    assert words["ouro"] == "carry readout-norm divides by the state's own size"
    assert words["parcae"].startswith("carry decay multiplies the state by a learned factor")
    assert "1/s" in words["prelude and coda"]
    assert holds_scale(build("plain", readout="raw")).startswith("the loss: readout raw")
    assert holds_scale(build("plain", exit_gate=True)).startswith("the gate alone")
