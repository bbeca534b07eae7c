"""Names of classes as tables have room for them: the class's own name, where that tells them apart."""

import re
from collections.abc import Iterable

_CLASS = re.compile(r"(?:\w+\.)+(\w+:(\w+))")
"""`package.module:ClassName`, also inside a condition's name; a module without a package is short enough."""


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return what a table calls each of some names: `GapStall` for `mine.rules:GapStall`, anything else as it is.

    Where two would look alike, both have their module too; where that does not help, both stay whole.
    """
    whole = list(dict.fromkeys(names))
    found: dict[str, str] = {}
    for part in (2, 1):
        left = [name for name in whole if name not in found]
        short = {name: _CLASS.sub(lambda match, part=part: match[part], name) for name in left}  # type: ignore[misc]
        taken = [*short.values(), *found.values()]
        found |= {name: text for name, text in short.items() if taken.count(text) == 1}
    return {name: found.get(name, name) for name in whole}
