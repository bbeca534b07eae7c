"""From a subject to an audited model: under its own objective, a given one, or the plausible ones."""

from pathlib import Path
from typing import Literal

import torch

from loopscope.audit.audit_report import audit
from loopscope.config.nested import read_yaml
from loopscope.config.objective_text import read_objective
from loopscope.jobs.opened import Subject, parameter_count, token_texts
from loopscope.jobs.text import Probe, probe
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.recurrence import unroll
from loopscope.results import WORST_FIRST, AuditedModel, provenance
from loopscope.results.layout import AUDIT, CONFIG, write_text
from loopscope.training.checkpoint import newest_checkpoint


def audit_subject(
    subject: Subject, objective: str | None, data: str | None, sequences: int, length: int | None
) -> AuditedModel:
    """Audit one model under its own objective, a given one, or the plausible ones."""
    tokens = probe(subject, data, sequences, length)
    origin: Literal["given", "model", "assumed"]
    if objective is not None:
        judged, origin = [parse_objective(objective)], "given"
    elif subject.objective is not None:
        judged, origin = [subject.objective], "model"
    else:
        judged, origin = plausible(subject, tokens), "assumed"
    reports = [
        audit(subject.model, tokens.input_ids, tokens.labels, build_objective(config)) for config in judged
    ]
    reports.sort(key=lambda report: WORST_FIRST.index(report.verdict))
    largest = [token for report in reports[:1] for loop in report.tokens for _, _, token, _ in loop.largest]
    return AuditedModel(
        name=subject.name,
        report=reports[0],
        objective_from=origin,
        others=tuple(reports[1:]),
        data=tokens.text,
        batch=(tokens.input_ids.shape[0], tokens.input_ids.shape[1]),
        parameters=parameter_count(subject.model),
        token_texts=token_texts(subject, largest),
        provenance=provenance("cpu", torch.get_num_threads()),
    )


def plausible(subject: Subject, tokens: Probe) -> list[ObjectiveConfig]:
    """Objectives to assume where nothing says: terminal and dense, and exit-weighted for a model with a gate."""
    with torch.no_grad():
        gated = next(iter(unroll(subject.model, tokens.input_ids[:1], 1))).gate_logit() is not None
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
    placement, *penalties = text.split("+")
    section: dict[str, object] = {"placement": placement}
    for penalty in penalties:
        name, _, value = penalty.partition("=")
        weight, _, target = value.partition("@")
        try:
            numbers = {"weight": float(weight), **({"target": float(target)} if target else {})}
        except ValueError:
            numbers = {}
        if name not in ("norm_penalty", "scale_anchor") or not numbers or (target and name == "norm_penalty"):
            raise ValueError(
                f"objective {text!r}: {penalty!r} is not a penalty; write norm_penalty=WEIGHT or "
                "scale_anchor=WEIGHT@TARGET, as in dense+norm_penalty=0.01"
            )
        section[name] = numbers
    return read_objective(section, f"objective {text!r} (terminal, dense+norm_penalty=0.01, a YAML file, …)")


def keep_audit(path: Path, text: str) -> Path | None:
    """Keep an audit beside the run it is of, for reports; None where the path is no run or cannot be written."""
    if not (path.is_dir() and (path / CONFIG).is_file() and newest_checkpoint(path)):
        return None
    try:
        write_text(path / AUDIT, text)
    except OSError:
        return None
    return path / AUDIT
