"""One name, one thing: public names stand in one place, are reached through their package, and explain themselves."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest

import loopscope

PACKAGE = Path(__file__).parent.parent / "loopscope"

# name -> why it may be defined in more than one module
TWINS = {
    "audit": "the function, and the command that calls it",
    "generate": "the job, and the command that calls it",
    "lens": "the function, and the command that calls its job",
    "train": "the loop, and the command that calls it",
    **dict.fromkeys(
        ("attention", "dropout_add", "linear", "swiglu"),
        "the fast operation, and the plain form it is held to",
    ),
}


def definitions(source: str) -> set[str]:
    """Public names that a module defines at its top level: functions, classes, constants and types."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def repeated(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Names that more than one module defines, with those modules."""
    places: dict[str, list[str]] = {}
    for module, source in sorted(sources.items()):
        for name in definitions(source):
            places.setdefault(name, []).append(module)
    return {name: modules for name, modules in places.items() if len(modules) > 1}


def test_every_public_name_stands_in_one_module() -> None:
    sources = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    found = {name: modules for name, modules in repeated(sources).items() if name not in TWINS}
    assert found == {}, "give it one place, or names that say how the things differ"


def test_every_agreed_twin_is_one_still() -> None:
    sources = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    assert set(TWINS) <= set(repeated(sources))


def test_the_check_of_places_can_fail() -> None:
    sources = {"a.py": "def fit(): ...\n_own = 1", "b.py": "fit: int = 1\n_own = 2", "c.py": "class Fit: ..."}
    assert repeated(sources) == {"fit": ["a.py", "b.py"]}


def packages() -> list[ModuleType]:
    found = [
        module.name for module in pkgutil.walk_packages(loopscope.__path__, "loopscope.") if module.ispkg
    ]
    return [importlib.import_module(name) for name in ("loopscope", *found)]


def exports() -> Iterator[tuple[str, str]]:
    for package in packages():
        for name in getattr(package, "__all__", ()):
            yield package.__name__, name


def explains_itself(thing: object) -> bool:
    """Whether a class or function has a docstring of its own of more than five words. Constants and types have none."""
    if not inspect.isclass(thing) and not inspect.isroutine(thing):
        return True
    text = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    made_by_dataclass = inspect.isclass(thing) and str(text).startswith(f"{thing.__name__}(")
    return bool(text) and not made_by_dataclass and len(str(text).split()) > 5


def test_every_exported_name_is_there_and_explains_itself() -> None:
    silent, hidden = [], []
    for package, name in exports():
        thing = getattr(importlib.import_module(package), name)
        if (
            inspect.ismodule(thing) and f"{package}.{name}" != "loopscope.audit"
        ):  # a package that can be called
            hidden.append(f"{package}.{name}")
        if not explains_itself(thing):
            silent.append(f"{package}.{name}")
    assert hidden == [], "a module of this name hides what is exported"
    assert silent == [], "say in more than five words what it is"


def test_the_check_of_docstrings_can_fail() -> None:
    class Told:
        """A class that says what it is."""

    class Untold(Told): ...

    def short() -> None:
        """Too short to help."""

    assert explains_itself(Told)
    assert not explains_itself(Untold)
    assert not explains_itself(short)


def untold_constants(source: str) -> set[str]:
    """Names of a module's values and types that no text follows: the reference shows those alone that have one."""
    body = ast.parse(source).body
    untold = set()
    for node, after in zip(body, [*body[1:], None], strict=True):
        told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(node, ast.Assign | ast.AnnAssign) and not told:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            untold |= {target.id for target in targets if isinstance(target, ast.Name)}
    return untold


def test_public_constants_say_what_they_are() -> None:
    untold = set[str]().union(*(untold_constants(path.read_text()) for path in PACKAGE.rglob("*.py")))
    public = {
        name
        for path in PACKAGE.rglob("__init__.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for name in ast.literal_eval(node.value)
    }
    assert public & untold - {"__version__"} == set()


def test_the_search_for_untold_constants_can_fail() -> None:
    assert untold_constants('A = 1\nB: int = 2\n"""Said."""\nC = 3\n') == {"A", "C"}


def leans_on_a_neighbour(source: str) -> list[str]:
    """Names of what a module defines whose docstring cannot be read without the one before it."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and (ast.get_docstring(node) or "").startswith(("The same", "Both", "As above", "Likewise", "Ditto"))
    ]


def test_docstrings_read_alone() -> None:
    found = {str(path): leans_on_a_neighbour(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_search_for_leaning_docstrings_can_fail() -> None:
    assert leans_on_a_neighbour('def again():\n    """The same, quickly."""') == ["again"]


ROOMS = (
    "audit",
    "data",
    "evaluation",
    "generation",
    "interop",
    "monitor",
    "objectives",
    "report",
    "training",
)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_mapped_in_its_docstring(room: str) -> None:
    folder = PACKAGE / room
    text = importlib.import_module(f"loopscope.{room}").__doc__ or ""
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    rooms = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    assert {name for name in files | rooms if name not in text} == set()
