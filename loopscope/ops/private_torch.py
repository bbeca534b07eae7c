"""The only names used here that PyTorch does not promise to keep. A smoke test holds them to what is expected of them.

None has a public counterpart: `torch.autograd.graph` uses the first two for its own `register_multi_grad_hook`, and
`torch.multiprocessing` knows a storage by its `_cdata`.
"""

import torch
from torch import Tensor


def backward_pass_id() -> int:
    """Return a number of the backward pass that is running in this thread; -1 outside of one."""
    return torch._C._current_graph_task_id()


def backward_pass_reaches(tensor: Tensor) -> bool:
    """Return whether the running backward pass will compute what the tensor was made from; only within one."""
    node = tensor.grad_fn
    return node is not None and torch._C._will_engine_execute_node(node)


def storage_identity(tensor: Tensor) -> int:
    """Return a number of a tensor's storage, its own as long as that lives, wherever its memory lies meanwhile."""
    return tensor.untyped_storage()._cdata


def softmax_backward(grad_out: Tensor, softmax: Tensor) -> Tensor:
    """Return the gradient by softmax's input, over the last axis: softmax · (grad_out − Σ grad_out · softmax)."""
    return torch._softmax_backward_data(grad_out, softmax, -1, softmax.dtype)
