"""Names that stand for classes: shipped ones, those that installed packages register, and `package.module:Class`.

A name in a file is data, and importing a module runs its code. So a class is imported only for a name that the user
gave (inside `own_words`: a config, a flag, a recipe) or that an installed package registered as an entry point. A
name that comes with a folder, which may be a stranger's, finds modules that are imported already, and no others.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from typing import Any, Generic, TypeVar, cast

from loopscope.results.declaration import DOCS, UNDECLARED, AbstractDeclaration, check_fields

Declaration = TypeVar("Declaration")

_OWN_WORDS: ContextVar[bool] = ContextVar("own_words", default=False)


@contextmanager
def own_words() -> Iterator[None]:
    """Names met inside are the user's own, so that the module one names is imported, also from the current folder."""
    before = _OWN_WORDS.set(True)
    try:
        yield
    finally:
        _OWN_WORDS.reset(before)


_VOUCHED: set[str] = set()
"""Modules and packages that the user has asked to import: names in folders may be of these."""


def vouch_for(name: str) -> None:
    """Import a module or package of the user's, and let names in folders be of it and of the modules in it.

    Raises:
        ValueError: see `import_module`.
    """
    import_module(name)
    _VOUCHED.add(name)


def _vouched(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _VOUCHED)


def import_module(name: str) -> Any:
    """A module by its dotted name: an installed one, or one of the current folder, which is looked through last.

    Raises:
        ValueError: no such module, or one whose import fails; says where it was looked for and what failed.
    """
    if name in sys.modules:
        return sys.modules[name]
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last: a file of the user's never takes the place of an installed module
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(
                f"module {name!r} was not found, neither installed nor from the current folder {here}; run from the "
                "folder that holds it, or install its package"
            ) from error
        raise ValueError(f"module {name!r} cannot be imported: {error}") from error
    except Exception as error:  # whatever a stranger to this package does wrong is told by name
        raise ValueError(f"module {name!r} cannot be imported: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Shipped(Generic[Declaration]):
    """A variant of this package: what it declares, and where its class is, so that neither loads the other."""

    declaration: Declaration
    path: str  # module:Class


class ClassNames(Generic[Declaration]):
    """All names of one kind of variant (readouts, say), and the declarations and classes that they stand for.

    Attributes:
        noun: what one is called in messages: `readout`.
        setting: where a config names it: `model.readout.kind`.
        group: entry points under which installed packages register theirs: `loopscope.readouts`.
        shipped: those of this package.
    """

    def __init__(
        self,
        noun: str,
        setting: str,
        group: str,
        base: str,
        public: str,
        shipped: Mapping[str, Shipped[Declaration]],
        declared: Callable[[type], Declaration] | None = None,
    ) -> None:
        """
        Args:
            base: `module:Class` of what every class must inherit from; imported only where a class of others is.
            public: the name under which others import what they inherit from, for messages.
            declared: a class to its declaration; None: its attribute `declaration`.
        """
        self.noun = noun
        self.setting = setting
        self.group = group
        self.shipped = shipped
        self.public = public
        self._base = base
        self._declared = declared or self._attribute

    def installed(self) -> dict[str, metadata.EntryPoint]:
        """What installed packages register, by name. A shipped name stays what it is.

        Raises:
            ValueError: two packages that register different classes under one name.
        """
        found: dict[str, metadata.EntryPoint] = {}
        for entry in metadata.entry_points(group=self.group):
            other = found.get(entry.name)
            if other is not None and other.value != entry.value:
                raise ValueError(
                    f"{self.noun} {entry.name!r} is registered twice, as {other.value} and as {entry.value}; uninstall "
                    f"one of the two packages, or name the class itself ({self.setting}: {entry.value})"
                )
            if entry.name not in self.shipped:
                found[entry.name] = entry
        return found

    def is_own(self, name: str) -> bool:
        """Whether a name has the form of a class, or is one that an installed package registered."""
        return ":" in name or (name not in self.shipped and name in self.installed())

    def check(self, name: str) -> str:
        """The name, if it stands for a class that declares what it is.

        Raises:
            ValueError: see `load`.
        """
        self.declaration(name)
        return name

    def declaration(self, name: str) -> Declaration:
        """What a variant declares. A shipped one's class is not loaded for it.

        Raises:
            ValueError: see `load`; a class that leaves out what it must declare, with what that is.
        """
        if name in self.shipped:
            return self.shipped[name].declaration
        return self._declared(self.load(name))

    def settings(self, name: str, given: Mapping[str, Any]) -> Any:
        """A variant's own settings, as an instance of the pydantic model that it declares; None where it has none.

        Raises:
            ValueError: settings for a variant that has none, unknown ones, values that do not fit.
        """
        kind = getattr(self.declaration(name), "settings", None)
        if kind is None:
            if given:
                raise ValueError(
                    f"{', '.join(given)}: {self.noun} {name!r} has no settings of its own; remove them (one that has "
                    f"some declares settings=…: {DOCS})"
                )
            return None
        for key in given:
            if key not in kind.model_fields:
                near = get_close_matches(key, kind.model_fields, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(kind.model_fields)}"
                raise ValueError(f"{self.noun} {name!r} has no setting {key!r}; {hint}")
        try:
            return kind.model_validate(dict(given))
        except ValueError as error:
            entries = error.errors() if hasattr(error, "errors") else []
            words = [
                f"{'.'.join(map(str, entry['loc']))} is {entry['input']!r}: {entry['msg']}"
                for entry in entries
            ]
            raise ValueError(f"settings of {self.noun} {name!r}: {'; '.join(words) or error}") from None

    def load(self, name: str) -> Any:
        """The class that a name stands for.

        Raises:
            ValueError: a name that is not known, with the nearest and both ways to add one; a module that is not
                there, or that nobody but a folder's config names; something that is no class of this kind.
        """
        if name in self.shipped:
            return _attribute_of(self.shipped[name].path)
        if ":" in name:
            return self._checked(name, self._own(name))
        installed = self.installed()
        if name not in installed:
            raise ValueError(self._unknown(name, list(installed)))
        try:
            found = installed[name].load()
        except Exception as error:
            raise ValueError(
                f"{self.noun} {name!r} is registered as {installed[name].value}, which cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        return self._checked(name, found)

    def _own(self, name: str) -> Any:
        module, _, attribute = name.partition(":")
        if not all(part.isidentifier() for part in [*module.split("."), attribute]):
            raise ValueError(f"{self.noun} {name!r} is not of the form package.module:ClassName; see {DOCS}")
        if module not in sys.modules and not (_OWN_WORDS.get() or _vouched(module)):
            raise ValueError(
                f"{self.noun} {name!r} is of another package, and its module is not imported: a folder may be a "
                f"stranger's, so a name in it runs no code. If it is yours: `loopscope --import {module} COMMAND …`, "
                f"LOOPSCOPE_IMPORT={module} in the environment, `import {module}` first in Python, or an entry point "
                f"of group {self.group} ({DOCS})"
            )
        loaded = import_module(module)
        if not hasattr(loaded, attribute):
            near = get_close_matches(attribute, vars(loaded), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            where = getattr(loaded, "__file__", None) or module
            raise ValueError(f"{self.noun} {name!r}: {where} has no {attribute!r}{hint}")
        return getattr(loaded, attribute)

    def _checked(self, name: str, found: Any) -> Any:
        base = _attribute_of(self._base)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise ValueError(
                f"{self.noun} {name!r} is no {self.public.rpartition('.')[2]}; inherit from {self.public} ({DOCS})"
            )
        if inspect.isabstract(found):
            left = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            raise ValueError(f"{self.noun} {name!r} does not define {left}, which every {self.noun} has")
        return found

    def _attribute(self, found: type) -> Declaration:
        # Its own, not its parent's: what a subclass changes, only its author knows.
        declaration: Any = vars(found).get("declaration", UNDECLARED)
        if declaration is UNDECLARED:
            self.refuse_undeclared(found, ["declaration"])
        wanted = type(next(iter(self.shipped.values())).declaration)
        assert issubclass(wanted, AbstractDeclaration)
        owner = self.owner(found)
        if not isinstance(declaration, wanted):
            raise ValueError(
                f"{owner} has a {type(declaration).__name__} as its declaration; give a {wanted.__name__} ({DOCS})"
            )
        self.refuse_undeclared(found, declaration.missing())
        check_fields(owner, declaration, wanted.kinds())
        return cast(Declaration, declaration)

    def owner(self, found: type) -> str:
        """Return what messages call a class: `readout package.module:ClassName`."""
        return f"{self.noun} {found.__module__}:{found.__qualname__}"

    def refuse_undeclared(self, found: type, missing: Sequence[str]) -> None:
        """Raise ValueError where a class leaves out some of what it must declare."""
        if missing:
            raise ValueError(
                f"{self.owner(found)} does not declare {', '.join(missing)}: audits and costs ask it and guess "
                f"nothing. {DOCS} says what each means"
            )

    def _unknown(self, name: str, installed: Sequence[str]) -> str:
        near = get_close_matches(name, [*self.shipped, *installed], n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        more = f", installed {', '.join(installed)}" if installed else ""
        return (
            f"unknown {self.noun} {name!r}{hint} Known: {', '.join(self.shipped)}{more}. One of your own is named "
            f"package.module:ClassName, or registered as an entry point of group {self.group} ({DOCS})"
        )


def _attribute_of(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
