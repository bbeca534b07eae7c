"""The largest eigenvalue of a map J, out of what is known of it on a part of the space.

The angular radius, of P J P, costs products J w with vectors across the state. They are J's own products as well: with
one along the state beside them they span a space in which J is known, and J's largest eigenvalue there is an estimate.
What it lacks is its residual J x - λ x. That is added, with its product, until J is known as well as P J P was: after
none to four products, where an iteration of its own takes sixteen.

Davidson's method without a preconditioner: Saad, Numerical Methods for Large Eigenvalue Problems, 2nd edition, 8.4.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.audit.arnoldi import (
    STANDS_STILL,
    Product,
    Spectrum,
    largest_eigenvector,
    orthogonal_part,
    relative,
    unit_vector,
)

FURTHER_PRODUCTS = 4
"""At most. The spaces that are widened hold most of an eigenvector already."""
NOTHING_NEW = 1e-5
"""What of a vector, relative, is left by rounding where it lies in the space."""


@torch.no_grad()
def widened_radius(
    product: Product,
    part: Spectrum,
    vector: Float[Tensor, "batch seq dim"],
    image: Float[Tensor, "batch seq dim"],
    products: int = FURTHER_PRODUCTS,
) -> Spectrum:
    """Return the largest eigenvalue of J, as well known as another one is on a part of the space.

    Args:
        product: v to J v.
        part: what is known of P J P; its images are those of J.
        vector: of what the part leaves out, one that J's product is known with.
        image: that product.
        products: how many more are taken at most.
    """
    if not math.isfinite(size := float(image.norm())):
        return Spectrum(size, math.inf, vector, part.basis, part.images)
    wanted = max(part.residual, STANDS_STILL) if math.isfinite(part.residual) else STANDS_STILL
    basis, images = _added(part.basis, part.images, vector.flatten(), image.flatten())
    for further in range(products + 1):
        radius, inside = largest_eigenvector((basis @ images.T).cpu().double())
        missing, along = _missing(basis, images, inside)
        residual = relative(math.hypot(*(float(each.norm()) for each in missing)), radius)
        if residual <= wanted or further == products:
            break
        direction = unit_vector(max(missing, key=lambda each: float(each.norm())))
        direction = orthogonal_part(direction, basis)[0]
        if float(direction.norm()) <= NOTHING_NEW:
            break
        direction = unit_vector(direction)
        mapped = product(direction.view_as(vector)).flatten()
        if not math.isfinite(size := float(mapped.norm())):
            radius, residual = size, math.inf
            break
        basis, images = torch.cat([basis, direction[None]]), torch.cat([images, mapped[None]])
    return Spectrum(radius, residual, unit_vector(along).view_as(vector), basis, images)


def _added(basis: Tensor, images: Tensor, vector: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """The space with one more vector, whose product is known; as it is where that one lies in it."""
    beyond, along = orthogonal_part(vector, basis)
    if float(size := beyond.norm()) <= NOTHING_NEW * float(vector.norm()) and len(basis):
        return basis, images
    size = size.clamp(min=torch.finfo(size.dtype).tiny)
    return (
        torch.cat([basis, (beyond / size)[None]]),
        torch.cat([images, ((image - along @ images) / size)[None]]),
    )


def _missing(basis: Tensor, images: Tensor, inside: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """J x - λ x, its real and imaginary parts, of the x with these coordinates; and the real part of x.

    λ is taken as x's own quotient, for what is orthogonal to the space is what is missing.
    """
    real, imaginary = inside.real.to(basis), inside.imag.to(basis)
    found = tuple(orthogonal_part(each @ images, basis)[0] for each in (real, imaginary))
    return (found[0], found[1]), real @ basis
