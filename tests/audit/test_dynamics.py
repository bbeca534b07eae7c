"""Dynamics against linear maps whose spectrum is known."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from loopscope.audit.dynamics import jacobian_product, measure_dynamics, power_iteration, recorded_product
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import unroll

IDS = torch.arange(6)[None]
LIKE = torch.zeros(1, 3, 8, dtype=torch.float64)


@pytest.fixture
def quick_power_iteration() -> None:
    """Not here: the iteration itself is tested."""


def operator(eigenvalues: Tensor) -> Tensor:
    basis = torch.linalg.qr(
        torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )[0]
    return basis @ torch.diag(eigenvalues.double()) @ basis.T


def test_power_iteration_finds_the_largest_eigenvalue() -> None:
    matrix = operator(torch.tensor([0.9, -0.5, 0.3, 0.2, 0.1, 0.1, 0.0, 0.0]))
    radius, settled = power_iteration(lambda v: v @ matrix.T, LIKE, iterations=40)
    assert radius == pytest.approx(0.9, rel=1e-3)
    assert settled


def test_no_more_products_are_taken_once_the_growth_stands_still() -> None:
    matrix = operator(torch.tensor([0.9, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]))
    taken: list[Tensor] = []

    def product(v: Tensor) -> Tensor:
        taken.append(v)
        return v @ matrix.T

    radius, settled = power_iteration(product, LIKE, iterations=40)
    assert len(taken) < 20
    assert radius == pytest.approx(0.9, rel=1e-3)
    assert settled


def test_a_complex_pair_is_met_by_the_mean_growth() -> None:
    turn = torch.eye(8, dtype=torch.float64) * 0.2
    turn[:2, :2] = 1.1 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    radius, _ = power_iteration(lambda v: v @ turn.T, LIKE, iterations=32)
    assert radius == pytest.approx(1.1, rel=1e-2)


def test_a_map_to_zero_has_radius_zero() -> None:
    assert power_iteration(torch.zeros_like, LIKE) == (0.0, True)


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
        assert loop.angular == pytest.approx(0.8, rel=0.02)
        assert loop.spectral_radius == pytest.approx(0.8, rel=0.02)


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
    assert found.spectral_radius == pytest.approx(float(eigenvalues.abs().max()), rel=0.1)


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
