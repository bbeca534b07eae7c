"""Arrows point down: who may import whom is design, and checked in the source and in a fresh interpreter."""

import ast
import subprocess
import sys
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
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names = [node.module or ""]
            if node.module == "loopscope":
                names = [f"loopscope.{alias.name}" for alias in node.names if alias.name != "__version__"]
        found |= {name.removeprefix("loopscope.") for name in names if name.startswith("loopscope.")}
    return found


def reach(room: str) -> set[str]:
    """Rooms that a room may import: its row, and what those may import."""
    found: set[str] = set()
    left = [*ALLOWED[room]]
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += ALLOWED[name]
    return found


def violations(room: str, source: str) -> set[str]:
    allowed = reach(room) | {room} | (set() if room in FLOOR else FLOOR)
    sees_configs = room == "config" or "config" in reach(room)
    return {
        name
        for name in imported(source)
        if name.split(".")[0] not in allowed
        and not (sees_configs and any(name == of or name.startswith(f"{of}.") for of in CONFIG_MODULES))
    }


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_import_only_what_is_below_them(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
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


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import loopscope",
        "import loopscope.cli",
        "import loopscope.results",
        "import loopscope.config, loopscope.config.recipes",
        "import loopscope.plan.catalogue, loopscope.cli.recipes; loopscope.plan.catalogue.catalogue_rows()",
        "import loopscope.plan.static_audit, loopscope.cli.audit_print, loopscope.cli.audit",
        "import loopscope.report.page, loopscope.report.plots.figure",
    ],
)
def test_light_parts_never_load_torch(code: str) -> None:
    assert "torch" not in modules_after(code)


def test_the_fresh_interpreter_check_can_fail() -> None:
    assert "torch" in modules_after("import loopscope.recurrence")
