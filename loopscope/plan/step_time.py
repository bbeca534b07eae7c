"""How long a training step takes: a roofline of products, passes, weights and what travels between GPUs; or, on a
device that is here, the sum of parts that were timed (`plan.timed_step`).

    products   FLOPs of all loops, exits and what is computed again, over what products of a step reach
    passes     numbers that norms, residual sums, activations, softmax and the loss make, at the rate of such passes
    weights    every use of a layer reads its weights twice and adds to their gradient; then the optimizer
    exchange   gathers and sums between GPUs, less what hides behind products

The counts of passes are counts of this project's own code, not fits; two shares are fitted (`plan.devices`). Held to
measured steps by `python -m benchmarks.plan`.
"""

from dataclasses import dataclass

from loopscope.config.run_config import RunConfig
from loopscope.model.config import ModelConfig
from loopscope.plan.devices import LINK_REACH, Device
from loopscope.plan.parameters import count_parameters
from loopscope.plan.step_memory import FULL, LOGIT_CHUNK, LOGIT_CHUNK_ON_GPU, Placing
from loopscope.plan.timed_step import TimedStep
from loopscope.plan.training_flops import exits_read, mean_depths, phase_shares, training_cost

STATE_PASSES = 16
"""Numbers per channel that two norms and two residual sums make, forward and backward."""
ROW_PASSES = 3
"""Per channel of queries, keys, values and what leaves attention: laid out by head, and back."""
WIDTH_PASSES = 9
"""Per channel of the feed-forward: gate and up, their product, three gradients, all once more in the backward pass."""
SQUARE_PASSES = 6
"""Per attention weight, where no fused kernel keeps them out of memory: on a CPU."""
LOGIT_PASSES = 4
"""Per logit: largest, power, sum, gradient."""
WEIGHT_BYTES = 16
"""Per weight and use: read forward and backward, its gradient's share made and added."""
FUSED = 2 / 3
"""Of the passes' time that is left on a CPU where chains of them are compiled (a laptop step: 0.76 of its time in bf16,
docs/results/2026-11-29-plan.md)."""
WITHOUT_GRADIENT = 1 / 3
"""Of a loop's time that is left where it has no gradient: the backward pass makes two numbers for each."""
OPTIMIZER_BYTES = 40
"""Per weight and step: weight, gradient and two moments read, three written, the norm's read, a cast."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by what takes them."""

    products: float
    passes: float
    weights: float
    exchange: float  # what does not hide behind the rest
    exchanged_bytes: int  # per GPU and step
    gathers: int  # of a layer's weights, per layer and step
    flops: float  # per GPU and step
    layers: float = 0.0  # timed, as the next two: then products, passes and weights are 0
    exits: float = 0.0  # with what is between loops
    rest: float = 0.0  # the embedding, layers that run once, the update

    @property
    def seconds(self) -> float:
        """All of it."""
        return float(sum(getattr(self, part) for part in STEP_PARTS))

    def of_peak(self, peak: float) -> float:
        """Return the share of a matmul peak that the step's FLOPs come to."""
        return self.flops / self.seconds / peak


STEP_PARTS = ("products", "passes", "weights", "layers", "exits", "rest", "exchange")
"""What adds up to a step."""


def step_time(
    config: RunConfig, device: Device, placing: Placing, timed: TimedStep | None = None
) -> StepTime:
    """Return how long an optimizer step takes on each GPU.

    Args:
        timed: what parts of it took on this device; None: a roofline.
    """
    model, training = config.model, config.training
    tokens = training.batch * model.sequence / placing.gpus
    flops = tokens * training_cost(config)
    if timed is not None:
        loops, cuts = mean_depths(config)
        deep = loops - (1 - WITHOUT_GRADIENT) * sum(cuts) / len(cuts)
        count = sum(count_parameters(model).values())
        of_layers, of_exits, rest = timed.parts(tokens, model.layers, deep, count)
        return StepTime(0.0, 0.0, 0.0, 0.0, 0, 0, flops, of_layers, of_exits, rest)
    products = flops / (device.matmul["bf16" if placing.number < FULL else "fp32"] * device.reach)
    numbers, uses = _numbers_and_uses(config, placing)
    passes = tokens * numbers * (FUSED if placing.fused else 1.0) / device.pass_rate
    parts = count_parameters(model)
    share = placing.gpus if placing.mode == "fsdp" else 1
    chunk = LOGIT_CHUNK if placing.on_cpu else LOGIT_CHUNK_ON_GPU
    chunks = max(1.0, tokens / training.accumulation * model.vocabulary / chunk)
    shared = parts["shared"] * uses + parts["prelude"] + parts["coda"] * _exits(config)
    head = model.vocabulary * model.dim * _exits(config) * chunks
    moved = WEIGHT_BYTES * training.accumulation * (shared + head)
    moved += OPTIMIZER_BYTES * sum(parts.values()) / share
    weights = moved / device.bandwidth
    exchanged, gathers = _exchanged(parts, uses, training.accumulation, placing)
    computing = products + passes + weights
    exchange = _exposed(exchanged, computing, uses, training.accumulation, device, placing)
    return StepTime(products, passes, weights, exchange, round(exchanged), gathers, flops)


def _exits(config: RunConfig) -> float:
    """Exits that a step reads, the mean over phases."""
    loops, _ = mean_depths(config)
    shares = phase_shares(config)
    return sum(
        part * exits_read(phase, loops) for part, phase in zip(shares, config.objective.phases, strict=True)
    )


def _numbers_and_uses(config: RunConfig, placing: Placing) -> tuple[float, float]:
    """Numbers per token that passes make, and how often a shared layer's weights are used with a gradient."""
    model = config.model
    loops, cuts = mean_depths(config)
    cut = sum(cuts) / len(cuts)
    exits, uses = _exits(config), loops - cut
    again = 1 / 3 if config.training.gradient_checkpointing != "none" else 0.0
    depth = uses * (1 + again) + cut * WITHOUT_GRADIENT
    layer = _layer_numbers(model, placing)
    alone = (model.prelude + exits * model.coda) * layer * (1 + again)
    logits = exits * LOGIT_PASSES * model.vocabulary
    between = depth * 2 * STATE_PASSES / 4 * model.dim
    return depth * model.layers * layer + alone + logits + between, uses


def _layer_numbers(model: ModelConfig, placing: Placing) -> float:
    rows = (2 * model.heads + 2 * model.key_value_heads) * model.head_dim
    squares = SQUARE_PASSES * model.heads * model.sequence if placing.on_cpu else 0
    after = STATE_PASSES / 2 * model.dim if model.block.placement.startswith("sandwich") else 0
    return STATE_PASSES * model.dim + after + ROW_PASSES * rows + WIDTH_PASSES * model.width + squares


def _exchanged(parts: dict[str, int], uses: float, accumulation: int, placing: Placing) -> tuple[float, int]:
    """Bytes that each GPU sends in a step, and how often a shared layer's weights are gathered."""
    if placing.gpus == 1:
        return 0.0, 0
    others = (placing.gpus - 1) / placing.gpus
    count = sum(parts.values())
    if placing.mode == "ddp":
        return 2 * others * FULL * count, 0
    gathers = 1 if placing.gather_once else accumulation * round(2 * uses)
    root = parts["embedding"] + parts["loop"] + parts["head"]
    alone = parts["prelude"] + parts["coda"]
    sent = gathers * parts["shared"] + 2 * accumulation * alone + (1 if placing.gather_once else 2) * root
    return others * FULL * (sent + count), gathers


def _exposed(
    exchanged: float, computing: float, uses: float, accumulation: int, device: Device, placing: Placing
) -> float:
    """Seconds of exchange that nothing hides.

    A shared layer's gradient is whole only once loop 1 has had its backward pass, so its sum can hide behind that part
    of the last backward pass alone. Gathers hide behind the layer before.
    """
    if placing.gpus == 1 or device.link is None:
        return 0.0
    rate = device.link
    if placing.gpus > device.per_node and device.network is not None:
        rate = min(rate, device.per_node * device.network)
    seconds = exchanged / (rate * LINK_REACH)
    window = computing * 2 / 3 / accumulation / max(1.0, uses)
    if placing.mode == "fsdp":
        window = window * accumulation + (0 if placing.gather_once else computing / 2)
    return max(0.0, seconds - window)
