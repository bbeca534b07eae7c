"""Arrows point down: who may import whom is design, and checked in the source and in a fresh interpreter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "loopscope"

# part -> parts of the package that it may import, beside itself
ALLOWED = {
    "past": set(),
    "kernels": set(),
    "recurrence": {"past"},
    "results": set(),
    "data": set(),
    "model": {"kernels", "recurrence", "past"},
    "objectives": {"kernels", "recurrence"},
    "training": {"kernels", "recurrence", "objectives", "data", "results", "audit"},
    "audit": {"recurrence", "objectives", "results"},
    "interop": {"recurrence", "model"},
    "report": {"results"},
    "config": {"model", "objectives", "data", "training", "effects"},
    "effects": {"config"},  # for its type alone, never at run time
    "families": set(),
    "baselines": set(),
    "recipes": {"baselines", "config", "families", "model"},
    "catalogue": {"baselines", "config", "families", "model", "recipes", "static_audit", "training_cost"},
    "training_cost": {"config", "model", "objectives"},
    "run": {"config", "model", "objectives", "data", "training", "results"},
    "arguments": {"config", "recipes"},
    "study": {"config", "recipes", "run", "data", "training", "results"},
    "static_audit": {"config", "model", "objectives", "results"},
    "evaluation": {"recurrence", "objectives", "results"},
    "generation": {"recurrence", "past", "objectives", "results"},
    "generating": {"data", "evaluation", "generation", "recurrence", "subject"},
    "held_out": {"data", "subject"},
    "evaluating": {
        "config",
        "held_out",
        "interop",
        "model",
        "results",
        "run",
        "subject",
        "evaluation",
        "training_cost",
        "data",
        "objectives",
        "training",
    },
    "subject": {"config", "data", "interop", "model", "objectives", "recurrence"},
    "auditing": {
        "audit",
        "config",
        "objectives",
        "recurrence",
        "results",
        "run",
        "subject",
        "training",
    },
}


def imports(source: str) -> set[str]:
    """Parts of the package that a module's source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names = [node.module or ""]
            if node.module == "loopscope":
                names = [f"loopscope.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("loopscope.")}
    return found


def violations(part: str, source: str) -> set[str]:
    return imports(source) - {part} - ALLOWED[part]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_import_only_what_is_below_them(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part in ("__init__", "cli", "commands", "__main__"):
        return
    assert part in ALLOWED, f"{part} is new: say in tests/test_layering.py what it may import"
    assert violations(part, path.read_text()) == set()


def test_the_check_can_fail() -> None:
    assert violations("model", "from loopscope.training.optim import build_optimizer") == {"training"}
    assert violations("report", "def f():\n    import loopscope.recurrence") == {"recurrence"}
    assert violations("objectives", "from loopscope import model") == {"model"}


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
        "import loopscope.plan.catalogue, loopscope.cli.recipes; loopscope.plan.catalogue.catalogue()",
        "import loopscope.plan.static_audit, loopscope.cli.audit_print, loopscope.cli.audit",
        "import loopscope.report.page, loopscope.report.plots.figure",
    ],
)
def test_light_parts_never_load_torch(code: str) -> None:
    assert "torch" not in modules_after(code)


def test_the_fresh_interpreter_check_can_fail() -> None:
    assert "torch" in modules_after("import loopscope.recurrence")
