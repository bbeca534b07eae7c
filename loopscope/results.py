"""Frozen records of what was run and measured, and their round-trip through JSON.

Standard library only, so that reports and scripts can read results without loading torch. Every figure
that Loopscope draws comes from these records, never from live objects.
"""

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

SCHEMA = 1
Status = Literal["completed", "diverged", "failed"]


@dataclass(frozen=True)
class LoopMetrics:
    """What one exit is worth on the validation set, and how large the state behind it is."""

    loop: int  # 1-based
    loss: float  # mean cross-entropy, nats per token
    perplexity: float  # exp(loss); depends on the tokenizer
    bits_per_byte: float  # loss in bits per byte of the original text; does not
    l2_norm: float  # mean over tokens of the L2 norm of H_k
    rms: float  # mean over tokens of s_k, the root mean square of H_k over dim


@dataclass(frozen=True)
class TrainPoint:
    """One logged training step: the loss and every loop's scale at that moment."""

    step: int
    loss: float
    l2_norm: tuple[float, ...]  # per loop, mean over tokens of the batch


@dataclass(frozen=True)
class EvalPoint:
    """One evaluation during training."""

    step: int
    per_loop: tuple[LoopMetrics, ...]


@dataclass(frozen=True)
class Failure:
    """Why a run ended early. A diverged run is a result, not a lost grid."""

    message: str
    step: int | None = None
    loop: int | None = None  # first loop whose state or loss was not finite
    l2_norm: tuple[float, ...] = ()
    last_checkpoint: str | None = None


@dataclass(frozen=True)
class Provenance:
    """When, where and with what a record was made."""

    date: str  # ISO 8601, UTC
    versions: Mapping[str, str]
    git: str | None  # commit of the working directory, "+" when it had uncommitted changes
    platform: str
    device: str
    threads: int | None
    command: str


@dataclass(frozen=True)
class RunResult:
    """One run: one condition, size and seed."""

    condition: str
    size: str
    seed: int
    status: Status
    parameters: int
    tokens_trained: int
    steps: int
    seconds: float
    per_loop: tuple[LoopMetrics, ...]  # final evaluation; empty when the run did not complete
    training: tuple[TrainPoint, ...] = ()  # thinned to at most a few hundred points
    evaluations: tuple[EvalPoint, ...] = ()
    failure: Failure | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def drift(self) -> float | None:
        """s_K / s_1 at the final evaluation."""
        if not self.per_loop or self.per_loop[0].rms == 0:
            return None
        return self.per_loop[-1].rms / self.per_loop[0].rms


@dataclass(frozen=True)
class StudyResults:
    """All runs of one study folder (or of one run folder, as a study of one)."""

    runs: tuple[RunResult, ...]
    provenance: Provenance
    schema: int = SCHEMA


def provenance(device: str = "cpu", threads: int | None = None) -> Provenance:
    """Describe this moment on this machine. Never raises: what cannot be found is left out."""
    versions = {"python": platform.python_version()}
    for package in ("loopscope", "torch", "numpy", "tokenizers"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return Provenance(
        date=datetime.now(UTC).isoformat(timespec="milliseconds"),
        versions=versions,
        git=_git_commit(),
        platform=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        device=device,
        threads=threads,
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )


def _git_commit() -> str | None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def to_json(record: Any) -> str:
    """Serialise a record. JSON has no NaN or infinity: both are written as null and read back as NaN."""
    return json.dumps(_finite(asdict(record)), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def study_from_json(text: str) -> StudyResults:
    """Read what `to_json` wrote.

    Raises:
        ValueError: not a results file, of a schema this version does not read, or with a key missing.
    """
    data = _json_object(text)
    if data.get("schema") != SCHEMA:
        raise ValueError(f"results have schema {data.get('schema')!r}; this version reads schema {SCHEMA}")
    return StudyResults(
        runs=tuple(_run(run) for run in data["runs"]), provenance=Provenance(**data["provenance"])
    )


def run_from_json(text: str) -> RunResult:
    """Read one run's `result.json`."""
    return _run(_json_object(text))


def load_results(path: str | Path) -> StudyResults:
    """Results of a study folder (`results.json`), a run folder (`result.json`) or one of those files.

    Raises:
        ValueError: nothing to read there, or not results; says what was looked for.
    """
    path = Path(path)
    candidates = [path] if path.is_file() else [path / "results.json", path / "result.json"]
    for candidate in candidates:
        if not candidate.is_file():
            continue
        text = candidate.read_text(encoding="utf-8")
        try:
            if "runs" in _json_object(text):
                return study_from_json(text)
            run = run_from_json(text)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{candidate} is not a results file of Loopscope: {error}") from error
        return StudyResults(runs=(run,), provenance=run.provenance or provenance())
    looked = " or ".join(str(candidate) for candidate in candidates)
    raise ValueError(
        f"no results at {path}: looked for {looked}. Train first: loopscope train or loopscope study."
    )


def _json_object(text: str) -> dict[str, Any]:
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, got {type(data).__name__}")
    return data


def _run(data: Mapping[str, Any]) -> RunResult:
    known = {entry.name for entry in fields(RunResult)}
    values = {key: value for key, value in data.items() if key in known}
    values["per_loop"] = loops_from_json(data["per_loop"])
    values["training"] = tuple(map(train_point_from_json, data.get("training", ())))
    values["evaluations"] = tuple(map(eval_point_from_json, data.get("evaluations", ())))
    if data.get("failure"):
        values["failure"] = Failure(
            **{**data["failure"], "l2_norm": _numbers(data["failure"].get("l2_norm", ()))}
        )
    if data.get("provenance"):
        values["provenance"] = Provenance(**data["provenance"])
    return RunResult(**values)


def loops_from_json(entries: Any) -> tuple[LoopMetrics, ...]:
    """Metrics per loop from their JSON objects."""
    return tuple(
        LoopMetrics(loop=entry["loop"], **{key: _number(entry[key]) for key in entry if key != "loop"})
        for entry in entries
    )


def train_point_from_json(entry: Mapping[str, Any]) -> TrainPoint:
    """A logged step from its JSON object; further keys are left out."""
    return TrainPoint(step=entry["step"], loss=_number(entry["loss"]), l2_norm=_numbers(entry["l2_norm"]))


def eval_point_from_json(entry: Mapping[str, Any]) -> EvalPoint:
    """An evaluation from its JSON object; further keys are left out."""
    return EvalPoint(step=entry["step"], per_loop=loops_from_json(entry["per_loop"]))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(_number(value) for value in values)
