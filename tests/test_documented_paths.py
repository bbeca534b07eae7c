"""Every module and file that README, docs and CONTRIBUTING name is there."""

import ast
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    *ROOT.glob("*.md"),
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "results"),
]  # dated results keep the names of their day

MADE_BY_USERS = {"figures/", "checkpoints/"}  # folders that a run or a report makes
OWN_PACKAGE = "myloops/"  # the reader's own, in examples
ENTRY_POINTS = {  # groups that a package registers its variants under: dotted, but no modules
    group
    for path in (ROOT / "loopscope").rglob("*.py")
    for group in re.findall(r'\bgroup="(loopscope\.\w+)"', path.read_text())
}


def modules_named(text: str) -> set[str]:
    """Dotted paths of the package: `loopscope.recurrence.unroll`, and what code imports from where."""
    imports = re.findall(r"^\s*from (loopscope[\w.]*) import ([\w, ]+)$", text, re.M)
    parts = {
        f"{module}.{name.split(' as ')[0].strip()}" for module, names in imports for name in names.split(",")
    }
    return parts | set(re.findall(r"(?<![\w/.-])loopscope(?:\.[A-Za-z_]\w*)+", text))


def files_named(text: str) -> set[str]:
    """Files and folders (`name/`) in backticks: from the checkout's root, or from the package's."""
    words = re.findall(r"`([\w.-]+(?:/[\w.-]+)*/?)`", text)
    files = {word for word in words if word.endswith((".py", ".j2", ".css", ".js", ".md", "/"))}
    return {file for file in files - MADE_BY_USERS if not file.startswith(OWN_PACKAGE)}


def is_there(path: str) -> bool:
    """Whether a dotted path leads to a module or to what one names. Read from the source: nothing is imported."""
    place = ROOT
    names = path.split(".")
    while names and (place / names[0]).is_dir():
        place /= names.pop(0)
    file = place / f"{names[0]}.py" if names else place
    if file.is_file():
        names.pop(0)
    scope: Sequence[ast.stmt] = ast.parse(
        (file if file.is_file() else place / "__init__.py").read_text()
    ).body
    for name in names:
        if name not in named_in(scope):
            return False
        scope = next(
            (node.body for node in scope if isinstance(node, ast.ClassDef) and node.name == name), []
        )
    return True


def named_in(scope: Iterable[ast.stmt]) -> set[str]:
    """What a module's or a class's body defines, imports, or promises in `__all__`."""
    found = set()
    for node in scope:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {alias.asname or alias.name for alias in names}
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                found |= {one.value for one in ast.walk(value) if isinstance(one, ast.Constant)}
            case ast.Assign(targets=targets):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


def missing(text: str) -> set[str]:
    lost = {path for path in modules_named(text) - ENTRY_POINTS if not is_there(path)}
    old_names = changelog_old_names(text)
    places = (ROOT, ROOT / "loopscope", ROOT / "tests")
    lost |= {name for name in files_named(text) if not any((place / name).exists() for place in places)}
    return lost - old_names


def changelog_old_names(text: str) -> set[str]:
    """What a row of a table says has moved: the first cell of `| `old` | `new` |` in a changelog."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.M) if text.startswith("# Changelog") else []
    return {name for old, _ in rows for name in re.findall(r"`([\w./]+)`", old)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    assert missing(page.read_text()) == set()


def test_a_path_that_is_gone_is_found_out() -> None:
    text = """
    `loopscope.recurrence.unroll`, `loopscope.load`, loopscope.recurrence.looped_model.AbstractLoopedLM.core and
    loopscope.recurrence.unrolled, `loopscope/kv_cache.py`, `loopscope/kernels.py`,
    `model/norms.py`, `ops/rms_norm.py`, `loopscope/nowhere/`, `metrics.jsonl`, `--config run.yaml`,
    loopscope.run.execute
    """
    code = "from loopscope.model.norms import RMSNorm\nfrom loopscope.recurrence import LoopState, scale\n"
    assert missing(text + code) == {
        "loopscope.recurrence.unrolled",
        "loopscope/kernels.py",
        "model/norms.py",
        "loopscope/nowhere/",
        "loopscope.run.execute",
        "loopscope.model.norms",
        "loopscope.model.norms.RMSNorm",
        "loopscope.recurrence.scale",
    }


def test_a_changelog_may_name_what_has_moved() -> None:
    table = "# Changelog\n| old | new |\n| --- | --- |\n| `loopscope.run` | `loopscope.jobs.train` |\n"
    assert missing(table) == set()
    assert missing(table.replace("jobs.train", "jobs.trains")) == {"loopscope.jobs.trains"}
