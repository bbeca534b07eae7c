"""Two calls of a step over one token, as sums that a compiler can look into; it would call a library for both.

A product of one row reads a matrix once: as a sum it is one loop with the norm before it, and without a call. Attention
of one query by two sums takes a third of what the library's call takes for a few hundred keys. Of one row at dim 128 a
compiled step was 1.9 to 3.2 times the layers' calls with the library's, and 5.1 with the sums
(docs/results/2026-11-30-generation.md). On other devices, and for products of several rows, the library is kept.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, fx

from loopscope.numerics import wide


def row_product(
    x: Float[Tensor, "*batch inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "*batch outputs"]:
    """Return what `F.linear` does; of a single row by a sum, in fp32 at least."""
    if x.device.type != "cpu" or x.numel() != x.shape[-1]:
        return F.linear(x, weight, bias)
    summed = (wide(x.reshape(1, -1)) * wide(weight)).sum(dim=-1)
    if bias is not None:
        summed = summed + bias
    return summed.to(x.dtype).view(*x.shape[:-1], -1)


def query_attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
    """Return what `F.scaled_dot_product_attention` does; of one query a row, with a mask of what it sees, by two sums.

    Args:
        query: [rows heads 1 head_dim].
        key, value: [rows kv_heads seen head_dim]; each of their heads serves a group of the query's.
        rest, options: as that function takes them.
    """
    mask = options.get("attn_mask")
    usual = query.device.type == "cpu" and query.shape[2] == 1 and not rest and options.get("scale") is None
    if not usual or mask is None or mask.dtype != torch.bool or options.get("dropout_p", 0.0):
        return F.scaled_dot_product_attention(query, key, value, *rest, **options)
    rows, heads, _, head_dim = query.shape
    groups = wide(query).reshape(rows, key.shape[1], -1, 1, head_dim) * head_dim**-0.5
    scores = (groups * wide(key).unsqueeze(2)).sum(dim=-1)  # rows kv_heads group seen
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    mixed: Tensor = (weights.unsqueeze(-1) * wide(value).unsqueeze(2)).sum(dim=-2)
    return mixed.reshape(rows, heads, 1, head_dim).to(query.dtype)


_FORMULAS: dict[Any, Any] = {F.linear: row_product, F.scaled_dot_product_attention: query_attention}


def compile_with_formulas(graph: fx.GraphModule, inputs: list[Any]) -> Any:
    """Compile a graph by inductor, with these formulas in the place of the calls: a backend of `torch.compile`."""
    for node in graph.graph.nodes:
        if node.op == "call_function":
            node.target = _FORMULAS.get(node.target, node.target)
    graph.recompile()
    return torch._inductor.compile(graph, inputs)
