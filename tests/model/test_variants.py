"""Every shipped record against its module: parameters counted, FLOPs by torch's counter, exponents by scaling."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from loopscope.model.carries import build_carries, share_norm
from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import carries_of, exponent_of, injection_of, readout_of, start_of
from loopscope.model.config.variants import CARRIES, INJECTIONS, READOUTS, STARTS
from loopscope.model.initial_state import build_start
from loopscope.model.injections import build_injection
from loopscope.model.readouts import build_readout
from loopscope.numerics import scale
from tests.model.fixtures import TINY

DIM, LOOPS, BATCH, SEQ = TINY["dim"], TINY["loops"], 2, 5
ALPHAS: list[dict[str, Any]] = [
    {"kind": "alpha", "alpha": 0.3},
    {"kind": "alpha", "alpha": 0.0},
    {"kind": "alpha", "alpha": 0.7, "learned": True, "per_loop": True, "s_ref": "learned"},
]
READ = [*({"kind": kind} for kind in READOUTS.shipped), *ALPHAS]


def config_with(**changes: Any) -> ModelConfig:
    return ModelConfig(**{**TINY, **changes})


def with_carry(kind: str) -> ModelConfig:
    return config_with(carry=[kind], injection="add" if kind == "decay" else "none")


def with_injection(kind: str) -> ModelConfig:
    return config_with(injection=kind, carry=["decay"] if kind == "write" else [])


def hidden() -> Tensor:
    """A state whose channels have mean 0: what LayerNorm takes off besides scale is nothing."""
    state = torch.randn(BATCH, SEQ, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return 3 * (state - state.mean(dim=-1, keepdim=True))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(autouse=True)
def _no_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


def flops(module: nn.Module, *inputs: Any) -> float:
    """Per token, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops() / (BATCH * SEQ)


@pytest.mark.parametrize("names", [READOUTS, CARRIES, INJECTIONS, STARTS], ids=lambda names: names.noun)
def test_every_class_points_to_its_record(names: Any) -> None:
    for name, shipped in names.shipped.items():
        assert names.load(name).declaration is shipped.declaration is names.declaration(name)


@pytest.mark.parametrize("readout", READ, ids=str)
def test_readouts(readout: dict[str, Any]) -> None:
    config = config_with(readout=readout)
    module, chosen = build_readout(config).double().eval(), readout_of(config)
    assert chosen.parameters == count(module)
    assert chosen.flops == flops(module, hidden(), 1, LOOPS)
    assert chosen.declaration.norm is (hasattr(module, "norm") and readout["kind"] != "final-only")
    for loop in (1, LOOPS):
        grown = scale(module(100 * hidden(), loop, LOOPS)) / scale(module(hidden(), loop, LOOPS))
        measured = float(grown.log().mean()) / torch.log(torch.tensor(100.0)).item()
        assert exponent_of(config, last=loop == LOOPS) == pytest.approx(measured, abs=1e-4)
        assert module.scale_exponent(loop, LOOPS) == pytest.approx(measured, abs=1e-4)


@pytest.mark.parametrize("s_ref", ["fixed", "ema"])
def test_a_readout_that_moves_by_itself_says_so(s_ref: str) -> None:
    config = config_with(readout={"kind": "alpha", "s_ref": s_ref})
    module = build_readout(config).double().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module(hidden(), 1, LOOPS)
    moved = any(not value.equal(before[name]) for name, value in module.state_dict().items())
    assert readout_of(config).value("adapts") is moved


@pytest.mark.parametrize("kind", CARRIES.shipped)
def test_carries(kind: str) -> None:
    config = with_carry(kind)
    carries, reading = build_carries(config).double(), build_readout(config).double()
    share_norm(carries, reading)
    (chosen,), (module,) = carries_of(config), carries.values()
    assert chosen.parameters == count(module)
    assert chosen.flops == flops(module, hidden(), 1)
    once, large = scale(module(hidden(), 1)), scale(module(100 * hidden(), 1))
    assert isinstance(chosen.declaration.readout_norm, bool)
    if chosen.value("effect") == "removes":
        torch.testing.assert_close(large, once, rtol=1e-5, atol=0)
    else:
        torch.testing.assert_close(large, 100 * once)
        assert bool((once < 0.999 * scale(hidden())).all()) is (chosen.value("effect") == "damps")


@pytest.mark.parametrize("kind", INJECTIONS.shipped)
def test_injections(kind: str) -> None:
    config = with_injection(kind)
    module, chosen = build_injection(config), injection_of(config)
    assert module is not None
    assert chosen is not None
    module.double()
    entry, step = hidden().flip(0), torch.full((DIM,), 0.1, dtype=torch.float64)
    assert chosen.parameters == count(module)
    assert chosen.flops == flops(module, hidden(), entry, step)
    # At large scale, what is injected is small beside the state: what is left of the state is the injection's doing.
    left = module(1e6 * hidden(), entry, step) / 1e6
    assert chosen.value("effect") == "keeps"
    assert bool(((left - hidden()).abs() < 1e-4).all()) is not chosen.declaration.learned_map
    assert scale(left).min() > 0.05
    # A product that reads the input alone costs the same where no gradient is asked of the state.
    assert chosen.value("input_flops") == (chosen.flops if kind == "write" else 0)


@pytest.mark.parametrize("kind", STARTS.shipped)
def test_start_states(kind: str) -> None:
    config = config_with(start=kind, injection="add")
    module, chosen = build_start(config).double().eval(), start_of(config)
    assert chosen.parameters == count(module)
    assert chosen.flops == flops(module, hidden(), None)
    changed = not module(hidden(), None).equal(module(hidden() + 1, None))
    assert chosen.declaration.shows_input is changed
