"""What the parts of `loopscope evaluate` ask alike: on which text, on which machine. Light to import."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loopscope.cli.values import check_counts
from loopscope.results import ModelEvaluation, TaskEvaluation, to_json

if TYPE_CHECKING:
    from loopscope.jobs.evaluation_series import IfKnown


@dataclass(frozen=True)
class OnMachine:
    """Options of a command that runs models: on which machine, in which form it prints."""

    batch: int = 16
    """Windows or requests at a time: memory grows with it, results do not change."""
    threads: int | None = None
    """CPU threads; torch's choice by default."""
    device: str = "cpu"
    """auto, cpu, cuda, mps."""
    cpu_ops: Literal["auto", "off"] = "auto"
    """off: plain PyTorch formulas, where fast operations for a CPU would run."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of a transformers folder: type of its weights in memory, auto as stored. Audits measure in fp32 in any case."""
    device_map: str | None = None
    """Of a transformers folder: where its parts go: auto, cuda:0, a JSON object, …; accelerate places them."""
    json: bool = False
    """Print JSON, and nothing else."""


@dataclass(frozen=True)
class OnText(OnMachine):
    """Options of a command that evaluates models on held-out text."""

    data: str | None = None
    """Text files (a path or a glob), stdlib, a Hugging Face dataset, or tokens.safetensors with input_ids.
    By default a run's whole validation text; other models get 256 windows of stdlib."""
    windows: int | None = None
    """At most so many windows, spread evenly."""
    length: int | None = None
    """Tokens of a window; the trained length by default."""


def job_arguments(command: OnText) -> dict[str, Any]:
    """Set a command's threads, and give what it says of text and machine as a job's arguments.

    Raises:
        ValueError: a number below 1.
    """
    check_counts(command, "windows", "length")
    return {
        **{name: getattr(command, name) for name in ("data", "windows", "length")},
        **machine_arguments(command),
    }


def machine_arguments(command: OnMachine) -> dict[str, Any]:
    """Set a command's threads, and give what it says of the machine as a job's arguments.

    Raises:
        ValueError: a number below 1, or two words on where the model goes.
    """
    check_counts(command, "batch", "threads")
    if command.device_map is not None and command.device != "cpu":
        raise ValueError(
            f"device is {command.device} and device-map {command.device_map}: both say where the model goes; give one"
        )
    from loopscope.jobs import load_with, use_cpu_ops, use_threads

    load_with(command.dtype, command.device_map)
    use_threads(command.threads)
    use_cpu_ops(command.cpu_ops)
    return {name: getattr(command, name) for name in ("batch", "device")}


def print_json(evaluations: Sequence[ModelEvaluation | TaskEvaluation]) -> None:
    """One evaluation as it is, several as `models`; nothing where there is none."""
    if not evaluations:
        return
    one = len(evaluations) == 1
    print(to_json(evaluations[0] if one else {"models": [asdict(each) for each in evaluations]}))


def measured(
    paths: Sequence[Path],
    measure: Callable[[Path, "IfKnown"], ModelEvaluation],
    title: str,
    again: bool,
    errors: list[ValueError],
) -> Iterator[tuple[Path, ModelEvaluation]]:
    """Measure models one by one, and say how far it is. One that cannot be is put into `errors`: the others are not
    lost for it."""
    from loopscope.jobs import evaluate_series

    for path, outcome in evaluate_series(paths, measure, title, again):
        if isinstance(outcome, ValueError):
            errors.append(outcome)
        else:
            yield path, outcome


def refuse_errors(errors: Sequence[ValueError], models: int) -> None:
    """Raise what was wrong with models that could not be measured, once the others are shown."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ValueError(f"{len(errors)} of {models} models could not be evaluated; the first: {errors[0]}")
