"""The largest eigenvalue of a linear map that is known by its products alone, by Arnoldi's iteration.

n products from a random start span a Krylov space; the map within it is a small matrix, whose largest eigenvalue is the
estimate. Power iteration uses the last of these vectors alone, and its growth can stand still far from the truth: on
trained laptop models its radius was up to 12 % short after 16 products, where this one is at most 1.3 % short. How far
an estimate is from an eigenvalue of a map nearby is known, too: the residual ||J x - λ x|| / |λ| of a unit vector x.

Golub and Van Loan, Matrix Computations, 4th edition, 10.5.1.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

PRODUCTS = 16
"""Products at most. Trained laptop models take 10 to 12 with a normed readout; with a raw one 16 leave 5 %."""
STANDS_STILL = 0.01
"""Relative residual below which no more products are taken."""
SETTLED = 0.05
"""Relative residual below which an estimate counts as converged."""

Product = Callable[[Tensor], Tensor]


@torch.no_grad()
def spectral_radius(
    product: Product, like: Float[Tensor, "batch seq dim"], products: int = PRODUCTS
) -> tuple[float, bool]:
    """Return the spectral radius of a linear map, and whether the estimate has settled.

    Args:
        product: v to J v, of the shape of `like`.
        products: how many are taken at most.
    """
    basis = _start(like).flatten()[None]  # orthonormal rows [products so far + 1, size]
    within = torch.zeros(products + 1, products, dtype=torch.float64)
    radius, settled = 0.0, False
    for taken in range(products):
        mapped = product(basis[-1].view_as(like)).flatten()
        if not math.isfinite(size := float(mapped.norm())):
            return size, False
        for _ in range(2):  # the second pass takes out what the first left by rounding
            along = basis @ mapped
            mapped = mapped - along @ basis
            within[: taken + 1, taken] += along.cpu().double()
        beyond = within[taken + 1, taken] = float(mapped.norm())
        values, vectors = torch.linalg.eig(within[: taken + 1, : taken + 1])
        largest = int(values.abs().argmax())
        radius = float(values[largest].abs())
        residual = float(beyond * vectors[taken, largest].abs() / vectors[:, largest].norm())
        settled = residual <= SETTLED * radius
        if residual <= STANDS_STILL * radius:
            break
        basis = torch.cat([basis, mapped[None] / beyond])
    return radius, settled


def _start(like: Tensor) -> Tensor:
    """A random vector that is the same in every audit and leaves torch's generator alone."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
    length: Tensor = vector.norm()
    return vector / length
