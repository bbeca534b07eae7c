"""Dynamics against linear maps whose spectrum is known."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from loopscope.audit import dynamics
from loopscope.audit.arnoldi import PRODUCTS, PRODUCTS_AFTER, spectral_radius
from loopscope.audit.dynamics import jacobian_product, linear_product, measure_dynamics, recorded_product
from loopscope.audit.widened_space import FURTHER_PRODUCTS, widened_radius
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import unroll

IDS = torch.arange(6)[None]
LIKE = torch.zeros(1, 3, 8, dtype=torch.float64)


@pytest.fixture
def quick_spectral_radius() -> None:
    """Not here: the iteration itself is tested."""


def operator(eigenvalues: Tensor) -> Tensor:
    basis = torch.linalg.qr(
        torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )[0]
    return basis @ torch.diag(eigenvalues.double()) @ basis.T


def test_the_largest_eigenvalue_is_found() -> None:
    matrix = operator(torch.tensor([0.9, -0.5, 0.3, 0.2, 0.1, 0.1, 0.0, 0.0]))
    found = spectral_radius(lambda v: v @ matrix.T, LIKE)
    assert found.radius == pytest.approx(0.9, rel=1e-4)
    assert found.settled


def test_no_more_products_are_taken_once_the_estimate_has_settled() -> None:
    matrix = operator(torch.tensor([0.9, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]))
    taken: list[Tensor] = []

    def product(v: Tensor) -> Tensor:
        taken.append(v)
        return v @ matrix.T

    found = spectral_radius(product, LIKE)
    assert len(taken) == 3  # as many as there are different eigenvalues
    assert found.radius == pytest.approx(0.9, rel=1e-6)
    assert found.settled


def test_a_complex_pair_is_found() -> None:
    turn = torch.eye(8, dtype=torch.float64) * 0.2
    turn[:2, :2] = 1.1 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    found = spectral_radius(lambda v: v @ turn.T, LIKE)
    assert found.radius == pytest.approx(1.1, rel=1e-6)
    assert found.settled


def test_a_map_to_zero_has_radius_zero() -> None:
    found = spectral_radius(torch.zeros_like, LIKE)
    assert (found.radius, found.settled) == (0.0, True)
    whole = widened_radius(torch.zeros_like, found, torch.ones_like(LIKE), torch.zeros_like(LIKE))
    assert (whole.radius, whole.settled) == (0.0, True)


def test_a_map_to_nowhere_has_not_settled() -> None:
    turned = torch.randn(24, 24, generator=torch.Generator().manual_seed(0))
    for factor in (torch.inf, 1e20):  # the second is finite, and its size in fp32 is not

        def product(v: Tensor, factor: float = factor) -> Tensor:
            return (v.flatten() @ turned * factor).view_as(v)

        found = spectral_radius(product, LIKE.float())
        assert not math.isfinite(found.radius)
        assert not found.settled
        along = torch.ones_like(LIKE.float())
        whole = widened_radius(product, found, along, product(along))
        assert not math.isfinite(whole.radius)
        assert not whole.settled
        after = spectral_radius(lambda v: 0.5 * v, LIKE.float(), known=found)
        assert after.radius == pytest.approx(0.5)


def test_a_crowd_below_the_largest_does_not_pass_for_it() -> None:
    """One eigenvalue of 1.0 over 400 that reach 0.97: growth stands still far below, and nobody would know."""
    values = torch.cat([torch.ones(1), torch.linspace(-0.97, 0.97, 399)]).double()
    like = torch.zeros(1, 1, 400, dtype=torch.float64)
    vector, growth = torch.full((400,), 0.05, dtype=torch.float64), 0.0
    for _ in range(PRODUCTS):
        vector = values * vector
        growth, vector = float(vector.norm()), vector / vector.norm()
    assert growth < 0.96
    assert spectral_radius(lambda v: values * v, like).radius == pytest.approx(1.0, abs=0.02)
    few = spectral_radius(lambda v: values * v, like, products=3)
    assert few.radius < 0.96
    assert not few.settled


def test_a_start_from_another_map_s_eigenvector_finds_one_that_lies_elsewhere() -> None:
    """The map before had its largest along the eigenvector of 0.8 here; power iteration stood still there."""
    values = torch.tensor([0.9, 0.8, -0.5, 0.3, 0.2, 0.1, 0.05, 0.0])
    before = values.clone()
    before[0] = 0.1
    known = spectral_radius(lambda v: v @ operator(before).T, LIKE)
    assert known.radius == pytest.approx(0.8, rel=1e-3)
    found = spectral_radius(lambda v: v @ operator(values).T, LIKE, known=known)
    assert found.radius == pytest.approx(0.9, rel=1e-3)
    assert found.settled


def test_a_start_from_a_like_map_needs_fewer_products() -> None:
    values = torch.cat([torch.ones(1), torch.linspace(-0.97, 0.97, 399)]).double()
    like = torch.zeros(1, 1, 400, dtype=torch.float64)
    known = spectral_radius(lambda v: values * v, like)
    turned = torch.linalg.qr(torch.eye(400) + 0.002 * operator_noise(400))[0].double()
    changed = turned @ torch.diag(0.9 * values) @ turned.T
    found = spectral_radius(lambda v: v @ changed.T, like, known=known)
    assert len(found.basis) <= PRODUCTS_AFTER
    assert found.radius == pytest.approx(0.9, rel=0.01)
    alone = spectral_radius(lambda v: v @ changed.T, like, products=len(found.basis))
    assert alone.residual > found.residual


@pytest.mark.parametrize("largest", ["across", "along"])
def test_the_whole_map_s_eigenvalue_is_found_among_a_part_s_products(largest: str) -> None:
    """A dense 60 × 60 map, tokens of 6 channels, whose largest lies across the state, or along it."""
    unit = torch.nn.functional.normalize(operator_noise(60).double()[0].view(1, 10, 6), dim=-1)
    matrix = 0.04 * operator_noise(60).double()
    if largest == "along":
        matrix += 1.5 * torch.outer(unit.flatten(), unit.flatten()) / 10
    else:
        matrix[3, 3] += 1.5
    taken: list[Tensor] = []

    def product(v: Tensor) -> Tensor:
        taken.append(v)
        return (v.flatten() @ matrix.T).view_as(v)

    def across(v: Tensor) -> Tensor:
        return v - (v * unit).sum(dim=-1, keepdim=True) * unit

    along = product(unit)
    part = spectral_radius(product, unit, across)
    before = len(taken)
    whole = widened_radius(product, part, unit, along)
    assert len(taken) - before <= FURTHER_PRODUCTS
    assert whole.radius == pytest.approx(float(torch.linalg.eigvals(matrix).abs().max()), rel=0.01)
    projection = torch.block_diag(*(torch.eye(6).double() - torch.outer(u, u) for u in unit[0]))
    dense = torch.linalg.eigvals(projection @ matrix @ projection).abs().max()
    assert part.radius == pytest.approx(float(dense), rel=0.05)


def operator_noise(size: int) -> Tensor:
    return torch.randn(size, size, generator=torch.Generator().manual_seed(5))


def test_the_difference_stands_in_where_there_is_no_derivative() -> None:
    class NoForwardMode(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.tanh()

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    at = torch.randn(1, 3, 8, dtype=torch.float64)
    v = torch.randn_like(at)
    expected = (1 - at.tanh().square()) * v
    torch.testing.assert_close(jacobian_product(NoForwardMode.apply, at)(v), expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(jacobian_product(torch.tanh, at)(v), expected)


def test_radial_and_angular_parts_of_a_linear_core() -> None:
    """The state stays along the eigenvector of 0.5; the rest of the spectrum is the angular part."""
    values = torch.tensor([0.5, 0.8, 0.7, 0.6, 0.2, 0.1, 0.1, 0.1])
    matrix = operator(values)
    along = torch.linalg.eigh(matrix)
    vector = along.eigenvectors[:, (along.eigenvalues - 0.5).abs().argmin()]

    class Linear(LoopedTransformer):
        def embed(self, input_ids: Tensor) -> Tensor:
            return vector.expand(*input_ids.shape, 8)

        def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            return hidden @ matrix.T

    config = ModelConfig(dim=8, heads=2, loops=2, vocabulary=16, sequence=8)
    for loop in measure_dynamics(Linear(config).double(), IDS):
        assert loop.radial == pytest.approx(0.5)
        assert loop.angular == pytest.approx(0.8, rel=1e-3)  # within the residual at which it stands still
        assert loop.spectral_radius == pytest.approx(0.8, rel=1e-3)


@pytest.mark.smoke
def test_a_real_core_agrees_with_its_whole_jacobian() -> None:
    torch.manual_seed(0)
    config = ModelConfig(dim=8, heads=2, loops=2, vocabulary=16, sequence=8, initialisation="published")
    model = LoopedTransformer(config).double().eval()
    found = measure_dynamics(model, IDS)[0]
    with torch.no_grad():
        state = next(iter(unroll(model, IDS)))
    whole = torch.autograd.functional.jacobian(lambda h: model.core(h, 2, state.context), state.hidden)
    assert isinstance(whole, Tensor)
    eigenvalues = torch.linalg.eigvals(whole.reshape(48, 48))
    assert found.spectral_radius == pytest.approx(float(eigenvalues.abs().max()), rel=0.05)


def test_products_from_a_record_are_those_of_forward_mode() -> None:
    torch.manual_seed(0)
    config = ModelConfig(dim=32, heads=4, loops=2, vocabulary=16, sequence=8, initialisation="published")
    model = LoopedTransformer(config).eval()
    with torch.no_grad():
        state = next(iter(unroll(model, IDS)))
    v = torch.randn_like(state.hidden)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        expected = torch.func.jvp(lambda h: model.core(h, 2, state.context), (state.hidden,), (v,))[1]
    found = recorded_product(lambda h: model.core(h, 2, state.context), state.hidden)(v)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_record_of_the_linear_part_alone_is_enough_for_plain_modules() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True).eval().double()
    at, v = torch.randn(2, 1, 5, 16, dtype=torch.float64).unbind()
    whole = torch.autograd.functional.jacobian(lambda h: layer(h), at).reshape(80, 80)
    product = linear_product(layer, at)
    for vector in (v, 2 * v):
        torch.testing.assert_close(product(vector).flatten(), whole @ vector.flatten())
    assert layer.linear1.weight.grad is None


def test_operations_that_cannot_be_transformed_are_recorded_whole() -> None:
    torch.manual_seed(0)
    model = LoopedTransformer(ModelConfig(dim=8, heads=2, loops=2, vocabulary=16, sequence=8)).eval()
    with torch.no_grad():
        state = next(iter(unroll(model, IDS)))

    def core(hidden: Tensor) -> Tensor:
        return model.core(hidden, 2, state.context)

    with pytest.raises(RuntimeError, match="setup_context"):
        linear_product(core, state.hidden)
    v = torch.randn_like(state.hidden)
    torch.testing.assert_close(
        jacobian_product(core, state.hidden, sparing=True)(v),
        recorded_product(core, state.hidden)(v),
        rtol=0,
        atol=0,
    )


def test_memory_is_spared_in_large_models_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LoopedTransformer(ModelConfig(dim=8, heads=2, loops=2, vocabulary=16, sequence=8)).eval()
    asked: list[bool] = []
    own = dynamics.jacobian_product

    def noted(function: Any, at: Tensor, sparing: bool = False) -> Any:
        asked.append(sparing)
        return own(function, at, sparing)

    monkeypatch.setattr(dynamics, "jacobian_product", noted)
    usual = measure_dynamics(model, IDS)
    monkeypatch.setattr(dynamics, "SPARED_FROM", 0)
    assert measure_dynamics(model, IDS) == usual
    assert asked == [False, False, True, True]
