"""A drawing in the formats that papers and pages take. Light to import: who reads a drawing need not draw."""

import re
from dataclasses import dataclass
from pathlib import Path

TITLE = "title"
"""Id of what heads a drawing."""


@dataclass(frozen=True)
class Sheet:
    """A drawing in both formats, and for a page."""

    png: bytes
    svg: str
    untitled: str  # compact SVG without its title and the room for it: a page has its own

    def save(self, directory: Path, key: str) -> list[Path]:
        """Write `<key>.png` and `<key>.svg`."""
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / f"{key}.png", directory / f"{key}.svg"]
        paths[0].write_bytes(self.png)
        paths[1].write_text(self.svg, encoding="utf-8")
        return paths


def without_title(svg: str, above: float) -> str:
    """Return a drawing as compact SVG text without its title.

    Args:
        above: points from the top of the drawing to below its title.
    """
    text = re.sub(rf'<g id="{TITLE}">.*?</g>', "", svg, count=1, flags=re.DOTALL)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    if above and box:
        wide, high = float(box[1]), float(box[2]) - above
        text = text.replace(box[0], f'viewBox="0 {above:.1f} {wide:.1f} {high:.1f}"', 1)
        text = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', rf'\1 height="{high:.1f}pt"', text, count=1)
    return _compact(text)


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
