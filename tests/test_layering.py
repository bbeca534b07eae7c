"""Arrows point down: who may import whom is design, and checked in the source and in a fresh interpreter.

Beside them: no circle between rooms or between modules, no two files of one name for different things, and a root of
nothing but nouns. For every check there is a test that it can fail.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "loopscope"

# room -> rooms that it may import, beside itself and the floor; through those, what they may import
FLOOR = {"results", "kv_cache", "numerics", "guards"}
ALLOWED: dict[str, set[str]] = {
    "results": set(),
    "kv_cache": set(),
    "numerics": set(),
    "guards": set(),
    "data": set(),
    "recurrence": {"kv_cache"},
    "ops": {"numerics"},
    "model": {"ops", "recurrence", "kv_cache", "numerics"},
    "objectives": {"ops", "recurrence", "numerics"},
    "audit": {"objectives", "recurrence", "results"},
    "evaluation": {"objectives", "recurrence", "results"},
    "generation": {"recurrence", "kv_cache"},
    "interop": {"model", "recurrence", "generation"},
    "monitor": {"audit", "objectives"},
    "training": {"monitor", "objectives", "ops", "data", "results"},
    "config": set(),  # and the rooms' own config modules
    "plan": {"config"},
    "jobs": {
        "interop",
        "audit",
        "evaluation",
        "generation",
        "training",
        "data",
        "model",
        "objectives",
        "plan",
    },
    "report": {"results"},
    "cli": {"jobs", "plan", "report", "config"},
}
OF_THE_ROOT = {"__version__", "renamed"}
"""What `loopscope/__init__.py` has itself: no module below it is imported for them."""
CLOSED = {"cli"}
"""Rooms to which only their own row is open: a command parses words, calls a job, and prints."""
AT_IMPORT = {"cli": {"config"}}
"""What of a row may be imported while the module is loaded; the rest inside functions, so that help never waits."""
CONFIGS = (
    "model.config",
    "objectives.config",
    "objectives.depth_config",
    "objectives.placement_config",
    "data.config",
    "data.task_config",
)
CONFIG_MODULES = (*CONFIGS, "training.config")
"""What of a room says its settings: torch-free, and all that `config` and `plan` may see of it."""


def imported(source: str) -> set[str]:
    """Modules of the package that a module's source imports, anywhere in it, without the package's own name."""
    return {name for node in ast.walk(ast.parse(source)) for name in named(node)}


def imported_at_once(source: str, known: Mapping[str, Path] | None = None) -> set[str]:
    """Those that are imported while the module is loaded: not inside functions, nor for types alone.

    Args:
        known: modules by name; `from loopscope.room import module` then names the module.
    """
    found: set[str] = set()
    left: list[ast.AST] = [ast.parse(source)]
    while left:
        node = left.pop()
        found |= named(node, known)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            left += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            left += ast.iter_child_nodes(node)
    return found


def named(node: ast.AST, known: Mapping[str, Path] | None = None) -> set[str]:
    """What one statement imports of the package."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute here"
        names = [node.module or ""]
        inner = [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in OF_THE_ROOT]
        if node.module == "loopscope":
            names = inner
        names += [name for name in inner if known and name.removeprefix("loopscope.") in known]
    return {name.removeprefix("loopscope.") for name in names if name.startswith("loopscope.")}


def reach(room: str) -> set[str]:
    """Rooms that a room may import: its row, and what those may import."""
    found: set[str] = set()
    if room in CLOSED:
        return ALLOWED[room]
    left = [*ALLOWED[room]]
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += ALLOWED[name]
    return found


def violations(room: str, source: str) -> set[str]:
    """Imports of a room's module, without the package's name, that its row does not allow."""
    floor = set() if room in FLOOR else FLOOR
    allowed = reach(room) | {room} | floor
    early = AT_IMPORT.get(room, reach(room)) | {room} | floor
    sees_configs = room == "config" or ("config" in reach(room) and room not in CLOSED)

    def config_of_a_room(name: str) -> bool:
        return sees_configs and any(name == of or name.startswith(f"{of}.") for of in CONFIG_MODULES)

    names = {name for name in imported(source) if name.split(".")[0] not in allowed}
    names |= {name for name in imported_at_once(source) if name.split(".")[0] not in early}
    return {name for name in names if not config_of_a_room(name)}


def modules() -> dict[str, Path]:
    """Every module of the package by its name without the package's own; a package by its folder's."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph() -> dict[str, set[str]]:
    """Which modules each module loads while it is loaded itself, the packages around them included."""
    known = modules()
    graph = {}
    for name, path in known.items():
        loads = set()
        for target in imported_at_once(path.read_text(), known):
            around = [target.rsplit(".", cut)[0] for cut in range(1, target.count(".") + 1)]
            loads |= {module for module in (target, *around) if module in known}
        # A package that is being loaded is not loaded again by what lies in it.
        graph[name] = {module for module in loads if not f"{name}.".startswith(f"{module}.")}
    return graph


def room_graph() -> dict[str, set[str]]:
    """Which rooms each room imports, anywhere in it."""
    graph: dict[str, set[str]] = {}
    for name, path in modules().items():
        room = name.split(".")[0]
        if room in ALLOWED:
            to = {target.split(".")[0] for target in imported(path.read_text())}
            graph[room] = graph.get(room, set()) | (to & ALLOWED.keys()) - {room}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, or nothing."""
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := walk(following, [*way, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_import_only_what_is_below_them(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):  # public names, lazily; the command line
        return
    assert room in ALLOWED, f"{room} is new: say in tests/test_layering.py what it may import"
    assert violations(room, path.read_text()) == set()


def test_the_check_can_fail() -> None:
    assert violations("model", "from loopscope.training.optim import build_optimizer") == {"training.optim"}
    assert violations("report", "def f():\n    import loopscope.recurrence") == {"recurrence"}
    assert violations("objectives", "from loopscope import model") == {"model"}
    assert violations("numerics", "from loopscope import kv_cache") == {"kv_cache"}
    assert violations("plan", "from loopscope.model.looped import LoopedTransformer") == {"model.looped"}
    assert violations("plan", "from loopscope.model.config.sections import BlockConfig") == set()
    assert violations("config", "def f():\n    import loopscope.objectives.depth") == {"objectives.depth"}
    assert violations("cli", "def f():\n    from loopscope.model.looped import x") == {"model.looped"}
    assert violations("cli", "from loopscope.jobs import execute") == {"jobs"}
    assert violations("cli", "def f():\n    from loopscope.jobs import execute") == set()
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from loopscope.jobs import execute"
    assert violations("cli", typed) == set()


def test_no_circles() -> None:
    assert circle(ALLOWED) == []
    assert circle(room_graph()) == []
    assert circle(import_graph()) == []


def test_the_search_for_circles_can_fail() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({**room_graph(), "results": {"cli"}}) != []
    graph = import_graph()
    assert "recurrence" in graph["model.looped"]
    assert "jobs" not in graph["cli.train"]  # imported inside its function
    assert circle({**graph, "kv_cache": {"model.looped"}}) != []


ROOT = {
    *("__init__.py", "__main__.py", "py.typed", "recurrence.py", "kv_cache.py", "numerics.py", "guards.py"),
    *("results", "data", "ops", "model", "objectives", "audit", "monitor", "evaluation", "generation"),
    *("interop", "training", "config", "plan", "jobs", "report", "cli"),
}


def test_the_root_holds_what_the_design_says() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"} == ROOT


TWINS = {
    "the interface that the variants in its folder implement": [
        "data/corpora/base.py",
        "data/tasks/base.py",
        "data/tokenizers/base.py",
        "evaluation/exits/rules/base.py",
        "generation/missing/base.py",
        "interop/foreign/families/base.py",
        "model/readouts/base.py",
    ],
    "the settings of its room": ["data/config.py", "objectives/config.py", "training/config.py"],
    "a module of the model, and the fast operation that it calls": [
        *("model/attention.py", "ops/attention.py"),
        *("model/linear.py", "ops/linear.py"),
    ],
    "the plain form that fast code is held to": ["model/reference.py", "ops/reference.py"],
    "the named configs, and the command that lists them": ["config/recipes.py", "cli/recipes.py"],
    "windows to train and validate on: of a text, and of a task": [
        "data/windows.py",
        "data/tasks/windows.py",
    ],
    "what its room concludes, in a word and a sentence": ["audit/verdict.py", "evaluation/depth/verdict.py"],
    "what is measured, and how a page shows it": [
        *("audit/dynamics.py", "report/audits/dynamics.py"),
        *("audit/interventions.py", "report/audits/interventions.py"),
        *("audit/visibility.py", "report/audits/visibility.py"),
        *("evaluation/compare/differences.py", "report/evaluations/differences.py"),
        *("evaluation/compare/matched.py", "report/evaluations/matched.py"),
        *("evaluation/compare/pareto.py", "report/evaluations/pareto.py"),
        *("evaluation/exits/speed.py", "report/evaluations/speed.py"),
    ],
    "the two sections of a page, each of its words and its parts": [
        *("report/audits/glossary.py", "report/evaluations/glossary.py"),
        *("report/audits/section.py", "report/evaluations/section.py"),
    ],
    "how many loops are run: by a training step, and on a page": [
        "objectives/depth.py",
        "report/evaluations/depth.py",
    ],
    "leaving at a loop: while text is made, and on a page": [
        "generation/exits.py",
        "report/evaluations/exits.py",
    ],
}
"""Files that share a name, by what they share it for; `__init__`, and a command with its job, do so anyway."""


def namesakes(files: Iterable[str]) -> list[list[str]]:
    """Groups of files of one name that no reason is given for."""
    groups: dict[str, list[str]] = {}
    for file in sorted(files):
        groups.setdefault(Path(file).name, []).append(file)
    agreed = [
        {file for file in twins if Path(file).name == name} for twins in TWINS.values() for name in groups
    ]
    return [
        group
        for name, group in groups.items()
        if len(group) > 1
        and not name.startswith("__")
        and set(group) != {f"cli/{name}", f"jobs/{name}"}
        and not any(set(group) <= twins for twins in agreed)
    ]


def test_no_two_files_of_one_name_are_different_things() -> None:
    assert namesakes(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")) == []


def test_the_search_for_namesakes_can_fail() -> None:
    assert namesakes(["cli/report.py", "audit/report.py"]) == [["audit/report.py", "cli/report.py"]]
    assert namesakes(["audit/audit.py", "cli/audit.py", "jobs/audit.py"]) != []
    assert namesakes(["model/linear.py", "model/readouts/linear.py", "ops/linear.py"]) != []
    assert namesakes(["cli/audit.py", "jobs/audit.py", "model/linear.py", "ops/linear.py"]) == []


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import loopscope, loopscope.results.lock, loopscope.jobs, loopscope.monitor",
        "; ".join(
            f"import loopscope.{name}" for name in sorted(modules()) if name.startswith(("config", "plan"))
        ),
        "; ".join(f"import loopscope.{name}" for name in sorted(modules()) if name.startswith("report")),
        "; ".join(
            f"import loopscope.{name}"
            for name in sorted(modules())
            if name.startswith(("cli", "results")) and name != "cli.__main__"
        ),
        "import loopscope.plan.catalogue; loopscope.plan.catalogue.catalogue_rows()",
    ],
    ids=["root", "config and plan", "report", "cli and results", "a plan at work"],
)
def test_light_parts_never_load_torch(code: str) -> None:
    assert "torch" not in modules_after(code)


def test_the_fresh_interpreter_check_can_fail() -> None:
    assert "torch" in modules_after("import loopscope.recurrence")
