"""The report of a study or a run: results, figures, and the evaluations and audits that lie beside the runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from loopscope.report.audits.section import build_audit_section
from loopscope.report.evaluations.section import build_evaluation_section
from loopscope.report.found import find_audits, find_evaluations
from loopscope.report.html import origins, page_path, render, write
from loopscope.report.plots.to_matplotlib import save_hero
from loopscope.report.study.conditions import RUNAWAY_DRIFT, RUNAWAY_SIZE, StudyCondition, group_runs
from loopscope.report.study.figures import build_figures
from loopscope.report.study.findings import findings
from loopscope.report.study.table import headline
from loopscope.results import StudyResults, load_results
from loopscope.results.layout import FIGURES, REPORT

HERO = ("scale-last-loop", "perplexity-by-loop")


def write_report(source: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a study folder, a run folder or a results file; return its path.

    Audits and evaluations (`audit.json`, `evaluation.json` in the folder or in its runs' folders, `comparison.json`
    in the folder) become sections of the page.

    Args:
        out: the page's path; `report.html` in the folder by default. Figures go to `figures/` beside it.

    Raises:
        ValueError: no results there, or `out` is a folder.
    """
    source = Path(source)
    results = load_results(source)
    folder = source if source.is_dir() else source.parent
    page = page_path(folder / REPORT if out is None else Path(out), REPORT)
    conditions = group_runs(results.runs)
    figures = build_figures(conditions)
    audit_files = find_audits(folder)
    audit = build_audit_section(audit_files.audits) if audit_files.audits else None
    evaluated = find_evaluations(folder)
    evaluation = build_evaluation_section(evaluated, conditions)
    drawn = [*figures, *(evaluation.figures if evaluation else ()), *(audit.figures if audit else ())]
    text = render(
        "page.html.j2",
        drawn,
        title=folder.resolve().name,
        figures=figures,
        evaluation=evaluation,
        unread_evaluations=evaluated.unread,
        audit=audit,
        unread=audit_files.unread,
        **_study(results, conditions),
    )
    if hero := [figure for key in HERO for figure in figures if figure.key == key]:
        save_hero(hero, page.parent / FIGURES)
    write(page, text, drawn)
    return page


def _study(results: StudyResults, conditions: Sequence[StudyCondition]) -> dict[str, Any]:
    """What the template shows of the runs themselves."""
    return {
        "findings": findings(conditions),
        "table": headline(conditions),
        "endings": [run for run in results.runs if run.status != "completed"],
        "runs": [(run, yaml.safe_dump(dict(run.config), sort_keys=False)) for run in results.runs],
        "provenance": results.provenance,
        "origins": origins([run.provenance for run in results.runs]),
        "runaway": f"{RUNAWAY_SIZE:.0f}",
        "drift": f"{RUNAWAY_DRIFT:g}",
        "seeds": max((len(condition.completed) for condition in conditions), default=0),
    }
