"""Arrows point down: who may import whom is design, and checked in the source.

Beside them: no circle between rooms or between modules, no two files of one name for different things, and a root of
nothing but nouns. For every check there is a test that it can fail.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.import_graph import PACKAGE, circle, import_graph, imported, imported_at_once, modules

# room -> rooms that it may import, beside itself and the floor; through those, what they may import
FLOOR = {
    *("results", "kv_cache", "numerics", "guards", "machine_limits", "wide_weights", "weights_at_use"),
    *("hooks", "optional_packages"),
}
ALLOWED: dict[str, set[str]] = {
    "results": set(),
    "kv_cache": set(),
    "numerics": set(),
    "guards": set(),
    "hooks": set(),
    "machine_limits": set(),
    "weights_at_use": set(),
    "wide_weights": {"machine_limits", "weights_at_use"},
    "registration": set(),
    "optional_packages": set(),
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
CLOSED = {"cli"}
"""Rooms to which only their own row is open: a command parses words, calls a job, and prints."""
AT_IMPORT = {"cli": {"config"}}
"""What of a row may be imported while the module is loaded; the rest inside functions, so that help never waits."""
CONFIGS = (
    "model.config",
    "objectives.config",
    "objectives.depth_config",
    "objectives.phase",
    "objectives.placement_config",
    "data.config",
    "data.task_config",
)
CONFIG_MODULES = (*CONFIGS, "training.config")
"""What of a room says its settings: torch-free, and all that `config` and `plan` may see of it."""


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


def room_graph() -> dict[str, set[str]]:
    """Which rooms each room imports, anywhere in it."""
    graph: dict[str, set[str]] = {}
    for name, path in modules().items():
        room = name.split(".")[0]
        if room in ALLOWED:
            to = {target.split(".")[0] for target in imported(path.read_text())}
            graph[room] = graph.get(room, set()) | (to & ALLOWED.keys()) - {room}
    return graph


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
    *("__init__.py", "__main__.py", "py.typed", "kv_cache.py", "numerics.py", "guards.py", "hooks.py"),
    *("machine_limits.py", "wide_weights.py", "weights_at_use.py", "registration.py", "optional_packages.py"),
    *("recurrence", "results", "data", "ops", "model", "objectives", "audit", "monitor", "evaluation"),
    *("generation", "interop", "training", "config", "plan", "jobs", "report", "cli"),
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
        "training/loggers/base.py",
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
        *("audit/side_scales.py", "report/audits/side_scales.py"),
        *("audit/visibility.py", "report/audits/visibility.py"),
        *("evaluation/compare/differences.py", "report/evaluations/differences.py"),
        *("evaluation/compare/matched.py", "report/evaluations/matched.py"),
        *("evaluation/compare/pareto.py", "report/evaluations/pareto.py"),
        *("evaluation/exits/speed.py", "report/evaluations/speed.py"),
    ],
    "the two sections of a page, each of its parts": [
        "report/audits/section.py",
        "report/evaluations/section.py",
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
