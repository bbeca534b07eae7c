"""The report: ONE HTML file that works offline, and every figure as PNG and SVG beside it.

Plotly's script is embedded compressed (1.5 MB instead of 4.8) and unpacked by the browser's own
DecompressionStream. Where there is no script, or no such stream, the static figures stay on the page.
Everything that comes from results is untrusted text: the template escapes it, and inside the data block
every `<` is written as \\u003c.
"""

import base64
import gzip
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, select_autoescape
from markupsafe import Markup

from loopscope.report.figures import Figure
from loopscope.report.findings import findings
from loopscope.report.interactive import to_plotly
from loopscope.report.static import save, save_hero, svg
from loopscope.report.statistics import RUNAWAY_DRIFT, RUNAWAY_SIZE, Condition, group
from loopscope.report.study_figures import build_figures
from loopscope.report.tables import headline, number
from loopscope.results import RunResult, StudyResults, load_results

HERO = ("scale-last-loop", "perplexity-by-loop")


@dataclass(frozen=True)
class Panel:
    """One figure on the page: its static picture, replaced where the interactive one can be drawn."""

    key: str
    title: str
    caption: str
    picture: str  # data URI
    wide: bool
    least: int  # pixels below which it scrolls


def write_report(source: Path, out: Path | None = None) -> Path:
    """Write the page for a study folder, a run folder or a results file.

    Args:
        out: the page's path; `report.html` in the folder by default. Figures go to `figures/` beside it.

    Raises:
        ValueError: no results there, or `out` is a folder.
    """
    source = Path(source)
    results = load_results(source)
    folder = source if source.is_dir() else source.parent
    page = folder / "report.html" if out is None else Path(out)
    if page.is_dir():
        raise ValueError(f"out is {page}, a folder; name a file, such as {page / 'report.html'}")
    page.parent.mkdir(parents=True, exist_ok=True)
    conditions = group(results.runs)
    figures = build_figures(conditions)
    for figure in figures:
        save(figure, page.parent / "figures")
    if hero := [figure for key in HERO for figure in figures if figure.key == key]:
        save_hero(hero, page.parent / "figures")
    text = render(results, conditions, figures, title=folder.resolve().name)
    writing = page.with_name(f".{page.name}.writing")
    writing.write_text(text, encoding="utf-8")
    os.replace(writing, page)
    return page


def render(
    results: StudyResults, conditions: Sequence[Condition], figures: Sequence[Figure], title: str
) -> str:
    """The page as text."""
    environment = Environment(autoescape=select_autoescape(default=True), undefined=StrictUndefined)
    environment.filters["number"] = number
    template = environment.from_string(_asset("page.html.j2"))
    return template.render(
        title=title,
        findings=findings(conditions),
        table=headline(conditions),
        panels=[
            Panel(f.key, f.title, f.caption, _data_uri(svg(f)), f.wide, 190 * len(f.panels)) for f in figures
        ],
        endings=[run for run in results.runs if run.status != "completed"],
        runs=[(run, yaml.safe_dump(dict(run.config), sort_keys=False)) for run in results.runs],
        provenance=results.provenance,
        origins=_origins(results.runs),
        runaway=f"{RUNAWAY_SIZE:.0f}",
        drift=f"{RUNAWAY_DRIFT:g}",
        seeds=max((len(condition.completed) for condition in conditions), default=0),
        css=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        data=Markup(_json({figure.key: to_plotly(figure) for figure in figures})),
        plotly=Markup(_plotly() if figures else ""),
    )


def _origins(runs: Sequence[RunResult]) -> list[Mapping[str, str]]:
    """What was run on what, one line per different machine, device or version."""
    seen: dict[str, dict[str, str]] = {}
    for run in runs:
        if run.provenance is None:
            continue
        p = run.provenance
        line = {
            "platform": p.platform,
            "device": p.device,
            "threads": str(p.threads or "not set"),
            "versions": ", ".join(f"{name} {version}" for name, version in p.versions.items()),
            "git": p.git or "unknown",
        }
        entry = seen.setdefault(json.dumps(line), {**line, "first": p.date, "last": p.date})
        entry["first"], entry["last"] = min(entry["first"], p.date), max(entry["last"], p.date)
    return list(seen.values())


def _json(value: Any) -> str:
    """JSON for a script element: nothing in it can close the element or open a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _data_uri(text: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def _plotly() -> str:
    import plotly

    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(script.read_bytes(), 9, mtime=0)).decode()


def _asset(name: str) -> str:
    return (resources.files("loopscope.report") / name).read_text(encoding="utf-8")
