"""What imports what, read from the package's source: for the tests of its layers."""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "loopscope"

OF_THE_ROOT = {"__version__", "renamed"}
"""What `loopscope/__init__.py` has itself: no module below it is imported for them."""


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


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its name without the package's own; a package by its folder's."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
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
