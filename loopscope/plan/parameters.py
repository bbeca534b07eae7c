"""What a model costs, from its config alone: parameters, FLOPs (`plan.flops` says how counted), bytes.

A test holds every family's numbers against the modules, the tensors that are kept, and torch's FLOP counter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import carries_of, injection_of, readout_of, start_of
from loopscope.plan.flops import (
    attention_matrices,
    decode_flops,
    feed_forward_matrices,
    forward_flops,
    training_flops,
)

__all__ = ["Cost", "cost", "count_parameters", "decode_flops", "forward_flops", "training_flops"]

_TIME_WAVES = 256  # of the modulation's two maps
_GATE_CHANNELS = 32  # of a layer's input, read by a gate of value embeddings


@dataclass(frozen=True)
class Cost:
    """What one config costs at a sequence length and a number of loops."""

    parameters: int
    by_part: Mapping[
        str, int
    ]  # parameters of embedding, prelude, shared, coda, loop, head: their sum is the above
    inference_flops: int  # per token: every loop, the last exit
    training_flops: int  # per token: forward and backward of every loop and the supervised exits
    decode_flops: int  # per new token, beside a cache of the whole sequence: every loop, the last exit
    activation_bytes_per_loop: int  # per token: what the backward pass of one loop keeps
    cache_bytes_per_loop: int  # per token: keys and values of the shared layers, of one loop
    cache_bytes_fixed: (
        int  # per token: keys and values of prelude and coda, once (coda: per exit that is read)
    )


def cost(
    config: ModelConfig,
    sequence: int | None = None,
    loops: int | None = None,
    exits: int | None = None,
    number_bytes: int = 4,
) -> Cost:
    """Compute what a config costs: parameters, FLOPs per token, memory.

    Args:
        sequence: tokens attended over; None: the training window.
        loops: depth; None: the trained one.
        exits: loops whose cross-entropy is trained (dense: all, the default; terminal: 1).
        number_bytes: of an activation and a cache entry (4: fp32, 2: bf16).
    """
    seq = sequence or config.sequence
    depth = loops or config.loops
    read = depth if exits is None else exits
    parts = count_parameters(config)
    layer_cache = 2 * config.key_value_heads * config.head_dim * number_bytes
    return Cost(
        parameters=sum(parts.values()),
        by_part=parts,
        inference_flops=forward_flops(config, seq, depth, exits=1),
        training_flops=training_flops(config, seq, depth, read),
        decode_flops=decode_flops(config, seq, depth),
        activation_bytes_per_loop=config.layers * _layer_activations(config, 2) * number_bytes,
        cache_bytes_per_loop=config.layers * layer_cache,
        cache_bytes_fixed=(config.prelude + config.coda) * layer_cache,
    )


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Return the number of trainable numbers by part; a tied head counts once."""
    dim, injection = config.dim, injection_of(config)
    norm = _norm(config)
    loop = {"none": 0, "sinusoidal": 0, "learned": config.loops * dim}.get(config.loop_embedding, 0)
    if config.loop_embedding == "modulation":
        loop += 2 * (_TIME_WAVES * dim + dim + dim * dim + dim)
    loop += 0 if injection is None else injection.parameters
    loop += dim * config.injection.norm
    loop += start_of(config).parameters + sum(step.parameters for step in carries_of(config))
    values = config.vocabulary * config.key_value_heads * config.head_dim * sum(config.value_layers)
    gates = _value_gates(config)
    return {
        "embedding": config.vocabulary * dim
        + (config.sequence * dim if config.positions == "learned" else 0)
        + values,
        "prelude": config.prelude * _layer(config, norm, shared=False) + gates["prelude"],
        "shared": config.layers * _layer(config, norm, shared=True) + gates["shared"],
        "coda": config.coda * _layer(config, norm, shared=False)
        + dim * dim * config.coda_matrix
        + gates["coda"],
        "loop": loop,
        "head": readout_of(config).parameters
        + (0 if config.tied else config.vocabulary * dim)
        + (dim + 1) * config.exit_gate,
    }


def _norm(config: ModelConfig) -> int:
    return config.dim * (2 if config.block.norm == "layernorm" else 1)


def _layer(config: ModelConfig, norm: int, shared: bool) -> int:
    matrices = attention_matrices(config) + feed_forward_matrices(config)
    count = sum(inputs * outputs for inputs, outputs in matrices)
    if shared:
        rank = config.adapters.rank
        count += config.loops * rank * sum(inputs + outputs for inputs, outputs in matrices)
    modulated = shared and config.loop_embedding == "modulation"
    count += 4 * config.dim * (config.dim + 1) if modulated else 2 * norm
    if config.block.placement in ("sandwich", "sandwich-sum"):
        count += 2 * norm
    if config.attention.qk_bias:
        count += (config.heads + config.key_value_heads) * config.head_dim
    if config.attention.bias:
        count += (config.heads + 2 * config.key_value_heads) * config.head_dim + config.dim
    if config.block.bias:
        count += sum(outputs for _, outputs in feed_forward_matrices(config))
    return count + 2 * config.head_dim * config.attention.qk_norm


def _value_gates(config: ModelConfig) -> dict[str, int]:
    """Numbers of the gates of value embeddings, by part; their FLOPs (one product per token) are left out."""
    gate = min(_GATE_CHANNELS, config.dim) * config.key_value_heads
    gate *= config.attention.value_embeddings == "gated"
    first, last = config.prelude, config.prelude + config.layers
    on = config.value_layers
    return {
        "prelude": gate * sum(on[:first]),
        "shared": gate * sum(on[first:last]),
        "coda": gate * sum(on[last:]),
    }


def _layer_activations(config: ModelConfig, loop: int) -> int:
    """Numbers per token that the backward pass of one shared layer keeps: inputs of products, norms and gates.

    An estimate of what must be kept: what autograd keeps on top (rotations, softmax statistics, on a GPU swiglu's
    product) depends on kernels.
    """
    dim, width = config.dim, config.width
    rows = (config.heads + 2 * config.key_value_heads) * config.head_dim
    attention = (
        2 * dim + rows + config.heads * config.head_dim
    )  # the norm's input and output, queries to values, what `out` reads
    inner = {"swiglu": 2, "gelu": 2, "gelu-tanh": 2, "gelu-new": 5, "relu2": 3}[config.block.activation]
    feed_forward = 2 * dim + inner * width
    after = 2 * dim if config.block.placement == "sandwich" else 0
    once = config.looped == "attention" and loop > 1
    return attention + (0 if once else feed_forward) + after
