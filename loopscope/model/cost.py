"""What a model costs, from its config alone: parameters, FLOPs, bytes.

FLOPs are those of matrix products, two per multiply-add, as `torch.utils.flop_counter` counts them. Attention
counts the whole square of scores: kernels that skip the masked half do less, a window narrower than the text does
not. Norms, activations and softmaxes are left out (below 1 % from width 64 up). A test holds every family's numbers
against the counter and against the modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from loopscope.model.config import ModelConfig

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
    """Compute the cost.

    Args:
        sequence: tokens attended over; None: the training window.
        loops: depth; None: the trained one.
        exits: loops whose cross-entropy is trained (dense: all, the default; terminal: 1).
        number_bytes: of an activation and a cache entry (4: fp32, 2: bf16).
    """
    seq = sequence or config.sequence
    depth = loops or config.loops
    read = depth if exits is None else exits
    parts = parameters(config)
    layer_cache = 2 * config.key_value_heads * config.head * number_bytes
    return Cost(
        parameters=sum(parts.values()),
        by_part=parts,
        inference_flops=forward_flops(config, seq, depth, exits=1),
        training_flops=training_flops(config, seq, depth, read),
        activation_bytes_per_loop=config.layers * _layer_activations(config, 2) * number_bytes,
        cache_bytes_per_loop=config.layers * layer_cache,
        cache_bytes_fixed=(config.prelude + config.coda) * layer_cache,
    )


def parameters(config: ModelConfig) -> dict[str, int]:
    """Trainable numbers by part; a tied head counts once."""
    dim, readout = config.dim, config.readout
    norm = _norm(config)
    loop = {"none": 0, "sinusoidal": 0, "learned": config.loops * dim}.get(config.loop_embedding, 0)
    if config.loop_embedding == "modulation":
        loop += 2 * (_TIME_WAVES * dim + dim + dim * dim + dim)
    loop += {"gated": 2 * dim * dim + dim, "concat": 2 * dim * dim, "write": dim * dim}.get(
        config.injection.kind, 0
    )
    loop += dim * config.injection.norm
    carries = {"rmsnorm": dim, "layernorm": 2 * dim, "readout-norm": 0, "damping": 1, "decay": 2 * dim}
    loop += sum(carries[kind] for kind in config.carry)
    per_loop = config.loops if readout.per_loop else 1
    reading = {"rmsnorm": dim, "layernorm": 2 * dim, "final-only": dim}.get(readout.kind, 0)
    if readout.kind == "alpha":
        reading = per_loop * (readout.learned + (readout.s_ref == "learned"))
    values = config.vocabulary * config.key_value_heads * config.head * sum(config.value_layers)
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
        "head": reading + (0 if config.tied else config.vocabulary * dim) + (dim + 1) * config.exit_gate,
    }


def forward_flops(config: ModelConfig, seq: int, loops: int, exits: int) -> int:
    """FLOPs per token of the forward pass: every loop, and `exits` exits with coda and head."""
    return _body(config, seq, loops, exits) + exits * _head(config)


def training_flops(config: ModelConfig, seq: int, loops: int, exits: int, backprop: int | None = None) -> int:
    """FLOPs per token of forward and backward, twice the forward; the chunked head once more, to recompute logits.

    Args:
        backprop: loops that the gradient goes through, the last ones; earlier loops cost their forward pass only.
    """
    whole = 3 * _body(config, seq, loops, exits) + 4 * exits * _head(config)
    cut = loops if backprop is None else min(backprop, loops)
    before = _body(config, seq, loops - cut, exits=0) if cut < loops else 0
    if (
        config.injection.kind != "none"
    ):  # the input still gets its gradient, through the later loops' injections
        before = max(0, before - config.prelude * _layer_flops(config, seq, shared=False))
    return whole - 2 * before


def shortcut_flops(config: ModelConfig, seq: int, loops: int, heads: int = 1) -> int:
    """What shortcut consistency adds to a training step, per token: a second exit, at half the depth on average.

    A model whose states know their depth (`loop_embedding` modulation) runs a second unroll for it.

    Args:
        heads: 1 where the shorter way has a cross-entropy of its own, else 0.
    """
    short = max(1, loops // 2)
    coda = _coda(config, seq)  # of the exit that is read, and once more, without gradient, of the target
    again = _body(config, seq, short, exits=1) if config.loop_embedding == "modulation" else coda
    return 3 * again + coda + 4 * heads * _head(config)


def _body(config: ModelConfig, seq: int, loops: int, exits: int) -> int:
    """All but the head. The gate is read at every loop, and one that reads the readout runs the coda for it."""
    dim, layer = config.dim, _layer_flops(config, seq, shared=False)
    mixed = {"gated": 4 * dim * dim, "concat": 4 * dim * dim, "write": 2 * dim * dim}.get(
        config.injection.kind, 0
    )
    attention = _attention_flops(config, seq, shared=True)
    shared = config.layers * (attention + _feed_forward_flops(config, shared=True))
    later = config.layers * attention if config.looped == "attention" else shared
    coda = _coda(config, seq)
    gate = 2 * dim * config.exit_gate
    if config.exit_gate and config.gate_reads == "readout":
        gate += coda
    return config.prelude * layer + shared + (loops - 1) * later + loops * (mixed + gate) + exits * coda


def _coda(config: ModelConfig, seq: int) -> int:
    return config.coda * _layer_flops(config, seq, shared=False) + 2 * config.dim**2 * config.coda_matrix


def _head(config: ModelConfig) -> int:
    return 2 * config.dim * config.vocabulary


def _norm(config: ModelConfig) -> int:
    return config.dim * (2 if config.block.norm == "layernorm" else 1)


def _matrices(config: ModelConfig) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(inputs, outputs) of a layer's matrices: attention's, the feed-forward's."""
    dim, width = config.dim, config.width
    rows = (config.heads + 2 * config.key_value_heads) * config.head
    wide = 2 if config.block.activation == "swiglu" else 1
    return [(dim, rows), (dim, dim)], [*[(dim, width)] * wide, (width, dim)]


def _layer(config: ModelConfig, norm: int, shared: bool) -> int:
    attention, feed_forward = _matrices(config)
    count = sum(inputs * outputs for inputs, outputs in attention + feed_forward)
    if shared:
        rank = config.adapters.rank
        count += config.loops * rank * sum(inputs + outputs for inputs, outputs in attention + feed_forward)
    modulated = shared and config.loop_embedding == "modulation"
    count += 4 * config.dim * (config.dim + 1) if modulated else 2 * norm
    if config.block.placement in ("sandwich", "sandwich-sum"):
        count += 2 * norm
    if config.attention.qk_bias:
        count += (config.heads + config.key_value_heads) * config.head
    return count + 2 * config.head * config.attention.qk_norm


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


def _products(config: ModelConfig, matrices: list[tuple[int, int]], shared: bool) -> int:
    rank = config.adapters.rank if shared else 0
    return sum(2 * inputs * outputs + 2 * rank * (inputs + outputs) for inputs, outputs in matrices)


def _attention_flops(config: ModelConfig, seq: int, shared: bool) -> int:
    return _products(config, _matrices(config)[0], shared) + 4 * seq * config.dim


def _feed_forward_flops(config: ModelConfig, shared: bool) -> int:
    return _products(config, _matrices(config)[1], shared)


def _layer_flops(config: ModelConfig, seq: int, shared: bool) -> int:
    return _attention_flops(config, seq, shared) + _feed_forward_flops(config, shared)


def _layer_activations(config: ModelConfig, loop: int) -> int:
    """Numbers per token that the backward pass of one shared layer keeps: inputs of products, norms and gates.

    An estimate of what must be kept: what autograd keeps on top (rotations, softmax statistics) depends on kernels.
    """
    dim, width = config.dim, config.width
    rows = (config.heads + 2 * config.key_value_heads) * config.head
    attention = 2 * dim + rows + dim  # the norm's input and output, queries to values, what `out` reads
    inner = {"swiglu": 4, "gelu": 2, "relu2": 3}[config.block.activation]
    feed_forward = 2 * dim + inner * width
    after = 2 * dim if config.block.placement == "sandwich" else 0
    once = config.looped == "attention" and loop > 1
    return attention + (0 if once else feed_forward) + after
