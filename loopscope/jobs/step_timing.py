"""A run's own step timed on this machine, with few layers and loops, for `plan.timed_step` to make the whole of it."""

import time
from collections.abc import Callable
from statistics import median

import torch

from loopscope.config.run_config import RunConfig
from loopscope.guards import wait
from loopscope.jobs.machine import device_named
from loopscope.machine_limits import free_bytes
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.plan.memory import least_training_bytes
from loopscope.plan.timed_step import CORNERS, UNLOOPED_CORNERS, TimedStep, mean, solved
from loopscope.plan.training_flops import phase_shares
from loopscope.training.config import TrainingConfig
from loopscope.training.hardware import resolve_precision
from loopscope.training.malloc import keep_freed_memory
from loopscope.training.optim import build_optimizer, clip_gradients_
from loopscope.training.step import TrainingStep

TIMED_TOKENS = 4096
"""Of the batch that is timed at most, in whole sequences: more take proportionally longer."""
MOST_TIMINGS = 5
LONG_TIMED = 3.0
"""Seconds after which a model is not tried once more."""


def timed_step(config: RunConfig, clock: Callable[[], float] = time.perf_counter) -> TimedStep | None:
    """Time the step that a run would take here, on models of its shape with up to 3 layers and 4 loops.

    Takes some ten short steps per phase of the objective. Random tokens; nothing is written, and the random
    numbers of the process are as before.

    Args:
        clock: seconds; the processor's where others work beside it.

    Returns:
        None where even so small a model has no room.
    """
    corners = UNLOOPED_CORNERS if config.model.loops == 1 else CORNERS
    layers, loops = max(corners)
    training = config.training
    sequences = max(1, min(training.batch // training.accumulation, TIMED_TOKENS // config.model.sequence))
    alone = training.model_copy(
        update={
            "accumulation": 1,
            "batch": sequences,
            "depth": type(training.depth)(),
            "precision": resolve_precision(training.precision, device_named(training.device)),
        }
    )
    largest = config.model.model_copy(update={"layers": layers, "loops": loops})
    room = free_bytes()
    needed = 2 * least_training_bytes(config.model_copy(update={"model": largest, "training": alone}))
    if room is not None and needed > room:
        return None
    steps = [_phase(config.model, objective, alone, corners, clock) for objective in config.objective.phases]
    return mean(steps, phase_shares(config))


def _phase(
    model: ModelConfig,
    objective: ObjectiveConfig,
    training: TrainingConfig,
    corners: tuple[tuple[int, int], ...],
    clock: Callable[[], float],
) -> TimedStep:
    tokens = training.batch * model.sequence
    found: dict[tuple[int, int], float] = {}
    updates: list[float] = []
    keep_freed_memory()  # as training does
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layers, loops in corners:
            shape = model.model_copy(update={"layers": layers, "loops": loops})
            seconds, update = _timed(shape, objective, training, clock)
            found[layers, loops] = seconds
            updates.append(update)
    return solved(found, tokens, median(updates))


def _timed(
    shape: ModelConfig, objective: ObjectiveConfig, training: TrainingConfig, clock: Callable[[], float]
) -> tuple[float, float]:
    """Seconds of the passes of a step, and of the update per parameter: medians of a few."""
    device = device_named(training.device)
    model = LoopedTransformer(shape).to(device).train()
    model.gradient_checkpointing = training.gradient_checkpointing
    optimizer = build_optimizer(model, training)
    step = TrainingStep(
        model,
        build_objective(objective),
        optimizer,
        training,
        device,
        training.precision,  # type: ignore[arg-type]
    )
    ids = torch.randint(shape.vocabulary, (training.batch, shape.sequence + 1), device=device)

    def taken(work: Callable[[], object]) -> float:
        wait(device)
        began = clock()
        work()
        wait(device)
        return clock() - began

    def whole() -> object:
        return step(ids[:, :-1], ids[:, 1:], (shape.loops,))

    def update() -> None:
        clip_gradients_(model, training.clip)
        optimizer.step()

    whole()  # makes kernels and the optimizer's state
    seconds: list[float] = []
    updates: list[float] = []
    began = time.monotonic()
    while len(seconds) < MOST_TIMINGS and (not seconds or time.monotonic() - began < LONG_TIMED):
        seconds.append(taken(whole))
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        updates.append(taken(update))
        optimizer.zero_grad()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return median(seconds) - median(updates), median(updates) / parameters
