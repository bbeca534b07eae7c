"""The source of an exported model, put together from the package's own: it needs torch and transformers alone.

Nothing is written a second time. From the classes of `exported_model` on, every definition that is used is taken as it
stands in its module, the used before the user, and nothing else is. Left out are declarations and methods that only
audits ask for. Annotations stay, shapes and all, and are not evaluated. Of pydantic's settings, names of others'
variants and operations that are fast on a CPU `plain_parts` has another form, which is taken in their place. So the
mathematics of a layer is one text, here and there; a test holds both to the same bits, at every variant of a config.
"""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import loopscope

HERE = "loopscope.interop.huggingface.export"
CONFIG_MODULE, MODEL_MODULE = "configuration_loopscope", "modeling_loopscope"
AUTO_MAP = {
    "AutoConfig": f"{CONFIG_MODULE}.LoopscopeConfig",
    "AutoModelForCausalLM": f"{MODEL_MODULE}.LoopscopeForCausalLM",
}
"""What config.json says of the files, for those who load with trust_remote_code."""

_PLAIN = {
    "loopscope.model.readouts.build_readout": "plain_readout",
    "loopscope.model.carries.build_carries": "plain_carries",
    "loopscope.model.carries.share_norm": "plain_share_norm",
    "loopscope.model.injections.build_injection": "plain_injection",
    "loopscope.model.initial_state.build_start": "plain_start",
    "loopscope.model.token_layer.run_cached": "plain_call",
    "loopscope.ops.attention.attention": "plain_attention",
    "loopscope.ops.dropout.dropout_add": "plain_add",
    "loopscope.ops.linear.linear": "plain_matrix",
    "loopscope.ops.rms_norm.RMSNorm": "PlainRMSNorm",
    "loopscope.ops.swiglu.gated_linear": "plain_gated",
}
"""Definitions of the package, and those of `plain_parts` that take their place."""

_LEFT_OUT = {
    *("declaration", "exponents", "effect", "scale_exponent", "removes_scale"),
    *("declared_exponent", "declared_effect", "carry_steps", "head_matrix", "gate_alone", "loop_layers"),
    *("rejoin", "beside", "put_beside", "remember", "parameter_count", "save_pretrained"),
}
"""Attributes and methods that an export does not need: audits and generation in Loopscope ask for them."""

_SETTINGS = "loopscope.model.config.ModelConfig"
"""Of which an export has what is computed of its settings, and no checks: they were made before training."""


@dataclass(frozen=True)
class Source:
    """A module's text, by what it defines and imports.

    Attributes:
        definitions: top-level statements by the name that they define.
        ours: names that it imports of this package, with their whole paths.
        others: names that it imports from elsewhere, with the statement that does.
    """

    name: str
    lines: list[str]
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    ours: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)


def exported_sources() -> dict[str, str]:
    """Return the files of code of an export, by name."""
    config = Path(str(_spec(f"{HERE}.exported_config").origin)).read_text(encoding="utf-8")
    return {
        f"{CONFIG_MODULE}.py": f"{_header('The config')}{config}",
        f"{MODEL_MODULE}.py": Assembly().text("exported_model", ["LoopscopeForCausalLM"]),
    }


class Assembly:
    """The definitions that some names need, of all modules, in an order in which they can be run."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, str]] = []  # module, text
        self._seen: set[str] = set()
        self._owner: dict[str, str] = {}
        self._imports: set[str] = {f"from .{CONFIG_MODULE} import LoopscopeConfig"}

    def text(self, module: str, names: list[str]) -> str:
        """Return the file in which these names of a module of the export stand, with all they need."""
        for name in names:
            self._take(f"{HERE}.{module}", name)
        body, last = [], ""
        for owner, text in self._parts:
            if owner != last:
                body.append(f"# ---- {owner.replace('.', '/')}.py")
            body.append(text)
            last = owner
        imports = sorted(self._imports, key=lambda line: (line.startswith("from ."), line))
        return _header("The model") + "\n".join(imports) + "\n\n\n" + "\n\n\n".join(body) + "\n"

    def _take(self, module: str, name: str) -> None:
        path = f"{module}.{name}"
        if path in self._seen or module == f"{HERE}.exported_config":
            return
        self._seen.add(path)
        if path in _PLAIN:
            plain = _PLAIN[path]
            self._take(f"{HERE}.plain_parts", plain)
            if plain != name:
                self._add(f"{HERE}.plain_parts", name, f"{name} = {plain}")
            return
        source = read_source(module)
        if name not in source.definitions:
            home, _, original = source.ours[name].rpartition(".")
            self._take(home, original)
            return
        statement = source.definitions[name]
        if path == _SETTINGS:
            self._take(f"{HERE}.plain_parts", "PlainSettings")
        for used in _names_used(statement, only_properties=path == _SETTINGS):
            if used in source.definitions:
                self._take(module, used)
            elif used in source.ours:
                home, _, original = source.ours[used].rpartition(".")
                self._take(home, original)
            elif used in source.others:
                self._imports.add(source.others[used])
        text = _text(source, statement, only_properties=path == _SETTINGS)
        self._add(module, name, text)

    def _add(self, module: str, name: str, text: str) -> None:
        if name in self._owner:
            raise AssertionError(
                f"{name} is defined in {self._owner[name]} and in {module}: rename one of them"
            )
        self._owner[name] = module
        self._parts.append((module, text))


@cache
def read_source(module: str) -> Source:
    """Return the source of a module of this package, taken apart."""
    text = Path(str(_spec(module).origin)).read_text(encoding="utf-8")
    found = Source(module, text.splitlines())
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("loopscope"):
            for alias in statement.names:
                found.ours[alias.asname or alias.name] = f"{statement.module}.{alias.name}"
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                one = (
                    ast.ImportFrom(statement.module, [alias], 0)
                    if isinstance(statement, ast.ImportFrom)
                    else None
                )
                found.others[alias.asname or alias.name] = ast.unparse(one or ast.Import([alias]))
        else:
            found.definitions.update(dict.fromkeys(_defined(statement), statement))
    return found


def _spec(module: str) -> "importlib.machinery.ModuleSpec":
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    return spec


def _defined(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _left_out(owner: str, statement: ast.stmt) -> bool:
    """Whether a statement of a class is not for an export."""
    names = _defined(statement)
    return any(name in _LEFT_OUT for name in names) or (owner == "AbstractLoopedLM" and names == ["forward"])


def _is_property(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.FunctionDef) and any(
        isinstance(each, ast.Name) and each.id == "property" for each in statement.decorator_list
    )


def _members(statement: ast.ClassDef, only_properties: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield what a class is made of, and whether an export has it."""
    for place, member in enumerate(statement.body):
        if only_properties:
            yield member, _is_property(member) or place == 0
        else:
            yield member, not _left_out(statement.name, member)


def _names_used(statement: ast.stmt, only_properties: bool) -> list[str]:
    """Names that a definition needs when it is run, in the order in which they stand; annotations need none."""
    nodes: list[ast.AST] = [statement]
    if isinstance(statement, ast.ClassDef):
        kept = [member for member, keeps in _members(statement, only_properties) if keeps]
        bases: list[ast.AST] = [] if only_properties else [*statement.bases, *statement.decorator_list]
        nodes = [*bases, *kept]
    names: list[str] = []
    while nodes:
        node = nodes.pop(0)
        if isinstance(node, ast.Name):
            names.append(node.id)
        for child_name, value in ast.iter_fields(node):
            if child_name in ("annotation", "returns"):
                continue
            children = value if isinstance(value, list) else [value]
            nodes += [child for child in children if isinstance(child, ast.AST)]
    return list(dict.fromkeys(names))


def _text(source: Source, statement: ast.stmt, only_properties: bool) -> str:
    """Return a definition as it stands in its module, without what an export leaves out."""
    first, last = _span(statement)
    dropped: set[int] = set()
    if isinstance(statement, ast.ClassDef):
        members = list(_members(statement, only_properties))
        for place, (member, keeps) in enumerate(members):
            if not keeps:
                start, end = _span(member)
                following = _span(members[place + 1][0])[0] if place + 1 < len(members) else end + 1
                docstring = place + 1 < len(members) and _is_text(members[place + 1][0])
                if docstring and not isinstance(member, ast.FunctionDef):
                    following = _span(members[place + 1][0])[1] + 1
                dropped |= set(range(start, following))
    lines = [source.lines[number - 1] for number in range(first, last + 1) if number not in dropped]
    if only_properties:
        lines[0] = "class ModelConfig(PlainSettings):"
    while lines and not lines[-1].strip():
        lines.pop()
    return "\n".join(lines)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _span(statement: ast.stmt) -> tuple[int, int]:
    """Return the first and last line of a statement, decorators included."""
    decorators = getattr(statement, "decorator_list", [])
    return min(
        [statement.lineno, *(each.lineno for each in decorators)]
    ), statement.end_lineno or statement.lineno


def _header(what: str) -> str:
    return f"""# {what} of an export of Loopscope {loopscope.__version__} (Apache-2.0): torch and transformers run it.
# Put together from the package's own source: what is wrong here is to be changed there, and exported again.
# Shapes in annotations are read as those of jaxtyping, and are not evaluated.
from __future__ import annotations

"""
