"""Check types and shapes of every annotated function of the package at run time, at half the cost of jaxtyping's own.

`jaxtyping.install_import_hook` decorates every function with `jaxtyped(typechecker=…)`, which binds the arguments to
the signature and checks the parameters twice: alone before the call, and with the result after it. An audit of a tiny
model took three times as long for it. Here beartype wraps the function itself: it checks the parameters before the call
and the result after it, all within one scope of axis sizes, so what is refused is the same: a type, a dtype, a number
of axes, and an axis that has two sizes between parameters and result.

What a function's first calls in a test have not shown, its hundredth hardly does: after `CALLS` of them only those are
checked that come twice as late as the one before, until the next test begins. Tests that train or draw examples call
the same few functions thousands of times. A function that
is defined inside another is a new one at every call of that, and to wrap it takes beartype a millisecond: it is checked
the first times that a test defines it.
"""

import functools
import inspect
import typing
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jaxtyping
from beartype import beartype

jaxtyped = jaxtyping.jaxtyped
_SCOPE = jaxtyped("context")  # of the sizes of axes; entering it anew makes a new one

CALLS = 8
"""First calls of a function with axes that are checked within one test; after them the 16th, 32nd, 64th and so on."""

DEFINITIONS = 2
"""Times that a function inside another is defined within one test and checked."""

_tests_begun = 0
_defined: Counter[tuple[str, int]] = Counter()


def install(modules: Sequence[str]) -> None:
    """Check everything that is imported from these packages and modules from now on."""
    jaxtyping.jaxtyped = checked  # the name that the import hook's decorators look up
    jaxtyping.install_import_hook(modules, "beartype.beartype")


def begin_test() -> None:
    """Check the next calls of every function again."""
    global _tests_begun
    _tests_begun += 1
    _defined.clear()


def checked(function: Any = None, *, typechecker: Any = None) -> Any:
    """Return a function that refuses arguments and results that do not fit its annotations.

    Records, whose fields jaxtyping checks, and generators, whose result it takes for one, are left to it; so is a
    function with an annotation that names what is not there. An axis written as `{parameter}` is not known here.
    """
    if function is None:
        return checked
    if function == "context":
        return _SCOPE
    if isinstance(function, property):
        return property(*(part and checked(part) for part in (function.fget, function.fset, function.fdel)))
    if isinstance(function, classmethod | staticmethod):
        return type(function)(checked(function.__func__))
    if inspect.isfunction(function) and "<locals>" in function.__qualname__ and _defined_often(function):
        return function
    hints = _hints(function)
    if hints is None:
        return _by_jaxtyping(function)
    bearing = beartype(function)
    return _at_first(_in_a_scope(bearing), function) if any(map(_has_axes, hints.values())) else bearing


def _defined_often(function: Any) -> bool:
    place = (function.__code__.co_filename, function.__code__.co_firstlineno)
    _defined[place] += 1
    return _defined[place] > DEFINITIONS


def _hints(function: Any) -> dict[str, Any] | None:
    if not inspect.isfunction(function) or inspect.isgeneratorfunction(function):
        return None
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        return None


def _has_axes(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    parts = typing.get_args(hint)
    return any(map(_has_axes, parts[0] if parts and isinstance(parts[0], list) else parts))


def _by_jaxtyping(function: Any) -> Any:
    if not inspect.isclass(function):
        return _at_first(jaxtyped(function, typechecker=beartype), function)
    plain = function.__init__  # type: ignore[misc]
    found = jaxtyped(function, typechecker=beartype)
    if found.__init__ is not plain:  # a record
        found.__init__ = _at_first(found.__init__, plain)
    return found


def _in_a_scope(bearing: Callable[..., Any]) -> Callable[..., Any]:
    def scoped(*arguments: Any, **named: Any) -> Any:
        with _SCOPE:
            return bearing(*arguments, **named)

    return scoped


def _at_first(checking: Any, plain: Any) -> Any:
    """Return a function that is the first one for some calls of every test, and else the second."""
    begun, calls = 0, 0

    @functools.wraps(plain)
    def limited(*arguments: Any, **named: Any) -> Any:
        nonlocal begun, calls
        if begun != _tests_begun:
            begun, calls = _tests_begun, 0
        calls += 1
        if calls > CALLS and calls & (calls - 1):
            return plain(*arguments, **named)
        return checking(*arguments, **named)

    return limited
