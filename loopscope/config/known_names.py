"""A name that has to be one of some: refused with the nearest one."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from loopscope.config.nested import shown


def known(what: str, name: str, names: Mapping[str, Any]) -> str:
    """Return `name` if it is one of `names`, else raise a ValueError with the nearest one."""
    if name in names:
        return name
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? There" if near else "there"
    own = (
        " (a condition of your own needs model.readout.kind, and objective.placement or objective.schedule)"
        if what == "condition"
        else ", or a number of parameters such as 350m or 1.4b"
        if what == "size"
        else ""
    )
    raise ValueError(f"{what} {shown(name)} is not known; {hint} are: {', '.join(names)}{own}")
