"""Where operations written for a CPU replace PyTorch's."""

import torch
from torch import Tensor


def own_operations(x: Tensor) -> bool:
    """On a CPU, but not in a compiled layer, nor within `sdpa_kernel(SDPBackend.MATH)`: second derivatives are wanted
    there, or products counted."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return torch.backends.cuda.flash_sdp_enabled()
