"""Whose a study's folder is: one size and one set of settings for all its runs, kept in study.yaml.

Beside them stand the conditions, seeds and variants that were named so far, so that going on needs no word about them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from loopscope.config.families import Change
from loopscope.config.nested import merged, read_yaml
from loopscope.config.sizes import size_change
from loopscope.jobs.folder import refuse_difference
from loopscope.jobs.study_results import BRIEFLY
from loopscope.results.layout import STUDY, is_study, visible, write_text
from loopscope.results.lock import hold

OF_TRACKERS = ("log", "log_project")


def claim(out: Path, size: str, over: Mapping[str, Any]) -> dict[str, Any]:
    """Make `out` this study's folder, and return what its runs share now. More steps make it longer.

    Raises:
        ValueError: a folder of something else, or of a study with other settings; names those that differ.
    """
    base = check_claim(out, size, over)
    if not is_study(out):
        with hold(out, wait=BRIEFLY):
            if not is_study(out):
                write_text(out / STUDY, yaml.safe_dump(base, sort_keys=False))
        return check_claim(out, size, over)  # another process may have been first
    return base


def check_claim(out: Path, size: str, over: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a study's runs share, where `out` is its folder or could become it. Writes nothing.

    Raises:
        ValueError: a folder of something else, or of a study with other settings; names those that differ.
    """
    base: dict[str, Any] = _as_written({"size": size, "over": over})
    if not is_study(out):
        if out.exists() and (not out.is_dir() or visible(out)) and not is_study(out):
            raise ValueError(f"{out} is not empty and holds no study; name a new folder, nothing was touched")
        return base
    there = _as_long(_logged_as(base, _shared(read_yaml(out / STUDY))), base)
    there, now = ({"size": values["size"], **values["over"]} for values in (there, base))
    refuse_difference(there, now, out)
    return base


def keep_named(
    out: Path, base: Mapping[str, Any], conditions: Mapping[str, Change | None], seeds: Sequence[int]
) -> bool:
    """Keep what a study is from now on; return whether its runs are as long as before.

    Args:
        base: what `claim` returned.
        conditions: what each changes, by name: see `own_conditions`.
    """
    with hold(out, wait=BRIEFLY):  # others may name more at this moment
        kept = read_yaml(out / STUDY)
        changed = {name: change for name, change in conditions.items() if change is not None}
        now = _as_written(
            {
                **base,
                "conditions": list(dict.fromkeys([*(kept.get("conditions") or ()), *conditions])),
                "seeds": sorted({*(kept.get("seeds") or ()), *seeds}),
                "variants": {**(kept.get("variants") or {}), **changed},
            }
        )
        if not now["variants"]:
            del now["variants"]
        if now != kept:
            write_text(out / STUDY, yaml.safe_dump(now, sort_keys=False))
    return _logged_as(base, _shared(kept)) == base


def _shared(kept: Mapping[str, Any]) -> dict[str, Any]:
    return {"size": kept.get("size"), "over": kept.get("over") or {}}


def _logged_as(base: Mapping[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """What a study's folder says, with the trackers that are named now: any part of it may have its own."""
    now = _training(base["over"])
    own = {name: value for name, value in _training(there["over"]).items() if name not in OF_TRACKERS}
    named = {name: now[name] for name in OF_TRACKERS if name in now}
    rest = {name: value for name, value in there["over"].items() if name != "training"}
    section = {"training": {**own, **named}} if own or named or "training" in base["over"] else {}
    return {**there, "over": {**rest, **section}}


def _as_long(there: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """What a study's folder says, with a later end where `base` names one, in the unit that it had."""
    sizes = size_change(base["size"]).get("training", {})
    kept, asked = (_training(values["over"]) for values in (there, base))
    for name in ("steps", "epochs"):
        before, after = ({**sizes, **values}.get(name) for values in (kept, asked))
        if name not in asked or not isinstance(before, int | float) or not isinstance(after, int | float):
            continue
        if after > before:
            return merged(there, {"over": {"training": {name: after}}})
    return there


def _training(over: Any) -> dict[str, Any]:
    section = over.get("training") if isinstance(over, dict) else None
    return section if isinstance(section, dict) else {}


def _as_written(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they come back from YAML."""
    found: dict[str, Any] = yaml.safe_load(yaml.safe_dump(_plain(values)))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
