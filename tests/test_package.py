"""The package as a whole: its version, its old names, its command line as a module, what its wheel carries."""

import ast
import dataclasses
import re
import subprocess
import sys
import tomllib
import warnings
import zipfile
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from packaging.version import Version

import loopscope

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_is_written_once() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "loopscope.__version__"}
    written = [
        path.relative_to(ROOT)
        for path in [*ROOT.glob("*.toml"), *ROOT.glob("*.cff"), *(ROOT / "loopscope").rglob("*.py")]
        if re.search(rf"""version[\W_]+["']?{re.escape(loopscope.__version__)}""", path.read_text())
    ]
    assert written == [Path("loopscope/__init__.py")]
    assert metadata.version("loopscope") == loopscope.__version__


def test_public_names_are_listed() -> None:
    assert set(loopscope.__all__) <= set(dir(loopscope))


def test_the_changelog_tells_of_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[:2] == ["Unreleased", loopscope.__version__]


@pytest.mark.smoke
@pytest.mark.parametrize("module", ["loopscope", "loopscope.cli"])
def test_python_m_is_the_command_line(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, loopscope.__version__, "")
    done = subprocess.run([sys.executable, "-m", module, "trian"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("loopscope: ")
    assert "train" in done.stderr


def test_an_old_name_is_the_new_one_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loopscope._RENAMED, "iterate", ("loopscope.recurrence.unroll", "9.0"))
    with pytest.warns(FutureWarning) as said:
        first = loopscope.iterate
    assert first is loopscope.unroll
    assert str(said[0].message) == (
        "loopscope.iterate is now loopscope.recurrence.unroll; the old name goes in loopscope 9.0"
    )
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loopscope.iterate is loopscope.unroll
    with pytest.raises(AttributeError, match="no attribute 'iterated'"):
        _ = loopscope.iterated


def drops(source: str) -> list[str]:
    """The versions that old names go in, as `renamed(…, removed_in="…")` in a module's source says."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        ast.literal_eval(keyword.value)
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "removed_in" and isinstance(keyword.value, ast.Constant)
    ]


def test_no_old_name_outlives_its_version() -> None:
    found = [version for path in (ROOT / "loopscope").rglob("*.py") for version in drops(path.read_text())]
    found += [removed_in for _, removed_in in loopscope._RENAMED.values()]
    assert [version for version in found if Version(version) <= Version(loopscope.__version__)] == []
    assert set(loopscope._RENAMED) & set(loopscope.__all__) == set()
    assert drops('renamed("loopscope.old", "loopscope.new", removed_in="0.0.9")') == ["0.0.9"]


def test_the_wheel_carries_what_the_tree_has(tmp_path: Path) -> None:
    """Every file of the package, templates and `py.typed` among them, and nothing else but its metadata."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: what belongs to the tree is not known")
    tracked = [Path(name) for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    for path in tracked:  # a copy, for a build leaves folders in its source
        if path.parts[0] in ("loopscope", "pyproject.toml", "README.md", "LICENSE"):
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes((ROOT / path).read_bytes())
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"loopscope-{loopscope.__version__}-py3-none-any.whl"
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert carried == {str(path) for path in tracked if path.parts[0] == "loopscope"}
    assert {"loopscope/py.typed", "loopscope/report/page.html.j2", "loopscope/report/page.js"} <= carried


def public_callables() -> list[tuple[str, Callable[..., Any]]]:
    """Functions and classes that a package's `__all__` names."""
    found = []
    for module in [
        "loopscope",
        *(f"loopscope.{path.parent.name}" for path in (ROOT / "loopscope").glob("*/__init__.py")),
    ]:
        package = import_module(module)
        for name in getattr(package, "__all__", ()):
            value = getattr(package, name)
            if callable(value):
                found.append((f"{module}.{name}", value))
    return found


def test_paths_may_be_text_everywhere() -> None:
    """What takes a `Path` takes a `str`: nobody should have to know which function wants which."""
    looked_at, narrow = 0, []
    for name, value in public_callables():
        try:
            hints = get_type_hints(value.__init__ if isinstance(value, type) else value)
        except (TypeError, NameError, AttributeError):
            continue
        if isinstance(value, type) and (dataclasses.is_dataclass(value) or issubclass(value, BaseException)):
            continue  # records and errors, made here
        for argument, kind in hints.items():
            kinds = [kind, *get_args(kind)]
            if argument != "return" and Path in kinds:
                looked_at += 1
                if str not in kinds:
                    narrow.append(f"{name}({argument})")
    assert narrow == []
    assert looked_at > 20
