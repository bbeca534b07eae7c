"""One run: from a config to a folder with checkpoints, metrics and a result.

A run folder holds the resolved config (written before anything else), metrics, checkpoints and, at the end, the
result: `results.layout`. It belongs to one config, and to one process while it is trained: others are refused.
"""

import math
import os
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from loopscope.config.nested import differences
from loopscope.config.run_config import RunConfig
from loopscope.data.capped_text import capped_text_note
from loopscope.data.lost_text import lost_text_note
from loopscope.data.preparation import PreparedData
from loopscope.data.source import PreparedTask, open_data
from loopscope.jobs.folder import as_resumed, check_folder, read_result, written_config
from loopscope.jobs.resumption import Resumption, earlier_end, resumed, started_again
from loopscope.jobs.run_trackers import close_trackers, open_trackers
from loopscope.model.looped import LoopedTransformer
from loopscope.ops.dispatch import cpu_ops
from loopscope.plan.training_flops import step_flops_by_depth
from loopscope.results import (
    EvalPoint,
    Failure,
    RunResult,
    TrainPoint,
    decode,
    provenance,
    to_json,
)
from loopscope.results.layout import (
    AUDIT,
    CONFIG,
    PREVIOUS_AUDIT,
    RESULT,
    TOKENIZER,
    newest_checkpoint,
    write_text,
)
from loopscope.results.lock import hold
from loopscope.results.run_phases import phases_taken
from loopscope.training.distributed.consensus import alike, decided_first, first_then_others
from loopscope.training.distributed.process_group import joined
from loopscope.training.distributed.ranks import Ranks
from loopscope.training.hardware import resolve_device
from loopscope.training.loggers import LoggerGroup, check_loggers
from loopscope.training.loop import Outcome, TrainingData, train
from loopscope.training.metrics import read_metrics
from loopscope.training.validation import Batches
from loopscope.training.weights import load_weights

CURVE_POINTS = 200
"""Training points kept in a result: enough for any figure, small enough for hundreds of runs."""


def execute(config: RunConfig, run: str | Path, resume: bool = False, quiet: bool = False) -> RunResult:
    """Train one config in one folder, which this process holds until it is done.

    Args:
        resume: go on from the newest checkpoint; without it a folder that was begun is refused. What is `auto` in
            `config` is then as the folder has it, and more steps (or epochs) than it has make the run longer.

    Raises:
        ValueError: bad config, data, device or folder, or a folder that another process trains in (which one, since
            when); nothing that was saved is touched.
        TrainingStoppedError: (a KeyboardInterrupt) Ctrl-C or SIGTERM: the step was finished, and is saved.
    """
    run = Path(run)
    with joined(resolve_device(config.training.device)) as ranks, ExitStack() as held:

        def begin() -> Resumption:
            check_loggers(config.training.log)
            restarted = started_again() and (run / CONFIG).is_file()  # with the words of the first time
            again = resume or restarted
            # Whether it may go on is asked once it is held.
            check_folder(resumed(config, run, ranks).config, run, again or run.exists())
            held.enter_context(hold(run))
            goes_on = resumed(config, run, ranks)  # again, now that nobody else can begin it
            check_folder(goes_on.config, run, again)
            return goes_on

        goes_on = decided_first(ranks, begin)
        if ranks.first:
            for note in goes_on.notes:
                warnings.warn(note, stacklevel=2)
        return _execute(goes_on.config, run, quiet or not ranks.first, ranks)


def _execute(config: RunConfig, run: Path, quiet: bool, ranks: Ranks) -> RunResult:
    with alike(ranks):
        data = first_then_others(ranks, lambda: open_data(config.data, progress=not quiet))
        check_vocabulary(config, data)
        training_data = windows(config, data)
        torch.manual_seed(config.training.seed)
        model = LoopedTransformer(config.model)
        tokenizer = data.tokenizer_text
        # A run that has a checkpoint has its own weights, and goes on where the source is gone.
        if config.training.weights is not None and newest_checkpoint(run) is None:
            load_weights(model, config.training.weights, tokenizer)
        model.gradient_checkpointing = config.training.gradient_checkpointing
        before = earlier_end(run)
    if (note := capped_text_note(config.data)) and ranks.first:
        warnings.warn(note, stacklevel=3)
    if (note := lost_text_note(data.lost.unknown, data.lost.unread)) and ranks.first:
        warnings.warn(note, stacklevel=3)

    def trained(trackers: LoggerGroup | None = None) -> Outcome:
        return train(
            model,
            config.objective,
            training_data,
            config.training,
            run,
            files={CONFIG: config.to_yaml(), TOKENIZER: tokenizer},
            title=f"{config.condition} seed {config.training.seed}",
            quiet=quiet,
            flops_per_token=[step_flops_by_depth(config, phase) for phase in config.objective.phases],
            before=before,
            trackers=trackers,
            ranks=ranks,
        )

    if not ranks.first:
        with cpu_ops(config.training.cpu_ops):
            trained()
        found: RunResult | None = ranks.told(None)
        assert found is not None, "the first process has one"
        return found
    write_text(run / CONFIG, config.to_yaml())
    trackers = open_trackers(config, run)
    with (
        closing(trackers),
        _audits_of_now(run),
        cpu_ops(config.training.cpu_ops),
    ):  # also what validates and monitors
        outcome = trained(trackers)
        result = replace(
            _result(config, run, model.parameter_count(), outcome),
            unknown_share=data.lost.unknown,
            unread_share=data.lost.unread,
            source=data.source,
        )
        write_text(run / RESULT, to_json(result))
        close_trackers(trackers, result, run)
    return ranks.told(result)


@contextmanager
def _audits_of_now(run: Path) -> Iterator[None]:
    """Set a run's audit aside where training inside has left the checkpoint that it is of."""
    before = newest_checkpoint(run)
    try:
        yield
    finally:
        audit = run / AUDIT
        if audit.is_file() and newest_checkpoint(run) != before:
            os.replace(audit, run / PREVIOUS_AUDIT)
            warnings.warn(
                f"{audit} was of {before.name if before else 'an earlier checkpoint'}; it is kept as {PREVIOUS_AUDIT}, "
                f"and loopscope audit {run} measures the model as it is now",
                stacklevel=4,
            )


def check_vocabulary(config: RunConfig, data: PreparedData | PreparedTask) -> None:
    """Refuse a tokenizer with more entries than the model has embeddings."""
    entries = data.tokenizer.vocabulary_size
    if entries > config.model.vocabulary:
        raise ValueError(
            f"the tokenizer has {entries} entries, model.vocabulary is {config.model.vocabulary}; "
            f"set model.vocabulary to {entries} or more"
        )


def windows(config: RunConfig, data: PreparedData | PreparedTask) -> TrainingData:
    """Training batches by step, validation batches in order, both of `model.sequence` tokens."""
    sequence, batch = config.model.sequence, config.training.batch
    validation = data.validation_windows(sequence)

    def batches(limit: int | None) -> Batches:
        return validation.sequential(batch, limit_windows=limit)

    return TrainingData(
        train=data.training_windows(sequence, config.data.stride),
        validation=batches,
        bytes_per_token=data.bytes_per_token,
    )


def failed(config: RunConfig, run: str | Path, error: BaseException, began: float) -> RunResult:
    """The record of a run that raised, kept in its folder: a study goes on.

    A finished result is not replaced by it, and another run's folder is left alone.
    """
    run = Path(run)
    checkpoint = newest_checkpoint(run)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({Path(last[0].filename).name}:{last[0].lineno})" if last else ""
    result = RunResult(
        condition=config.condition,
        size=config.size,
        seed=config.training.seed,
        status="failed",
        parameters=0,
        tokens_trained=0,
        steps=0,
        seconds=time.monotonic() - began,
        per_loop=(),
        failure=Failure(
            message=f"{type(error).__name__}: {error}{place}",
            last_checkpoint=checkpoint.name if checkpoint else None,
        ),
        config=config.model_dump(mode="json"),
        provenance=provenance(config.training.device, config.training.threads),
    )
    if not _may_record(config, run):
        return result
    run.mkdir(parents=True, exist_ok=True)
    if not (run / CONFIG).is_file():  # the folder is this run's, also when it is tried again
        write_text(run / CONFIG, config.to_yaml())
    write_text(run / RESULT, to_json(result))
    return result


def finished(run: str | Path) -> RunResult | None:
    """The result of a run that completed or diverged, or None where it has to be run (again)."""
    result = read_result(run)
    return None if result is None or result.status == "failed" else result


def _may_record(config: RunConfig, run: Path) -> bool:
    """Whether a failure may be written into a folder: it is this run's own, and not finished."""
    path, now = run / CONFIG, config.model_dump(mode="json")
    if path.is_file() and any(differences(as_resumed(written_config(path), now, longer=True), now)):
        return False
    try:
        return finished(run) is None
    except ValueError:  # what is there cannot be read, or is another run's: not ours to replace
        return False


def _result(config: RunConfig, run: Path, parameters: int, outcome: Outcome) -> RunResult:
    failure = outcome.failure
    if failure is None and not math.isfinite(outcome.per_loop[-1].loss):
        failure = Failure(
            message="the loss of the last loop on the validation set is not finite",
            step=outcome.progress.step,
            loop=next(entry.loop for entry in outcome.per_loop if not math.isfinite(entry.loss)),
            l2_norm=tuple(entry.l2_norm for entry in outcome.per_loop),
        )
    records = read_metrics(run)
    curve = [record for record in records if record["kind"] == "train"]
    stride = max(1, math.ceil(len(curve) / CURVE_POINTS))
    kept = curve[::stride] + ([curve[-1]] if curve and (len(curve) - 1) % stride else [])
    return RunResult(
        condition=config.condition,
        size=config.size,
        seed=config.training.seed,
        status="diverged" if failure else "completed",
        parameters=parameters,
        tokens_trained=outcome.progress.tokens,
        steps=outcome.progress.step,
        seconds=outcome.progress.seconds,
        per_loop=outcome.per_loop,
        training=tuple(decode(TrainPoint, entry) for entry in kept),
        evaluations=tuple(decode(EvalPoint, entry) for entry in records if entry["kind"] == "evaluation"),
        failure=failure,
        phases=phases_taken(records, outcome.progress.step),
        config=config.model_dump(mode="json"),
        provenance=provenance(outcome.device, config.training.threads),
    )
