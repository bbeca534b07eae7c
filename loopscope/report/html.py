"""What every page of reports is made with: ONE HTML file that works offline, and figures as PNG and SVG beside it.

Plotly's script is embedded compressed (1.5 MB instead of 4.8) and unpacked by the browser's own
DecompressionStream. Where there is no script, or no such stream, and on paper, the static figures are shown.
Everything that comes from results is untrusted text: the templates escape it, and inside the data block
every `<` is written as \\u003c.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from loopscope.report.plots.figure import Figure
from loopscope.report.plots.to_matplotlib import save, svg
from loopscope.report.plots.to_plotly import to_plotly
from loopscope.report.study.table import number
from loopscope.results import Provenance
from loopscope.results.layout import FIGURES, write_text


@dataclass(frozen=True)
class Panel:
    """One figure on the page: its static picture, replaced where the interactive one can be drawn."""

    key: str
    title: str
    caption: str
    picture: str  # data URI
    wide: bool
    least: int  # pixels below which it scrolls
    height: int


def panel(figure: Figure) -> Panel:
    """Return a figure with its static picture, ready for a template."""
    picture = "data:image/svg+xml;base64," + base64.b64encode(svg(figure).encode()).decode()
    count = len(figure.panels)
    least = figure.least or (190 * count if count > 1 else 480 if figure.areas and figure.wide else 0)
    return Panel(figure.key, figure.title, figure.caption, picture, figure.wide, least, figure.height)


def render(template: str, drawn: Sequence[Figure], **values: Any) -> str:
    """Render a page as text.

    Args:
        template: its file name in this package.
        drawn: every figure of the page; the template shows them with its `panel` filter.
        values: what else the template names.
    """
    environment = Environment(
        loader=PackageLoader("loopscope.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "panel": panel}
    return environment.get_template(template).render(
        css=Markup(_asset("page.css") + _asset("audit.css") + _asset("evaluation.css")),
        script=Markup(_asset("page.js")),
        data=Markup(_json({figure.key: to_plotly(figure) for figure in drawn})),
        plotly=Markup(_plotly() if drawn else ""),
        **values,
    )


def page_path(out: str | Path, example: str) -> Path:
    """Return where a page goes, with its folder made.

    Raises:
        ValueError: it is a folder already.
    """
    page = Path(out)
    if page.is_dir():
        raise ValueError(f"out is {page}, a folder; name a file, such as {page / example}")
    page.parent.mkdir(parents=True, exist_ok=True)
    return page


def write(page: Path, text: str, figures: Sequence[Figure]) -> None:
    """Write the page, complete or not at all, and its figures in `figures/` beside it."""
    for figure in figures:
        save(figure, page.parent / FIGURES)
    write_text(page, text)


def origins(made: Sequence[Provenance | None]) -> list[dict[str, str]]:
    """Return what was run on what, one line per different machine, device or version."""
    seen: dict[str, dict[str, str]] = {}
    for p in made:
        if p is None:
            continue
        line = {
            "platform": p.platform,
            "device": p.device,
            "threads": str(p.threads or "not set"),
            "versions": ", ".join(f"{name} {version}" for name, version in p.versions.items()),
            "git": f"{p.git or 'unknown commit'}" + (f", sources {p.source}" if p.source else ""),
        }
        entry = seen.setdefault(json.dumps(line), {**line, "first": p.date, "last": p.date})
        entry["first"], entry["last"] = min(entry["first"], p.date), max(entry["last"], p.date)
    return list(seen.values())


def _json(value: Any) -> str:
    """JSON for a script element: nothing in it can close the element or open a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


@cache
def _plotly() -> str:
    import plotly

    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(script.read_bytes(), 9, mtime=0)).decode()


def _asset(name: str) -> str:
    return (resources.files("loopscope.report") / name).read_text(encoding="utf-8")
