"""From a path to an audited model: under its own objective, a given one, or the plausible ones."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from loopscope.audit.audit_report import audit_each, judge_each
from loopscope.audit.number_formats import check_formats
from loopscope.audit.wanted_weight import check_wanted_norm
from loopscope.config.nested import read_yaml
from loopscope.config.objective_text import read_objective
from loopscope.evaluation.depth.prognosis import prognose
from loopscope.guards import device_of
from loopscope.interop.huggingface.pretrained import is_transformers_folder
from loopscope.jobs.judged_phase import judged_phase
from loopscope.jobs.kept_records import set_aside, warn_of_other
from loopscope.jobs.opened import OpenedModel, check_one, open_model, parameter_count, token_texts
from loopscope.jobs.run_trackers import add_to_trackers
from loopscope.jobs.run_trend import trend_of
from loopscope.jobs.study_order import ordered_first_runs
from loopscope.jobs.text import TextWindows, some_windows
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Objective, build_objective
from loopscope.objectives.spelling import spelled_section
from loopscope.recurrence import unroll
from loopscope.results import (
    ROUNDED_BY_DEFAULT,
    WORST_FIRST,
    AuditedModel,
    JudgedModel,
    audit_values,
    provenance,
    to_json,
)
from loopscope.results.faults import in_words
from loopscope.results.layout import (
    AUDIT,
    CONFIG,
    EVALUATION,
    PREVIOUS_AUDIT,
    newest_checkpoint,
    write_text,
)

Origin = Literal["given", "model", "assumed"]
"""Where an objective comes from."""

Found = TypeVar("Found")


def audit_paths(
    paths: Sequence[str | Path],
    objective: str | None = None,
    data: str | None = None,
    sequences: int = 8,
    length: int | None = None,
    keep: bool = True,
    keep_in: str | Path | None = None,
    loops: int | None = None,
    rounding: str = ROUNDED_BY_DEFAULT,
    wanted_norm: float | None = None,
) -> Iterator[AuditedModel]:
    """Audit runs, studies (their first seeds), model folders and published files, one after the other.

    Args:
        objective: what all are judged under, as `parse_objective` reads it; None takes each one's own.
        data: as `some_windows` takes it.
        sequences: windows to measure on.
        length: tokens of a window.
        keep: write the audit into each run's folder, and into that of a model of transformers.
        keep_in: the folder in which the audit of one model is kept instead.
        loops: the depth to audit at; the trained one by default. Of another, nothing is kept but in `keep_in`.
        rounding: number formats to try beside fp32, between commas; `none` tries no other.
        wanted_norm: the L2 norm that H is to have over all loops, for the weight of a penalty.

    Raises:
        ValueError: before anything is measured: a path that holds no model, or an objective or a format that is not
            known. After the others were audited: a model that cannot be (weights that are not finite, say).
    """
    if objective is not None:
        parse_objective(objective)
    check_formats(rounding)
    check_wanted_norm(wanted_norm)
    opened = _opened(paths, keep_in, loops)

    def measure(one: OpenedModel) -> AuditedModel:
        return audit_model(one, objective, data, sequences, length, rounding, wanted_norm)

    def audits() -> Iterator[AuditedModel]:
        for model, audited in _each(opened, measure):
            if keep:
                kept = keep_audit(model, audited)
                if kept is not None:
                    add_to_trackers(kept.parent, {"verdict": "\n\n".join(audited.report.lines())}, kept)
            yield audited

    return audits()


def judge_paths(
    paths: Sequence[str | Path],
    objective: str | None = None,
    data: str | None = None,
    sequences: int = 8,
    length: int | None = None,
    loops: int | None = None,
) -> Iterator[JudgedModel]:
    """Measure the verdicts alone of what `audit_paths` audits. Arguments and errors are its; nothing is kept."""
    if objective is not None:
        parse_objective(objective)
    opened = _opened(paths, None, loops)
    return (
        judged
        for _, judged in _each(opened, lambda one: judge_model(one, objective, data, sequences, length))
    )


def _opened(paths: Sequence[str | Path], keep_in: str | Path | None, loops: int | None) -> list[OpenedModel]:
    found = [path for given in paths for path in ordered_first_runs(given)]
    check_one(found, keep_in)
    return [open_model(path, keep_in, loops) for path in found]


def _each(
    opened: Sequence[OpenedModel], measure: Callable[[OpenedModel], Found]
) -> Iterator[tuple[OpenedModel, Found]]:
    """Measure models one by one; those that cannot be are an error after the others."""
    errors: list[ValueError] = []
    for model in opened:
        try:
            outcome = measure(model)
        except ValueError as error:  # a diverged run is no reason to lose the others
            errors.append(error)
            continue
        yield model, outcome
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ValueError(
            f"{len(errors)} of {len(opened)} models could not be audited; the first: {errors[0]}"
        )


def audit_model(
    opened: OpenedModel,
    objective: str | None = None,
    data: str | None = None,
    sequences: int = 8,
    length: int | None = None,
    rounding: str = ROUNDED_BY_DEFAULT,
    wanted_norm: float | None = None,
) -> AuditedModel:
    """Audit one model under its own objective, a given one, or the plausible ones."""
    tokens, judged, origin, notes = _to_measure(opened, objective, data, sequences, length)
    with _named(opened):
        found = audit_each(
            opened.model, tokens.input_ids, tokens.labels, judged, rounding=rounding, wanted_norm=wanted_norm
        )
        deeper = prognose(opened.model, tokens.input_ids, tokens.labels)
    if not opened.at_trained_depth:
        asked = "That is told from the depth that was asked for, not from the trained one."
        if deeper.trained_loops == 1:
            deeper = replace(
                deeper, why="It was asked for at 1 loop, from which nothing of more can be told."
            )
        elif deeper.fate != "not told":
            deeper = replace(deeper, why=f"{deeper.why} {asked}")
    reports = [replace(report, notes=(*notes, *report.notes)) for report in found]
    reports.sort(key=lambda report: WORST_FIRST.index(report.verdict))
    largest = [token for report in reports[:1] for loop in report.tokens for _, _, token, _ in loop.largest]
    return AuditedModel(
        report=reports[0],
        objective_from=origin,
        others=tuple(reports[1:]),
        token_texts=token_texts(opened, largest),
        prognosis=deeper,
        trend=trend_of(opened),
        **_measured_of(opened, tokens),
    )


def judge_model(
    opened: OpenedModel,
    objective: str | None = None,
    data: str | None = None,
    sequences: int = 8,
    length: int | None = None,
) -> JudgedModel:
    """Measure the verdict on one model and no more, under its own objective, a given one, or the plausible ones."""
    tokens, judged, origin, notes = _to_measure(opened, objective, data, sequences, length)
    with _named(opened):
        measured = judge_each(opened.model, tokens.input_ids, tokens.labels, judged)
    found = [replace(judgement, notes=(*notes, *judgement.notes)) for judgement in measured]
    found.sort(key=lambda judgement: WORST_FIRST.index(judgement.verdict))
    return JudgedModel(
        judgement=found[0],
        objective_from=origin,
        others=tuple(found[1:]),
        **_measured_of(opened, tokens),
    )


def _measured_of(opened: OpenedModel, tokens: TextWindows) -> dict[str, Any]:
    """What a record says of the model and the text that were measured, whatever was measured of them."""
    return {
        "name": opened.name,
        "data": tokens.text,
        "batch": (tokens.input_ids.shape[0], tokens.input_ids.shape[1]),
        "parameters": parameter_count(opened.model),
        "provenance": provenance("cpu", torch.get_num_threads()),
        "fingerprint": opened.fingerprint,
    }


def _to_measure(
    opened: OpenedModel, objective: str | None, data: str | None, sequences: int, length: int | None
) -> tuple[TextWindows, list[Objective], Origin, tuple[str, ...]]:
    """Return tokens where the model is, the objectives to judge it under, where they come from, and what to say."""
    tokens = some_windows(opened, data, sequences, length)
    where = device_of(opened.model)
    tokens = replace(tokens, input_ids=tokens.input_ids.to(where), labels=tokens.labels.to(where))
    origin: Origin
    notes: tuple[str, ...] = ()
    if objective is not None:
        judged, origin = [parse_objective(objective)], "given"
    elif opened.objective is not None:
        own, note = judged_phase(opened.objective, opened.path)
        judged, origin, notes = [own], "model", (note,) if note else ()
    else:
        judged, origin = plausible(opened, tokens), "assumed"
    with _named(opened):
        return tokens, [build_objective(config) for config in judged], origin, notes


@contextmanager
def _named(opened: OpenedModel) -> Iterator[None]:
    """Name the model in an error: of several, the one."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{opened.path}: {error}") from error


def plausible(opened: OpenedModel, tokens: TextWindows) -> list[ObjectiveConfig]:
    """Objectives to assume where nothing says: terminal and dense, and exit-weighted for a model with a gate."""
    with torch.no_grad():
        gated = next(iter(unroll(opened.model, tokens.input_ids[:1], 1))).gate_logit() is not None
    names = ["terminal", "dense"]
    if gated:
        names.append("exit-weighted")
    return [ObjectiveConfig(placement=name) for name in names]


def parse_objective(text: str) -> ObjectiveConfig:
    """`dense`, `terminal+norm_penalty=0.01`, `dense+scale_anchor=0.1@2.0`, or a YAML file with an objective.

    Raises:
        ValueError: says which word is not known, and shows the form.
    """
    if text.endswith((".yaml", ".yml")):
        values = read_yaml(Path(text))
        return read_objective(values.get("objective", values), text)
    return read_objective(
        spelled_section(text), f"objective {text!r} (terminal, dense+norm_penalty=0.01, a YAML file, …)"
    )


def keep_audit(opened: OpenedModel, audited: AuditedModel) -> Path | None:
    """Keep an audit beside its run, or its model of transformers, for reports; None where the path is neither.

    None too, with a warning, where it cannot be written: what was measured is not lost for that.
    """
    path = opened.kept_at
    if not opened.keeps:
        return None
    is_run = (path / CONFIG).is_file() and newest_checkpoint(path) is not None
    if not (opened.records or is_run or is_transformers_folder(path)):
        return None
    try:
        set_aside(opened, path / AUDIT, PREVIOUS_AUDIT)
        write_text(path / AUDIT, to_json(audit_values(audited)))
    except OSError as error:
        warnings.warn(
            f"the audit of {audited.name} was measured but not kept: {in_words(error)}", stacklevel=2
        )
        return None
    warn_of_other(opened, EVALUATION)
    return opened.written(path / AUDIT)
