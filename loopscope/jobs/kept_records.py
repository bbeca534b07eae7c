"""What was measured before, where something is to be kept: of the same model it is replaced, of another set aside."""

import warnings
from pathlib import Path

from loopscope.jobs.opened import OpenedModel
from loopscope.results import AuditedModel, load_audits, load_evaluation
from loopscope.results.layout import EVALUATION, write_text


def is_of_another(opened: OpenedModel, name: str, fingerprint: str | None) -> bool:
    """Return whether a record is of another model, or of other weights of it: by fingerprint, else by name."""
    if fingerprint is not None and opened.fingerprint is not None:
        return fingerprint != opened.fingerprint
    return name != opened.name


def set_aside(opened: OpenedModel, file: Path, previous: str) -> None:
    """Move an audit that is of another model, or none of Loopscope's, out of the way of a new one, and say so."""
    if not file.is_file():
        return
    try:
        others = [each for each in load_audits(file) if is_of_another(opened, each.name, each.fingerprint)]
        whose = _whose(opened, others[0].name) if others else None
    except ValueError:
        whose = "no audit of Loopscope"
    if whose is not None:
        write_text(file.with_name(previous), file.read_text(encoding="utf-8", errors="replace"))
        warnings.warn(f"{file} was {whose}; it is kept as {previous}", stacklevel=3)


def warn_of_other(opened: OpenedModel, record: str) -> None:
    """Say where what else lies beside a new record is of another model: a page would be of both."""
    file = opened.kept_at / record
    try:
        kept = load_evaluation(file) if record == EVALUATION else _first_audit(file)
    except ValueError:  # whoever shows it says so
        return
    if kept is not None and is_of_another(opened, kept.name, kept.fingerprint):
        warnings.warn(
            f"{file} is {_whose(opened, kept.name)}: measure it again, or keep this one elsewhere (--keep-in)",
            stacklevel=3,
        )


def _first_audit(file: Path) -> AuditedModel | None:
    return load_audits(file)[0] if file.is_file() else None


def _whose(opened: OpenedModel, name: str) -> str:
    return "of other weights of this model" if name == opened.name else f"of another model, {name}"
