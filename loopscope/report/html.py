"""What every page of reports is made with: ONE HTML file that works offline, and figures as PNG and SVG beside it.

Plotly's script is embedded compressed (1.5 MB instead of 4.8) and unpacked by the browser's own
DecompressionStream. Where there is no script, or no such stream, and on paper, the static figures are shown.
Everything that comes from results is untrusted text: the templates escape it, and inside the data block
every `<` is written as \\u003c.
"""

import base64
import gzip
import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from loopscope.report.glossary import heading_keys, linker, words_of
from loopscope.report.plots.drawing import Drawing, Job
from loopscope.report.plots.figure import Figure
from loopscope.report.plots.sheet import Sheet
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


@dataclass(frozen=True)
class RenderedPage:
    """A page as text, and its figures, each drawn once for the page and for the files beside it."""

    text: str
    sheets: Mapping[str, Sheet]

    def write(self, page: Path) -> None:
        """Write the page, complete or not at all, and its figures in `figures/` beside it."""
        for key, drawn in self.sheets.items():
            drawn.save(page.parent / FIGURES, key)
        write_text(page, self.text)


def render(
    template: str,
    drawn: Sequence[Figure],
    parts: Collection[str],
    drawing: Drawing | None = None,
    beside: Sequence[Job] = (),
    **values: Any,
) -> RenderedPage:
    """Render a page as text.

    Args:
        template: its file name in this package.
        drawn: every figure of the page; the template shows them with its `panel` filter.
        parts: which parts the page has: their words are listed, and linked where they are mentioned.
        drawing: what draws the figures, where it was started before.
        beside: drawings that are files beside the page alone.
        values: what else the template names.
    """
    environment = Environment(
        loader=PackageLoader("loopscope.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jobs = [*(Job(figure.key, (figure,), figure.title) for figure in drawn), *beside]
    words = words_of(parts)
    place = secrets.token_hex(16)  # what no text of a record can hold
    environment.filters |= {
        "number": number,
        "panel": lambda figure: _panel(figure, f"{place}{figure.key};"),
        "terms": linker(words),
        "term": heading_keys(words),
        "commands": _commands,
        "breakable": _breakable,
    }
    with drawing or Drawing(len(jobs)) as begun:
        begun.begin(jobs)  # by others, while the text is made here
        text = environment.get_template(template).render(
            css=Markup("".join(map(_asset, ("page.css", "audit.css", "evaluation.css", "lens.css")))),
            script=Markup(_asset("page.js")),
            data=Markup(_json({figure.key: to_plotly(figure) for figure in drawn})),
            plotly=Markup(_plotly() if drawn else ""),
            words=words,
            **values,
        )
        sheets = begun.sheets()
    pictures = re.sub(f"{place}(.*?);", lambda found: _picture(sheets[found[1]]), text)
    return RenderedPage(pictures, sheets)


def _panel(figure: Figure, picture: str) -> Panel:
    count = len(figure.panels)
    least = figure.least or (190 * count if count > 1 else 480 if figure.areas and figure.wide else 0)
    return Panel(figure.key, figure.title, figure.caption, picture, figure.wide, least, figure.height)


def _picture(drawn: Sheet) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.untitled.encode()).decode()


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


def _commands(text: str) -> Markup:
    """Text escaped, with what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _breakable(name: str) -> Markup:
    """A name escaped, which may go on in the next line after a sign that is no letter."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[/+_:,-])(?=\w)", name))


def _json(value: Any) -> str:
    """JSON for a script element: nothing in it can close the element or open a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


@cache
def _plotly() -> str:
    found = find_spec("plotly")  # importing it takes longer than to read the script
    assert found is not None
    assert found.origin is not None
    script = Path(found.origin).parent / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(script.read_bytes(), 6, mtime=0)).decode()


def _asset(name: str) -> str:
    return (resources.files("loopscope.report") / name).read_text(encoding="utf-8")
