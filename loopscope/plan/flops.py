"""FLOPs from a config alone: forward, cached decoding, training with all that a step does besides.

FLOPs are those of matrix products, two per multiply-add, as `torch.utils.flop_counter` counts them. Attention
counts the whole square of scores: kernels that skip the masked half do less, a window narrower than the text does
not. Norms, activations and softmaxes are left out (below 1 % from width 64 up). A test holds every family's numbers
against the counter. All are per token of the input.
"""

from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import carries_of, injection_of, readout_of, start_of

Matrices = list[tuple[int, int]]
Mean = int | float
"""A number of loops, exits or FLOPs, or its mean over steps."""


def forward_flops(config: ModelConfig, seq: int, loops: int, exits: int) -> int:
    """Return FLOPs per token of a forward pass: every loop, and `exits` exits with coda and head."""
    return round(_body(config, seq, loops, exits) + exits * _head(config))


def decode_flops(config: ModelConfig, cached: int, loops: int, exits: int = 1) -> int:
    """Return FLOPs of one new token that attends to itself and to `cached` tokens whose keys and values are kept.

    What a pass does once, however many tokens it has (the vectors of `loop_embedding` modulation), is left out.

    Args:
        exits: loops at which its logits are read: 1 at fixed depth, every loop run for a rule that looks at them.
    """
    return forward_flops(config, cached + 1, loops, exits)


def training_flops(
    config: ModelConfig,
    seq: int,
    loops: int,
    exits: int,
    backprop: int | None = None,
    checkpointing: bool = False,
    by_token: bool = False,
) -> int:
    """Return FLOPs per token of forward and backward pass; the latter is twice the forward.

    Args:
        backprop: loops that the gradient goes through, the last ones; earlier loops cost their forward pass only.
        checkpointing: layers run once more in the backward pass (`training.gradient_checkpointing`).
        by_token: whether the loss weighs tokens one by one (exit-weighted): the head's product is then done once
            more in the backward pass.
    """
    cut = 0 if backprop is None else max(0, loops - backprop)
    return round(
        step_flops(config, seq, loops, exits, checkpointing, by_token)
        - spared_flops(config, seq, cut, checkpointing)
    )


def step_flops(
    config: ModelConfig,
    seq: int,
    loops: Mean,
    exits: Mean,
    checkpointing: bool = False,
    by_token: bool = False,
) -> Mean:
    """Return FLOPs per token of a training step with a gradient through everything.

    Linear in loops and exits, so means of both will do.
    """
    flops = 3 * _body(config, seq, loops, exits) + (3 + by_token) * exits * _head(config)
    if checkpointing:
        again = config.coda * _layer_again(config, seq, 1, shared=False)
        gates = loops if config.exit_gate and config.gate_reads == "readout" else 0
        flops += config.prelude * _layer_again(config, seq, 1, shared=False) + (exits + gates) * again
        flops += _loops_again(config, seq, loops)
    return flops


def spared_flops(config: ModelConfig, seq: int, loops: Mean, checkpointing: bool = False) -> Mean:
    """Return FLOPs per token that a step does not do where no gradient goes through the first `loops` loops."""
    if loops <= 0:
        return 0
    # The prelude still gets its gradient, through what later loops inject.
    once = config.prelude * _layer_flops(config, seq, shared=False) + start_of(config).flops
    forward = _body(config, seq, loops, exits=0) - once
    return 2 * forward + (_loops_again(config, seq, loops) if checkpointing else 0)


def shortcut_flops(config: ModelConfig, seq: int, loops: Mean, heads: int = 1) -> Mean:
    """Return FLOPs per token that shortcut consistency adds to a step: a second exit, at half the depth on average.

    A model whose states know their depth (`loop_embedding` modulation) runs a second unroll for it.

    Args:
        heads: 1 where the shorter way has a cross-entropy of its own, else 0.
    """
    coda = _coda(config, seq)  # of the exit that is read, and once more, without gradient, of the target
    again = _body(config, seq, max(1, loops / 2), exits=1) if config.loop_embedding == "modulation" else coda
    return 3 * again + coda + 4 * heads * _head(config)


def jacobian_flops(config: ModelConfig, seq: int, iterations: int = 1) -> Mean:
    """Return FLOPs per token that the penalty on ‖Jᵀv‖ adds to a step: one loop more, differentiated twice.

    A product on the state's way costs 1 forward, 1 in Jᵀv (again per further iteration), and 4 in the backward pass
    through both; attention's scores 1, 2 and 6. What comes last in the loop is linear in its input: it is spared
    the part of the backward pass that a curvature after it would ask for.
    """
    once = config.looped == "attention"
    attention = config.layers * _scores(config, seq)
    injection = injection_of(config)
    beside = 0 if injection is None else int(injection.value("input_flops"))  # reads the input, not the state
    linear = _mixed(config) - beside + _carried(config)
    linear += config.layers * (_products(config, attention_matrices(config), shared=True))
    linear += 0 if once else config.layers * _feed_forward_flops(config, shared=True)
    spared = 0
    if config.block.placement == "pre":
        modulated = config.loop_embedding == "modulation"
        spared = (2 if modulated else 3) * _last_product(config, loop=2, shared=True)
        spared += _scores(config, seq) if once else 0
    return 6 * linear + 3 * beside + 9 * attention - spared + (iterations - 1) * (linear + 2 * attention)


def _body(config: ModelConfig, seq: int, loops: Mean, exits: Mean) -> Mean:
    """All but the head. The gate is read at every loop, and one that reads the readout runs the coda for it."""
    layer = _layer_flops(config, seq, shared=False)
    attention = _attention_flops(config, seq, shared=True)
    shared = config.layers * (attention + _feed_forward_flops(config, shared=True))
    later = config.layers * attention if config.looped == "attention" else shared
    coda = _coda(config, seq)
    gate = 2 * config.dim * config.exit_gate
    if config.exit_gate and config.gate_reads == "readout":
        gate += coda
    every = _mixed(config) + gate
    once = config.prelude * layer + start_of(config).flops + shared
    return once + (loops - 1) * (later + _carried(config)) + loops * every + exits * coda


def _mixed(config: ModelConfig) -> int:
    """The injection, once a loop."""
    injection = injection_of(config)
    return 0 if injection is None else injection.flops


def _carried(config: ModelConfig) -> int:
    """All steps between two loops."""
    return sum(step.flops for step in carries_of(config))


def _loops_again(config: ModelConfig, seq: int, loops: Mean) -> Mean:
    """The shared layers' second forward pass under gradient checkpointing."""
    first, later = (_layer_again(config, seq, loop, shared=True) for loop in (1, 2))
    return config.layers * (first + (loops - 1) * later)


def _layer_again(config: ModelConfig, seq: int, loop: int, shared: bool) -> int:
    """A layer's second forward pass: it ends before a last product that is only added, where nothing later is kept."""
    flops = _attention_flops(config, seq, shared)
    if not (shared and loop > 1 and config.looped == "attention"):
        flops += _feed_forward_flops(config, shared)
    modulated = shared and config.loop_embedding == "modulation"
    kept = config.block.placement != "pre" or modulated or config.dropout > 0
    return flops if kept else flops - _last_product(config, loop, shared)


def _last_product(config: ModelConfig, loop: int, shared: bool) -> int:
    """The product that a layer ends in: the feed-forward's last, or attention's where that is all that is looped."""
    once = shared and loop > 1 and config.looped == "attention"
    matrices = attention_matrices(config) if once else feed_forward_matrices(config)
    return _products(config, matrices[-1:], shared)


def _coda(config: ModelConfig, seq: int) -> int:
    """All between H_k and the head: matrix, coda, readout."""
    layers = config.coda * _layer_flops(config, seq, shared=False)
    return layers + 2 * config.dim**2 * config.coda_matrix + readout_of(config).flops


def _head(config: ModelConfig) -> int:
    return 2 * config.dim * config.vocabulary


def attention_matrices(config: ModelConfig) -> Matrices:
    """Return (inputs, outputs) of queries, keys and values together, and of the output."""
    rows = (config.heads + 2 * config.key_value_heads) * config.head_dim
    return [(config.dim, rows), (config.heads * config.head_dim, config.dim)]


def feed_forward_matrices(config: ModelConfig) -> Matrices:
    """Return (inputs, outputs) of each of the feed-forward's matrices."""
    wide = 2 if config.block.activation == "swiglu" else 1
    return [*[(config.dim, config.width)] * wide, (config.width, config.dim)]


def _products(config: ModelConfig, matrices: Matrices, shared: bool) -> int:
    rank = config.adapters.rank if shared else 0
    return sum(2 * inputs * outputs + 2 * rank * (inputs + outputs) for inputs, outputs in matrices)


def _scores(config: ModelConfig, seq: int) -> int:
    return 4 * seq * config.heads * config.head_dim


def _attention_flops(config: ModelConfig, seq: int, shared: bool) -> int:
    return _products(config, attention_matrices(config), shared) + _scores(config, seq)


def _feed_forward_flops(config: ModelConfig, shared: bool) -> int:
    return _products(config, feed_forward_matrices(config), shared)


def _layer_flops(config: ModelConfig, seq: int, shared: bool) -> int:
    return _attention_flops(config, seq, shared) + _feed_forward_flops(config, shared)
