"""The training loop, to be read from top to bottom.

Everything that varies is a pure function of (seed, step): the batch, dropout's random numbers, the
learning rate. So the step number, the weights and the optimizer's moments are a whole checkpoint, and a
resumed run repeats an uninterrupted one bit for bit (same device, threads and library versions).

The host waits for the device only where something is logged, evaluated or saved.

Several processes run it side by side, each on its rows of one batch (`distributed`). The first one writes and shows.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from loopscope.monitor.monitor import ScaleMonitor
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.depth import draw_depths
from loopscope.objectives.objective import Objective
from loopscope.recurrence import AbstractLoopedLM
from loopscope.results import Failure, LoopMetrics
from loopscope.results.layout import newest_checkpoint
from loopscope.results.run_phases import RunPhase
from loopscope.training.checkpoint import Progress, resume_from_newest, set_aside_above
from loopscope.training.checkpoint_saver import CheckpointSaver
from loopscope.training.compile import compile_layers, is_fused
from loopscope.training.config import TrainingConfig
from loopscope.training.cpu_choices import CpuChoices, choices_for
from loopscope.training.cpu_trials import found_by_trials
from loopscope.training.distributed.batch_share import check_batch_share, own_rows
from loopscope.training.distributed.consensus import alike
from loopscope.training.distributed.parallel import parallelize
from loopscope.training.distributed.ranks import ALONE, Ranks
from loopscope.training.distributed.strategy import choose_strategy, parallel_note
from loopscope.training.extension import extension_note
from loopscope.training.finite_watch import FiniteWatch
from loopscope.training.hardware import resolve_device, resolve_precision
from loopscope.training.loggers import LoggerGroup
from loopscope.training.malloc import keep_freed_memory
from loopscope.training.metrics import MetricsLog, read_metrics
from loopscope.training.optim import build_optimizer, learning_rate, set_learning_rate
from loopscope.training.prefetch import Prefetcher, TrainingWindows
from loopscope.training.progress import ProgressDisplay
from loopscope.training.scale_monitor import build_monitor, monitor_of
from loopscope.training.step import TrainingStep
from loopscope.training.step_record import log_step
from loopscope.training.stop_request import StopRequest, TrainingStoppedError
from loopscope.training.throughput import FlopsPerToken, Speedometer, matmul_peak, wider_peak
from loopscope.training.timetable import Timetable
from loopscope.training.validation import Batches, validate


@dataclass(frozen=True)
class TrainingData:
    """What a run trains and validates on: windows, and the bytes per token of the validation text."""

    train: TrainingWindows
    validation: Callable[[int | None], Batches]  # windows wanted (None: all) to batches in a fixed order
    bytes_per_token: float  # of the validation text


@dataclass(frozen=True)
class Outcome:
    """How a run ended: completed or diverged, with its figures."""

    progress: Progress
    per_loop: tuple[LoopMetrics, ...]  # final evaluation; empty when the run diverged
    failure: Failure | None
    device: str


def train(
    model: AbstractLoopedLM,
    objective: Objective | ObjectiveConfig,
    data: TrainingData,
    config: TrainingConfig,
    run: str | Path,
    files: Mapping[str, str],
    title: str = "train",
    quiet: bool = False,
    flops_per_token: FlopsPerToken | Sequence[FlopsPerToken] | None = None,
    before: TrainingConfig | None = None,
    trackers: LoggerGroup | None = None,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train a looped model, from the newest checkpoint of `run` where there is one.

    Args:
        objective: what it is trained on; a config may have a schedule.
        run: folder for checkpoints and metrics; created.
        files: text files that go into every checkpoint (config, tokenizer).
        title: shown beside the progress.
        flops_per_token: of a step by its number of loops, for the FLOP/s that are logged; one per phase of a schedule;
            None logs none.
        before: how long the run was to be until now, where it is made longer: what that changes is said.
        trackers: are given all that is logged.
        ranks: the processes that train together; all of them call this alike.

    Raises:
        ValueError: the device or the compiler asked for is not there, the checkpoint is damaged, a schedule leaves
            no step for one of its phases, or processes cannot share what is asked for.
        TrainingStoppedError: (a KeyboardInterrupt) Ctrl-C or SIGTERM: the step was finished, and is saved.
    """
    run = Path(run)
    device = ranks.device(resolve_device(config.device))
    precision = resolve_precision(config.precision, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    with alike(ranks):
        check_batch_share(config.batch, config.accumulation, ranks)
        steps = total_steps(config, len(data.train))
        timetable = Timetable(objective, steps)
        costs = timetable.costs(flops_per_token)
        strategy = choose_strategy(model, timetable.objectives, config, device, ranks)
        if strategy != "fsdp":
            model.to(device)
        optimizer = build_optimizer(model, config)
        window = data.train.batch(config.seed, 0, 0, 1)[1].numel()
        checkpoint, progress = resume_from_newest(run, model, optimizer, load=strategy != "fsdp")
        flops, cpu = _flops(timetable, config.batch * window, costs, model), CpuChoices()
        if ranks.alone:  # of several each would find its own
            cpu = choices_for(run, device, precision, flops, checkpoint is not None, found_by_trials)
        fused = is_fused(config.compile, device, flops, cpu.fuses, cpu.peak)
        phase = timetable.standing(progress.step, read_metrics(run))
    if checkpoint and ranks.first:
        set_aside_above(checkpoint)
    run.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(run, progress.step, steps, trackers.record if trackers else None, ranks.first)
    first = timetable.objective(phase)
    # A gate alone is fitted to what another loop improves in use: without dropout, from the noise of evaluation.
    model.train(not first.placement.gate_only)
    watch = FiniteWatch(first.placement.reads, device)

    display = ProgressDisplay(title, steps, progress.step, quiet or not ranks.first)
    if not ranks.alone:
        display.say(f"{title}: {parallel_note(strategy, model, config, device, ranks)}")
    if checkpoint:
        where = f"goes on from step {progress.step} of {steps} ({checkpoint.name})"
        display.say(
            f"{title}: {where if progress.step < steps else f'all {steps} steps are done: evaluated again'}"
        )
        old = steps if before is None else total_steps(before, len(data.train))
        if old < steps:
            flops = _flops(Timetable(objective, old), config.batch * window, costs, model)
            compiled = fused and not is_fused(config.compile, device, flops, cpu.fuses, cpu.peak)
            note = extension_note(config, objective, old, steps, progress.step, compiled)
            display.say(f"{title}: {note}")
    elif before is not None:
        display.say(f"{title}: no checkpoint was saved yet: begins at step 1 of {steps}")

    def watched_by(model: AbstractLoopedLM) -> ScaleMonitor | None:
        return build_monitor(
            model, first, config, log, lambda text: display.say(f"{title}: {text}"), steps, phase.first
        )

    monitor = monitor_of(strategy, model, watched_by, config, ranks)
    wrapper, optimizer = parallelize(
        strategy, model, optimizer, timetable.objectives, config, device, ranks, data.train
    )
    if checkpoint and strategy == "fsdp":
        from loopscope.training.distributed.sharded_checkpoint import load_sharded

        load_sharded(checkpoint, model, optimizer, ranks)
    take_step = TrainingStep(
        model, first, optimizer, config, device, precision, fused, ranks, wrapper, cpu.sizes
    )
    if device.type == "cpu":
        keep_freed_memory()
    elif config.compile is True:
        compile_layers(model)
    peak = ranks.world * matmul_peak(device, precision) if costs is not None else None
    speedometer = Speedometer(
        None if costs is None else costs[phase.number - 1],
        peak,
        lambda: ranks.world * wider_peak(device, precision),
    )

    def validated(windows: int | None) -> tuple[LoopMetrics, ...]:
        with take_step.autocast():
            return wrapper.inside(
                lambda: validate(model, data.validation(windows), data.bytes_per_token, device, ranks=ranks)
            )

    def evaluate(step: int, windows: int | None) -> tuple[LoopMetrics, ...]:
        per_loop = validated(windows)
        log.write("evaluation", step, per_loop=[asdict(metrics) for metrics in per_loop])
        display.evaluation(step, per_loop)
        return per_loop

    def begin(phase: RunPhase, step: int) -> None:
        log.write("phase", step, phase=phase.number, name=phase.name)
        take_step.objective = timetable.objective(phase)
        watch.read_by(take_step.objective.placement.reads)
        speedometer.flops_per_token = None if costs is None else costs[phase.number - 1]
        if step > 1:
            display.say(
                f"{title}: step {step}: phase {phase.number} of {len(timetable.phases)}, {phase.name}"
            )
            if monitor:
                monitor.switch(take_step.objective, step)

    if timetable.scheduled and progress.step == 0:
        begin(phase, 1)
    rows = None if ranks.alone else own_rows(config.batch, config.accumulation, ranks)
    batches = Prefetcher(data.train, config.seed, config.batch, steps, device, rows)
    saver = CheckpointSaver(run, files, config, wrapper, ranks)
    with display, batches, saver, StopRequest(ranks) as stop:
        clock, logged, waited = time.perf_counter(), progress, 0.0
        for step in range(progress.step + 1, steps + 1):
            stop.begin_step()
            torch.manual_seed(ranks.seed(step_seed(config.seed, step)))
            set_learning_rate(optimizer, learning_rate(step - 1, steps, config))
            input_ids, labels = batches.get(step - 1)
            depths = draw_depths(config.depth, model.loops, config.seed, step - 1, config.batch)
            if timetable.at(step) is not phase:
                phase = timetable.at(step)
                begin(phase, step)
            take_step.objective.advance(phase.progress(step))
            loss, gradient_norm = take_step(input_ids, labels, depths)
            tokens = labels.numel() * ranks.world
            speedometer.see(tokens, max(depths))
            watch.see(step, loss, gradient_norm)
            progress = replace(progress, step=step, tokens=progress.tokens + tokens)
            display.advance(step)
            if monitor:
                monitor.step(step, input_ids, labels)

            last, stopping = step == steps, stop.agreed()
            log_now = last or step == 1 or step % config.log_every == 0
            evaluate_now = not last and config.evaluate_every and step % config.evaluate_every == 0
            save_now = last or stopping or (config.checkpoint_every and step % config.checkpoint_every == 0)
            if not (log_now or evaluate_now or save_now):
                continue

            if failure := watch.failure():
                saver.wait()
                kept = newest_checkpoint(run)
                failure = replace(failure, last_checkpoint=kept.name if kept else None)
                log.write("failure", step, failure=asdict(failure))
                display.say(f"{title}: stopped, {failure.message}")
                return Outcome(progress, (), failure, str(device))
            now = time.perf_counter()
            progress = replace(progress, seconds=progress.seconds + now - clock)
            clock = now
            if log_now:
                seconds = max(progress.seconds - logged.seconds, 1e-9)
                speed = {
                    "tokens_per_second": (progress.tokens - logged.tokens) / seconds,
                    "data_share": (batches.waited - waited) / seconds,
                    **speedometer.read(seconds),
                }
                logged, waited = progress, batches.waited
                log_step(log, display, step, loss, gradient_norm, optimizer, progress, speed, model.loops)
            held_out = evaluate(step, config.evaluate_windows) if evaluate_now else ()
            if save_now:
                if config.keep_best and not held_out:
                    held_out = validated(config.evaluate_windows)
                saver.save(progress, optimizer, held_out, last=last or stopping is not None)
            saver.poll()
            if stopping:
                raise TrainingStoppedError(title, step, steps, stopping)
            clock = time.perf_counter()  # evaluating and saving are not training time
            if monitor:
                monitor.budget.restart()
        stop.release()  # the last checkpoint is written: an evaluation can be interrupted as anything else
        text = "the whole validation text"
        if config.final_windows is not None:
            text = f"{config.final_windows:,} windows of the validation text"
        display.last_evaluation(steps, text)
        per_loop = evaluate(steps, config.final_windows)
        log.flush()
        return Outcome(progress, per_loop, None, str(device))


def total_steps(config: TrainingConfig, windows: int) -> int:
    """Return the optimizer steps of a run over `windows` training windows."""
    if config.epochs is None:
        assert config.steps is not None
        return config.steps
    return max(1, math.ceil(config.epochs * windows / config.batch))


def _flops(
    timetable: Timetable, tokens: int, costs: Sequence[FlopsPerToken] | None, model: AbstractLoopedLM
) -> float | None:
    """FLOPs of a training with so many tokens a step at the model's depth; None where they are not counted."""
    if costs is None:
        return None
    return sum(phase.steps * tokens * costs[phase.number - 1](model.loops) for phase in timetable.phases)


def step_seed(seed: int, step: int) -> int:
    """Return the seed of dropout's random numbers at one step (splitmix64's multipliers spread the bits)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9) & (2**63 - 1)
    return mixed ^ (mixed >> 31)
