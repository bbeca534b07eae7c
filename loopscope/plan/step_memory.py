"""What a training step has in memory at its peak on one device, part by part, from the config alone.

Counted are the tensors that a step keeps: tests hold activations to what autograd really saves, and
`python -m benchmarks.plan` holds the whole to a process's measured peak. Not counted: the framework itself (0.3 GB on a
CPU, about 0.5 GB on a GPU), what an allocator wastes, a compiler's buffers.
"""

from dataclasses import dataclass, fields
from typing import Literal

from loopscope.config.run_config import RunConfig
from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import injection_of
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.depth_config import draw_depths
from loopscope.objectives.placement_config import placement_of
from loopscope.plan.parameters import count_parameters
from loopscope.plan.training_flops import DRAWN, exits_read

Mode = Literal["single", "ddp", "fsdp"]

FULL = 4
"""Bytes of weights, gradients, moments, residual states: single precision whatever products compute in."""
LOGIT_CHUNK = 5 * 2**21
"""Numbers of a chunk of logits on a CPU (`objectives.token_loss.CHUNK_ELEMENTS`); a test holds both equal."""
LOGIT_CHUNK_ON_GPU = 8 * LOGIT_CHUNK
NARROW_HEAD = 32
"""Channels of a head up to which a CPU's bf16 attention is computed in fp32 (`ops.attention.NARROW`)."""


@dataclass(frozen=True)
class Placing:
    """How a step is spread.

    Attributes:
        mode: ddp: every GPU holds everything. fsdp: a share, and layers are gathered.
        gpus: that share one optimizer step.
        gather_once: fsdp: shared layers stay gathered for all loops, instead of one layer after the other.
        on_cpu: the CPU's own operations apply, which keep less (`training.cpu_ops`).
        number: bytes of a number in products: 2 in bf16.
        fused: chains of passes are compiled on that CPU (`training.compile`).
    """

    mode: Mode = "single"
    gpus: int = 1
    gather_once: bool = True
    on_cpu: bool = False
    number: int = 2
    fused: bool = False


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one device at the peak of a step, by what holds them."""

    parameters: int
    gradients: int
    moments: int
    cast_weights: int  # the weights once more, as wide as products are
    gathered: int  # fsdp: whole layers and their gradients, while they are used
    activations: int
    logits: int  # a chunk of them, its gradient, the head's
    workspace: int  # what one layer's backward pass makes for the moment

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, field.name) for field in fields(self))


def step_memory(config: RunConfig, placing: Placing) -> StepMemory:
    """Return what a step holds on each device at its peak: when the backward pass begins."""
    model, training = config.model, config.training
    parts = count_parameters(model)
    count = sum(parts.values())
    share = placing.gpus if placing.mode == "fsdp" else 1
    own = -(-count // share)
    frozen = placement_of(config.objective).gate_only
    trained = model.dim + 1 if frozen else own
    moments = 1 if training.optimizer == "muon" else 2
    sequences = training.batch / (placing.gpus * training.accumulation)
    tokens = max(1, round(max(1.0, sequences) * model.sequence))
    narrow = placing.number < FULL
    return StepMemory(
        parameters=FULL * own,
        gradients=FULL * trained,
        moments=FULL * moments * trained,
        cast_weights=placing.number * count if narrow else 0,
        gathered=_gathered(model, parts, placing) if placing.mode == "fsdp" else 0,
        activations=round(tokens * activation_bytes(config, placing)),
        logits=_logit_bytes(model, tokens, placing),
        workspace=tokens * _workspace_bytes(model, placing),
    )


def activation_bytes(config: RunConfig, placing: Placing) -> float:
    """Return bytes per token that the backward pass of a step needs, at the deepest step."""
    model, kept = config.model, config.training.gradient_checkpointing
    loops = _kept_loops(config)
    return max(_phase_bytes(model, phase, loops, kept, placing) for phase in config.objective.phases)


def _kept_loops(config: RunConfig) -> int:
    """Loops that a gradient goes through, in the deepest step; of what is drawn without a limit, of many draws."""
    depth, loops = config.training.depth, config.model.loops
    if depth.distribution == "lognormal-poisson":
        steps = range(depth.curriculum, depth.curriculum + DRAWN)
        deepest = max(max(draw_depths(depth, loops, config.training.seed, step, 1)) for step in steps)
    else:
        deepest = depth.most(loops)
    return deepest if depth.backprop is None else min(deepest, depth.backprop)


def _phase_bytes(
    model: ModelConfig, objective: ObjectiveConfig, loops: float, kept: str, placing: Placing
) -> float:
    """Of one phase's objective, which says how many exits are read."""
    dim, exits = model.dim, exits_read(objective, loops)
    once = model.looped == "attention"
    first = layer_bytes(model, placing, shared=True)
    later = layer_bytes(model, placing, shared=True, attention_only=once)
    own = layer_bytes(model, placing, shared=False)
    state = FULL * dim  # what goes from layer to layer
    alone = model.prelude + exits * model.coda
    if objective.jacobian.weight > 0:
        loops += 1
    between = loops * _between_loops(model) + (1 + exits) * state
    between += exits * dim * placing.number
    if kept == "none":
        return model.layers * (first + (loops - 1) * later) + alone * own + between
    if kept == "layer":
        return state * (model.layers * loops + alone) + max(first, own if alone else 0) + between
    return state * (loops + alone) + model.layers * first + between


def layer_bytes(model: ModelConfig, placing: Placing, shared: bool, attention_only: bool = False) -> float:
    """Return bytes per token that autograd keeps of one layer's forward pass."""
    dim, width, number = model.dim, model.width, placing.number
    bf16, block = number < FULL, model.block
    queries = model.heads * model.head_dim
    keys = model.key_value_heads * model.head_dim
    rotated = queries + keys
    folded = placing.on_cpu and block.norm == "rmsnorm" and block.placement != "post"
    branch = FULL * dim + (0 if folded else number * dim)  # a norm's input, and what it makes for the product
    attention: float = branch + number * (rotated + keys + queries)
    if placing.on_cpu and bf16 and model.head_dim <= NARROW_HEAD and model.dropout == 0:
        attention += (FULL - number) * (rotated + keys + queries) + number * queries
    if model.positions == "rotary":
        attention += 1.5 * number * rotated
    if model.attention.qk_norm and bf16:
        attention += 2 * FULL * rotated
    inner = {"swiglu": 2 if placing.on_cpu else 4, "gelu-new": 5}.get(block.activation, 2)
    feed_forward = branch + inner * number * width
    if model.dropout > 0 and not placing.on_cpu:
        feed_forward += dim  # a mask
    after = {"sandwich": 4 if bf16 else 2, "sandwich-sum": 2}.get(block.placement, 0) * FULL * dim
    parts = (attention + after / 2) if attention_only else (attention + feed_forward + after)
    if shared and model.loop_embedding == "modulation":
        parts += 6 * FULL * dim
    return parts


def _between_loops(model: ModelConfig) -> float:
    """Bytes per token and loop of injection and carry."""
    steps = len(model.carry) + (2 if injection_of(model) is not None else 0)
    return FULL * model.dim * steps


def _logit_bytes(model: ModelConfig, tokens: int, placing: Placing) -> int:
    """A chunk of logits with its gradient, and the head's gradient as it is gathered."""
    head = model.vocabulary * model.dim
    chunk = min(tokens * model.vocabulary, LOGIT_CHUNK if placing.on_cpu else LOGIT_CHUNK_ON_GPU)
    # On a CPU fp32 work goes by a few rows; a GPU takes the whole chunk wide, twice.
    wide = (placing.number if placing.fused else 0) if placing.on_cpu else 2 * FULL
    share = placing.number * head if placing.number < FULL else 0
    return chunk * (placing.number + wide) + share


def _workspace_bytes(model: ModelConfig, placing: Placing) -> int:
    """Bytes per token: gradients of gate, up and their product, seven copies of a head's width, two states."""
    heads = model.heads * model.head_dim
    return placing.number * (3 * model.width + 7 * heads) + 2 * FULL * model.dim


def _gathered(model: ModelConfig, parts: dict[str, int], placing: Placing) -> int:
    """Whole layers while they are used, with their gradients, in single precision.

    The root's own (embedding, head, what is between loops) stay for the step. The gradient of a shared layer is whole
    once loop 1 has had its backward pass, so all of them wait until then, however often the layers are gathered.
    """
    alone = max(parts["prelude"] // max(1, model.prelude), parts["coda"] // max(1, model.coda))
    root = parts["embedding"] + parts["loop"] + parts["head"]
    shared = parts["shared"]
    held = shared if placing.gather_once else min(shared, 2 * shared // model.layers)
    return FULL * (2 * (root + alone) + held + shared)
