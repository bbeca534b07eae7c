"""The README of an exported model, from what its run recorded: what it is, how well it does, how it is loaded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from loopscope.results import AuditedModel, RunResult


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside the run's own result.

    Attributes:
        name: of the model.
        model: settings, by name.
        loops: how many loops run by default.
        data: what it was trained on, by setting: names of corpora and files, no paths.
        verdict: its word and its reason, as measured or as the config says; None where nothing says.
        measured: whether the verdict was measured on these weights.
        end: the token that ends a text; None where none does.
        forced: why the run was not to be exported, and was by force; None where nothing was against it.
        folder: what the example calls the folder.
    """

    name: str
    model: Mapping[str, Any]
    loops: int
    data: Mapping[str, Any]
    verdict: tuple[str, str] | None
    measured: bool
    end: str | None
    forced: str | None
    folder: str


def model_card(facts: CardFacts, result: RunResult | None) -> str:
    """Return the text of a README.md, with what the hub reads at its top."""
    environment = Environment(
        loader=PackageLoader("loopscope", "jobs"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["figure"] = figure
    template = environment.get_template("model_card.md.j2")
    return template.render(facts=facts, result=result, loopscope_version=_version())


def figure(value: float) -> str:
    """Return a number with four digits that count; in words where it is none."""
    if math.isnan(value):
        return "none"
    if math.isinf(value):
        return "infinite"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def measured_verdict(audits: Sequence[AuditedModel]) -> tuple[str, str] | None:
    """Return the verdict of the first audit; None where there is none."""
    return (audits[0].report.verdict, audits[0].report.why) if audits else None


def _version() -> str:
    from loopscope import __version__

    return __version__
