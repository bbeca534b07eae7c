"""The site of the docs: built strictly, with every page in its navigation and every public name in its reference."""

import ast
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
CONFIG = (ROOT / "zensical.toml").read_text()
NOT_LIBRARY = {"loopscope.cli"}  # its reference is `--help`

needs_zensical = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("zensical", "mkdocstrings")),
    reason="the extra `docs` is not installed",
)


def pages_of(nav: Any) -> Iterator[str]:
    """Paths that a navigation names, at any depth."""
    for entry in nav.values() if isinstance(nav, dict) else nav:
        if isinstance(entry, str):
            yield entry
        else:
            yield from pages_of(entry)


def links_of(page: Path) -> list[str]:
    """Targets of links and pictures that lead to files, without their anchors."""
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    return [link for link in found if not link.startswith("https://")]


def build(folder: Path, config: str) -> subprocess.CompletedProcess[str]:
    """A strict build of `folder` with this text as its config."""
    (folder / "zensical.toml").write_text(config)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"NO_COLOR": "1"})


def inventory(site: Path) -> set[str]:
    """Every name that the reference has a heading for (`objects.inv`: four lines of text, then zlib)."""
    _, _, packed = (site / "objects.inv").read_bytes().partition(b"zlib.\n")
    return {line.split()[0] for line in zlib.decompress(packed).decode().splitlines() if line}


def public_names() -> Iterator[tuple[str, str]]:
    """Packages of the library with the names of their `__all__`."""
    for path in sorted((ROOT / "loopscope").rglob("__init__.py")):
        package = ".".join(path.parent.relative_to(ROOT).parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                yield from ((package, name) for name in ast.literal_eval(node.value))


def missing_from(names: set[str]) -> list[str]:
    """Public names without a heading, neither under their package's name nor where they are defined."""
    missing = []
    for package, name in public_names():
        if package in NOT_LIBRARY or f"{package}.{name}" in names:
            continue
        thing = getattr(importlib.import_module(package), name)
        called = isinstance(thing, ModuleType)  # `loopscope.audit`, a package that is its own main function
        module = thing.__name__ if called else getattr(thing, "__module__", package)
        home = f"{module}.{name}"
        missing += [] if home in names else [f"{package}.{name}"]
    return missing


def test_the_navigation_names_every_page_and_none_that_is_not_there() -> None:
    named = list(pages_of(tomllib.loads(CONFIG)["project"]["nav"]))
    assert len(set(named)) == len(named)
    listed = {f"results/{link}" for link in links_of(DOCS / "results" / "README.md")}
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert set(named) | listed == there, (
        "a page is named in zensical.toml, a result in docs/results/README.md"
    )


def test_links_stay_in_the_site() -> None:
    """The strict build passes over pictures, folders and files that are no pages."""
    for page in DOCS.rglob("*.md"):
        for link in links_of(page):
            target = (page.parent / link).resolve()
            assert target.is_file(), f"{page.name}: {link}"
            assert target.is_relative_to(DOCS), (
                f"{page.name}: {link} is not in the site; name it in backticks"
            )


@needs_zensical
@pytest.mark.slow
def test_the_site_builds_and_its_reference_has_every_public_name(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    (tmp_path / "loopscope").symlink_to(ROOT / "loopscope")
    # Broken over several lines, signatures read better, and take a process of ruff each: most of the time.
    done = build(tmp_path, CONFIG.replace("separate_signature = true", "separate_signature = false"))
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "build" / "site"
    assert "readout" in (site / "search.json").read_text()
    names = inventory(site)
    assert missing_from(names) == [], "name the package on a page of docs/api"
    without = {name for name in names if not name.endswith(".cost")}
    assert missing_from(without) == ["loopscope.plan.cost"]


@needs_zensical
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[a page](nowhere.md)", "page does not exist"),
        ("[a part](index.md#nothing)", "anchor does not exist"),
    ],
)
def test_a_broken_link_fails_the_build(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Home\n\n{text}\n")
    done = build(tmp_path, '[project]\nsite_name = "Loopscope"\nnav = ["index.md"]\n')
    assert done.returncode != 0
    assert why in done.stdout + done.stderr
