"""The runs and studies below a folder, each with how far it is and of how many steps."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loopscope.config.nested import read_yaml
from loopscope.config.run_config import kept_config
from loopscope.plan.static_audit import audit_config
from loopscope.results.layout import CONFIG
from loopscope.results.run_states import RunState, run_state, studies_and_runs


@dataclass(frozen=True)
class ListedRun:
    """A run in a folder.

    Attributes:
        study: it belongs to.
        steps: it is to take; None where its epochs say, and no checkpoint has shown what that comes to.
        verdict: of its audit, else of the scale monitor, else what its config alone says.
    """

    now: RunState
    study: Path | None
    condition: str
    size: str
    seed: int
    steps: int | None
    verdict: str
    verdict_of: Literal["audit", "monitor", "config"]


def runs_below(folder: str | Path) -> list[ListedRun]:
    """Return the runs below a folder, those of a study together. Nothing is written, and no lock is held.

    A folder whose config this version does not read is left out with a warning that names it.
    """
    found: list[ListedRun] = []
    study: Path | None = None
    for path, whole in studies_and_runs(folder):
        if whole:
            study = path
            continue
        inside = study if study is not None and path.is_relative_to(study) else None
        try:
            found.append(_listed(path, inside))
        except ValueError as error:
            warnings.warn(f"{path} is left out: {error}", stacklevel=2)
    return found


def _listed(run: Path, study: Path | None) -> ListedRun:
    config = kept_config(read_yaml(run / CONFIG), str(run / CONFIG))
    now = run_state(run)
    steps = config.training.steps
    if now.state == "finished" and steps is None:
        steps = now.step
    if now.state == "finished" and steps is not None and now.step < steps:  # made longer, and cut short
        now = RunState(**{**vars(now), "state": "interrupted"})
    verdict: Any = (now.verdict, now.verdict_of) if now.verdict else (audit_config(config).verdict, "config")
    return ListedRun(
        now=now,
        study=study,
        condition=config.condition,
        size=config.size,
        seed=config.training.seed,
        steps=steps,
        verdict=verdict[0],
        verdict_of=verdict[1],
    )
