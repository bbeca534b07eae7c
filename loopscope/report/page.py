"""The report of a study or a run: results, figures, and the audits that lie beside the runs."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from loopscope.report.audits.found import FoundAudits, find_audits
from loopscope.report.audits.section import AuditSection, build_section
from loopscope.report.figures import Figure
from loopscope.report.findings import findings
from loopscope.report.sheet import origins, page_path, render, write
from loopscope.report.static import save_hero
from loopscope.report.statistics import RUNAWAY_DRIFT, RUNAWAY_SIZE, Condition, group
from loopscope.report.study_figures import build_figures
from loopscope.report.tables import headline
from loopscope.results import StudyResults, load_results

HERO = ("scale-last-loop", "perplexity-by-loop")


def write_report(source: Path, out: Path | None = None) -> Path:
    """Write the page for a study folder, a run folder or a results file.

    Audits (`audit.json` in the folder or in its runs' folders) become a section of the page.

    Args:
        out: the page's path; `report.html` in the folder by default. Figures go to `figures/` beside it.

    Raises:
        ValueError: no results there, or `out` is a folder.
    """
    source = Path(source)
    results = load_results(source)
    folder = source if source.is_dir() else source.parent
    page = page_path(folder / "report.html" if out is None else Path(out), "report.html")
    conditions = group(results.runs)
    figures = build_figures(conditions)
    found = find_audits(folder)
    audit = build_section(found.audits) if found.audits else None
    text = render_study(results, conditions, figures, found, audit, title=folder.resolve().name)
    if hero := [figure for key in HERO for figure in figures if figure.key == key]:
        save_hero(hero, page.parent / "figures")
    write(page, text, [*figures, *(audit.figures if audit else ())])
    return page


def render_study(
    results: StudyResults,
    conditions: Sequence[Condition],
    figures: Sequence[Figure],
    found: FoundAudits,
    audit: AuditSection | None,
    title: str,
) -> str:
    """The page as text."""
    return render(
        "page.html.j2",
        [*figures, *(audit.figures if audit else ())],
        title=title,
        findings=findings(conditions),
        table=headline(conditions),
        figures=figures,
        audit=audit,
        unread=found.unread,
        endings=[run for run in results.runs if run.status != "completed"],
        runs=[(run, yaml.safe_dump(dict(run.config), sort_keys=False)) for run in results.runs],
        provenance=results.provenance,
        origins=origins([run.provenance for run in results.runs]),
        runaway=f"{RUNAWAY_SIZE:.0f}",
        drift=f"{RUNAWAY_DRIFT:g}",
        seeds=max((len(condition.completed) for condition in conditions), default=0),
    )
