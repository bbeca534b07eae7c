"""The audits, the evaluations and the comparison that lie in the folders of a study and of its runs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from loopscope.report.looks import condition_of
from loopscope.results import (
    AuditedModel,
    Comparison,
    ModelEvaluation,
    TaskEvaluation,
    load_audits,
    load_comparison,
    load_evaluation,
    load_tasks,
    model_fingerprint,
)
from loopscope.results.layout import AUDIT, EVALUATION, TASKS, run_files, seed_of


@dataclass(frozen=True)
class AuditFiles:
    """Audits in the order in which a page shows them, and the files that could not be read, each with why."""

    audits: tuple[AuditedModel, ...]
    unread: tuple[str, ...]


def find_audits(folder: str | Path) -> AuditFiles:
    """Find `audit.json` in a run's folder, or those of a study's runs, first seeds first.

    Figures show the first few models: in this order those are of different conditions. A file that is not an
    audit is named on the page and costs nobody the report.
    """
    folder = Path(folder)
    audits: list[tuple[AuditedModel, Path]] = []
    unread = []
    for path in run_files(folder, AUDIT):
        try:
            audits += [(audited, path.parent) for audited in load_audits(path)]
        except ValueError as error:
            unread.append(str(error).replace(f"{folder}/", ""))
    return AuditFiles(tuple(_with_seeds(audits)), tuple(unread))


def _with_seeds(audits: list[tuple[AuditedModel, Path]]) -> list[AuditedModel]:
    """Names with the seed (`dense/raw, seed 0`) where a condition has several models, the first of them too."""
    conditions = [condition_of(audited.name) for audited, _ in audits]
    return [
        replace(audited, name=f"{condition}, seed {seed}")
        if conditions.count(condition) > 1 and (seed := seed_of(folder)) is not None
        else audited
        for condition, (audited, folder) in zip(conditions, audits, strict=True)
    ]


@dataclass(frozen=True)
class EvaluationFiles:
    """Evaluations, first seeds first, the comparison, files that could not be read, each with why, and benchmarks."""

    evaluations: tuple[ModelEvaluation, ...]
    comparison: Comparison | None
    unread: tuple[str, ...]
    tasks: tuple[TaskEvaluation, ...] = ()


def find_evaluations(folder: str | Path) -> EvaluationFiles:
    """Find `evaluation.json` and `tasks.json` in a run's folder or in those of a study's runs, and `comparison.json`.

    A file that is none is named on the page and costs nobody the report.
    """
    folder = Path(folder)
    comparison = None
    unread: list[str] = []
    evaluations = _records(folder, EVALUATION, load_evaluation, unread)
    tasks = _records(folder, TASKS, load_tasks, unread)
    try:
        comparison = load_comparison(folder)
    except ValueError as error:
        unread.append(str(error).replace(f"{folder}/", ""))
    return EvaluationFiles(tuple(evaluations), comparison, tuple(unread), tuple(tasks))


_Record = TypeVar("_Record")


def _records(
    folder: Path, name: str, load: Callable[[Path], _Record | None], unread: list[str]
) -> list[_Record]:
    """Records of one name, first seeds first; those that cannot be read go to `unread`, each with why."""
    found = []
    for path in run_files(folder, name):
        try:
            if (record := load(path)) is not None:
                found.append(record)
        except ValueError as error:
            unread.append(str(error).replace(f"{folder}/", ""))
    return found


def check_one_model(folder: str | Path, audits: AuditFiles, evaluated: EvaluationFiles) -> None:
    """Refuse a page of a model's folder whose records are of other weights, or of two models.

    Raises:
        ValueError: says which record is of which model, and what to do.
    """
    folder = Path(folder)
    now = model_fingerprint(folder)
    kept = [(AUDIT, each.name, each.fingerprint) for each in audits.audits]
    kept += [(EVALUATION, each.name, each.fingerprint) for each in evaluated.evaluations]
    kept += [(TASKS, each.name, each.fingerprint) for each in evaluated.tasks]
    known = [(record, name, there) for record, name, there in kept if there is not None]
    for record, name, there in known if now is not None else ():
        if there != now:
            raise ValueError(
                f"{folder / record} was measured of other weights or settings than {folder} has now (of {name}): "
                f"measure again, or move {record} away"
            )
    if len({there for _, _, there in known}) > 1:
        (one, first, there), *rest = known
        other, second, _ = next(entry for entry in rest if entry[2] != there)
        raise ValueError(
            f"{folder} keeps what was measured of two models: {one} of {first}, {other} of {second}. Keep each model's "
            f"in a folder of its own, or measure one of them again there (--keep-in {folder})"
        )
