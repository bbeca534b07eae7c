"""A norm and a rotation in few calls, against PyTorch's norm and the model's own rotation."""

import pytest
import torch
import torch.nn.functional as F

from loopscope.model.rotary import rotate
from loopscope.ops.one_token import TokenNorm, full_turns, rotate_token


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("affine", [True, False])
def test_norm_is_pytorchs(dtype: torch.dtype, size: float, affine: bool) -> None:
    torch.manual_seed(0)
    x = (size * torch.randn(3, 24)).to(dtype)
    weight = torch.randn(24).to(dtype) if affine else None
    found = TokenNorm(weight, 1e-6, x)(x)
    expected = F.rms_norm(x.double(), (24,), None if weight is None else weight.double(), 1e-6)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rotation_is_the_models_bit_for_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8, 1, 6).to(dtype).narrow(1, 2, 5)  # as a part of a larger tensor
    angle = torch.randn(3, 1, 1, 3)
    cos, sin = angle.cos(), angle.sin()
    assert torch.equal(rotate_token(x, *full_turns(cos, sin)), rotate(x, cos, sin))
