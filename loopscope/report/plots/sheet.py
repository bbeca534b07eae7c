"""A figure drawn with matplotlib: once for PNG, once for SVG and the page."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from loopscope.report.plots.figure import Figure
from loopscope.report.plots.to_matplotlib import STYLE, TITLE, draw

_DPI = 160


@dataclass(frozen=True)
class Sheet:
    """A drawing in both formats. `above`: points of it from the top to below its title."""

    png: bytes
    svg: str
    above: float

    def save(self, directory: Path, key: str) -> list[Path]:
        """Write `<key>.png` and `<key>.svg`."""
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / f"{key}.png", directory / f"{key}.svg"]
        paths[0].write_bytes(self.png)
        paths[1].write_text(self.svg, encoding="utf-8")
        return paths

    def untitled(self) -> str:
        """Return the drawing as compact SVG text without its title and the room for it: a page has its own."""
        text = re.sub(rf'<g id="{TITLE}">.*?</g>', "", self.svg, count=1, flags=re.DOTALL)
        top = self.above
        box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
        if top and box:
            wide, high = float(box[1]), float(box[2]) - top
            text = text.replace(box[0], f'viewBox="0 {top:.1f} {wide:.1f} {high:.1f}"', 1)
            text = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', rf'\1 height="{high:.1f}pt"', text, count=1)
        return _compact(text)


def sheet(figures: Sequence[Figure], title: str | None) -> Sheet:
    """Draw figures side by side. `title` heads them all; None heads each with its own.

    They are laid out once: `savefig` does that several times, and once for each format.
    """
    canvas = draw(figures, title)
    with matplotlib.rc_context(STYLE):
        engine = canvas.get_layout_engine()
        if engine is not None:
            engine.execute(canvas)
        canvas.set_layout_engine("none")  # what fits one format fits the other
        above = _title_points(canvas)
        return Sheet(_png(canvas), _svg(canvas), above)


def _png(canvas: Canvas) -> bytes:
    canvas.dpi, before = _DPI, canvas.dpi
    buffer = io.BytesIO()
    FigureCanvasAgg(canvas).print_png(buffer)  # type: ignore[no-untyped-call]
    canvas.dpi = before
    return buffer.getvalue()


def _svg(canvas: Canvas) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(canvas).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _title_points(canvas: Canvas) -> float:
    """Points from the top of the drawing to below its title."""
    title = next((text for text in canvas.texts if text.get_gid() == TITLE), None)
    if title is None:
        return 0.0
    below: float = title.get_window_extent().y0
    return (canvas.bbox.height - below) * 72 / canvas.dpi


def _compact(text: str) -> str:
    """Half the size: places to a tenth of a point, no comments, no names of parts. What is written stays as it is."""
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*\n\s*", " ", text)
    text = re.sub(
        r' transform="rotate\(-0 [^"]*"| id="[a-zA-Z0-9.]+_\d+"', "", text
    )  # neither is referred to
    family = "font-family: 'DejaVu Sans', sans-serif"
    text = text.replace(f"; {family}", "").replace("</style>", f" text{{{family}}}</style>", 1)
    # Points that look the same say so once: what a group has, its members inherit.
    alike = r'<g([^>]*)>((?: <use [^>]*style="([^"]*)"/>)(?: <use [^>]*style="\3"/>)*) </g>'
    text = re.sub(
        alike, lambda g: f'<g{g[1]} style="{g[3]}">' + g[2].replace(f' style="{g[3]}"', "") + "</g>", text
    )
    return re.sub(r"<[^>]+>", lambda tag: re.sub(r"-?\d+\.\d{2,}", _tenths, tag[0]), text)


def _tenths(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")
