"""A run on a kind and number of GPUs before it starts: what fits, how long it takes, what it costs.

`plan_training` chooses how the model is spread, finds the first thing that does not fit and which changes would make it
fit, each tried on the same count of bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from loopscope.config.run_config import RunConfig
from loopscope.plan.devices import Device
from loopscope.plan.parameters import count_parameters
from loopscope.plan.step_memory import Mode, Placing, StepMemory, step_memory
from loopscope.plan.step_time import StepTime, step_time
from loopscope.plan.timed_step import TimedStep
from loopscope.plan.training_flops import training_cost

KEPT_BYTES = 12
"""Of a parameter in a checkpoint: itself and two moments."""
MOST_GPUS = 2**16
LENGTH_OPEN = "epochs say how long it is: give --tokens for days and cost"
DAY = 86_400
COMPILES_FROM = 5e14
"""FLOPs of a run from which a CPU compiles by itself (`training.compile`); a test holds both equal."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a run would be. Bytes, seconds and FLOP/s unless a name says otherwise; memory is that of each GPU.

    Attributes:
        memory: at a step's peak, by what holds it.
        memory_available: of the device, less what the framework takes.
        too_much: the first thing that does not fit; None where all does.
        changes: any one of which would make it fit, as flags, with what a step then takes.
        mfu: share of the device's matmul peak that the step's FLOPs come to, of what is computed again too.
        budget: tokens to train on; None where neither the run nor the user says.
        notes: what the figures leave out here.
    """

    size: str
    condition: str
    parameters: int
    loops: int
    device: str
    source: str
    gpus: int
    mode: Mode
    gather_once: bool
    precision: str
    memory: StepMemory
    memory_total: int
    memory_available: int
    too_much: str | None
    changes: tuple[str, ...]
    time: StepTime
    step_seconds: float
    step_tokens: int
    tokens_per_second: float
    tokens_per_day: float
    mfu: float
    checkpoint_bytes: int
    budget: int | None
    steps: int | None
    days: float | None
    gpu_hours: float | None
    cost: float | None
    notes: tuple[str, ...]


def plan_training(
    config: RunConfig,
    device: Device,
    gpus: int = 1,
    budget: int | None = None,
    price: float | None = None,
    timed: TimedStep | None = None,
) -> TrainingPlan:
    """Return what a run would be on `gpus` devices of a kind.

    Args:
        budget: tokens to train on; None: what the run's steps come to.
        price: of a GPU for an hour, in any currency.
        timed: what parts of the step took on one such device (`loopscope.jobs.timed_step`); None: computed.

    Raises:
        ValueError: numbers that are none, devices that nothing joins, or a batch that cannot be shared evenly.
    """
    _check(config, device, gpus, budget, price)
    placing = _placed(config, device, gpus)
    memory = step_memory(config, placing)
    available = device.memory - device.spare
    time = step_time(config, device, placing, timed)
    training, step_tokens = config.training, config.training.batch * config.model.sequence
    if budget is None and training.steps is not None:
        budget = training.steps * step_tokens
    steps = None if budget is None else -(-budget // step_tokens)
    seconds = None if steps is None else steps * time.seconds
    hours = None if seconds is None else gpus * seconds / 3600
    parameters = sum(count_parameters(config.model).values())
    precision = "bf16" if placing.number == 2 else "fp32"
    fits = memory.total <= available
    return TrainingPlan(
        size=config.size,
        condition=config.condition,
        parameters=parameters,
        loops=config.model.loops,
        device=device.name,
        source=device.source,
        gpus=gpus,
        mode=placing.mode,
        gather_once=placing.gather_once,
        precision=precision,
        memory=memory,
        memory_total=memory.total,
        memory_available=available,
        too_much=None if fits else _too_much(memory, available),
        changes=() if fits else tuple(_changes(config, device, placing)),
        time=time,
        step_seconds=time.seconds,
        step_tokens=step_tokens,
        tokens_per_second=step_tokens / time.seconds,
        tokens_per_day=step_tokens / time.seconds * DAY,
        mfu=time.of_peak(device.matmul[precision]),
        checkpoint_bytes=KEPT_BYTES * parameters,
        budget=budget,
        steps=steps,
        days=None if seconds is None else seconds / DAY,
        gpu_hours=hours,
        cost=None if hours is None or price is None else hours * price,
        notes=(*_notes(config, device, time, placing), *(() if budget else (LENGTH_OPEN,))),
    )


def _check(config: RunConfig, device: Device, gpus: int, budget: int | None, price: float | None) -> None:
    if not 1 <= gpus <= MOST_GPUS:
        raise ValueError(f"gpus is {gpus}; it must be a whole number from 1 to {MOST_GPUS:,}")
    if budget is not None and budget < 1:
        raise ValueError(f"tokens is {budget}; it must be a whole number from 1 up")
    if price is not None and not 0 <= price < float("inf"):
        raise ValueError(f"price-per-gpu-hour is {price}; it must be a number from 0 up")
    if gpus > 1 and device.link is None:
        raise ValueError(f"gpus is {gpus}, but device {device.name} is planned alone; leave gpus out")
    training = config.training
    parts = gpus * training.accumulation
    if training.batch % parts:
        near = -(-training.batch // parts) * parts
        raise ValueError(
            f"training.batch is {training.batch}: {gpus} GPUs with training.accumulation {training.accumulation} "
            f"cannot share it evenly; set training.batch to a multiple of {parts}, such as {near}"
        )


def _placed(config: RunConfig, device: Device, gpus: int) -> Placing:
    """The first way to spread the run that fits, of those that are allowed; the leanest where none does."""
    on_cpu = device.kind == "cpu"
    bf16 = config.training.precision == "bf16" or (
        config.training.precision == "auto" and device.matmul["bf16"] > device.matmul["fp32"]
    )
    fast = on_cpu and config.training.cpu_ops == "auto"
    number = 2 if bf16 else 4
    fused = on_cpu and _compiles(config)
    ways = [Placing("single", 1, True, fast, number, fused)]
    if gpus > 1:
        parallel, by_loop = config.training.parallel, config.training.fsdp_reshard == "loop"
        ways = [] if parallel == "fsdp" else [Placing("ddp", gpus, True, fast, number)]
        if parallel != "ddp":
            ways += [
                Placing("fsdp", gpus, once, fast, number) for once in ((False,) if by_loop else (True, False))
            ]
    room = device.memory - device.spare
    return next((way for way in ways if step_memory(config, way).total <= room), ways[-1])


def _compiles(config: RunConfig) -> bool:
    """Whether a CPU's chains of passes are compiled, as far as the config says how long the run is."""
    training = config.training
    if training.compile != "auto" or training.steps is None:
        return training.compile is True
    tokens = training.steps * training.batch * config.model.sequence
    return tokens * training_cost(config) >= COMPILES_FROM


def _too_much(memory: StepMemory, available: int) -> str:
    """The first thing that does not fit, when what a step needs is added up in its order."""
    held = 0
    for field in fields(memory):
        held += getattr(memory, field.name)
        if held > available:
            return field.name.replace("_", " ")
    raise AssertionError("asked only where the sum does not fit")


def _changes(config: RunConfig, device: Device, placing: Placing) -> Iterator[str]:
    """The smallest change of each kind that makes a run fit: parts of a batch, computing again, more GPUs."""
    room, training = device.memory - device.spare, config.training

    def first(gpus: int, levels: tuple[str, ...], mode: Mode) -> str | None:
        """The first of these levels, with the fewest parts, that fits on so many GPUs."""
        whole = training.batch // gpus
        parts = [n for n in (1, *_doubled(1, whole)) if n >= training.accumulation and whole % n == 0]
        way = Placing(mode, gpus, False, placing.on_cpu, placing.number)
        for level in levels:
            for count in parts:
                change = {"gradient_checkpointing": level, "accumulation": count}
                changed = config.model_copy(update={"training": training.model_copy(update=change)})
                total = step_memory(changed, way).total
                if total <= room:
                    flags = [f"--gpus {gpus}"] if gpus != placing.gpus else []
                    if level != training.gradient_checkpointing:
                        flags.append(f"--training.gradient-checkpointing {level}")
                    if count != training.accumulation:
                        flags.append(f"--training.accumulation {count}")
                    return f"{' '.join(flags)} ({mode}, {gigabytes(total)})"
        return None

    kept = training.gradient_checkpointing
    levels = tuple(level for level in ("none", "layer", "loop") if level != kept)
    alone = first(placing.gpus, (kept,), placing.mode)
    again = first(placing.gpus, levels[levels.index("layer") if "layer" in levels else 0 :], placing.mode)
    yield from (found for found in (alone, again) if found is not None)
    if device.link is None:
        return
    for gpus in _doubled(placing.gpus, training.batch):
        if training.batch % gpus == 0:
            for mode in SHARED_MODES:
                if found := first(gpus, (kept, *levels), mode):
                    yield found
                    return


SHARED_MODES: tuple[Mode, ...] = ("ddp", "fsdp")
"""How several GPUs share a run, the quicker first."""


def _doubled(start: int, most: int) -> Iterator[int]:
    while (start := 2 * start) <= most:
        yield start


def _notes(config: RunConfig, device: Device, time: StepTime, placing: Placing) -> Iterator[str]:
    training = config.training
    if time.layers and placing.fused:
        yield "timed without compiled chains, which this run would have: it takes up to a quarter less"
    yield "evaluations, checkpoints, the scale monitor and waiting for data come on top"
    if device.kind == "cuda" and not time.layers:
        yield "GPU figures are computed, not measured with this code: docs/plan.md compares them with published runs"
        tiny = training.batch * config.model.sequence // training.accumulation < 2048
        if tiny or time.seconds < 0.05:
            yield "steps this short wait for the launch of kernels, which is not counted"
    if config.training.depth.varies:
        yield "times are those of a step's mean depth, memory that of the deepest"


def gigabytes(count: float) -> str:
    """Return bytes in three digits and a unit.

    Example:
        >>> gigabytes(41_234_567_890)
        '41.2 GB'
    """
    unit, name = next((u, n) for u, n in ((1e12, "TB"), (1e9, "GB"), (0.0, "MB")) if count >= u)
    return f"{count / (unit or 1e6):.3g} {name}"
