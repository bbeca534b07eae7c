"""`loopscope list`: the runs and studies in a folder, and how far each is."""

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from loopscope.cli.arguments import parse

if TYPE_CHECKING:
    from loopscope.jobs.listed_runs import ListedRun

NAME = 24
"""Columns of a run's name on a terminal of 80."""


@dataclass(frozen=True)
class ListRuns:
    """List the runs and studies in a folder: running (by which process), finished, diverged, failed or interrupted, at
    which step of how many, with the last loss and the verdict on the state's scale.

    The loss is the last loop's on the validation text, or with a * the training loss. The verdict is the audit's; with
    (m) the scale monitor's; with (c) what the config alone says.

    Example:
        loopscope list
        loopscope list runs --json
    """

    folder: tyro.conf.Positional[Path | None] = None
    """Where to look, also below it; runs, or else this folder, by default."""
    json: bool = False
    """One JSON object a line, a run each."""


def list_runs(arguments: Sequence[str]) -> None:
    """`loopscope list`."""
    command = parse(ListRuns, "list", arguments)
    folder = command.folder or (Path("runs") if Path("runs").is_dir() else Path())
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is {'a file' if folder.exists() else 'not there'}; name a folder to look in"
        )
    from loopscope.jobs import runs_below

    runs = runs_below(folder)
    if command.json:
        for run in runs:
            print(json.dumps(_plain(run), ensure_ascii=False))
        return
    if not runs:
        print(f"no runs in {folder}; loopscope train --out {folder / 'first'} makes one")
        return
    wide = not sys.stdout.isatty()
    print(f"{'run':{NAME}}  {'state':16} {'step':>13} {'loss':>8}  verdict")
    study = None
    for run in runs:
        if run.study != study:
            study = run.study
            if study is not None:
                own = Counter(each.now.state for each in runs if each.study == study)
                counts = ", ".join(f"{number} {state}" for state, number in own.items())
                print(f"{study}: a study of {own.total()} runs, {counts}")
        print(run_line(run, folder, wide))


def run_line(run: "ListedRun", folder: Path, wide: bool) -> str:
    """Return a run's line: of its name as much as fits, or `wide` all of it."""
    now = run.now
    name = f"  {run.condition}, {run.seed}" if run.study is not None else _beside(now.path, folder)
    shown = name if wide or len(name) <= NAME else f"{name[: NAME - 1]}…"
    state: str = now.state
    if now.holder is not None:
        state = f"running, {now.holder.pid}"
    loss = "" if now.loss is None or math.isnan(now.loss) else f"{now.loss:.3f}"
    loss += "*" if now.loss_of == "training" else " " * bool(loss)
    verdict = f"{run.verdict}{ {'audit': '', 'monitor': ' (m)', 'config': ' (c)'}[run.verdict_of] }"
    of = "?" if run.steps is None else f"{run.steps:,}"
    return f"{shown:{NAME}}  {state:16} {f'{now.step:,}/{of}':>13} {loss:>8}  {verdict}".rstrip()


def _beside(path: Path, folder: Path) -> str:
    return str(path) if path == folder else str(path.relative_to(folder))


def _plain(run: "ListedRun") -> dict[str, Any]:
    values = asdict(run)
    now = values.pop("now")
    shown = {**{key: value for key, value in values.items() if key != "study"}, **now}
    shown["verdict"], shown["verdict_of"] = run.verdict, run.verdict_of
    if isinstance(shown["loss"], float) and not math.isfinite(shown["loss"]):
        shown["loss"] = None
    return {
        "path": str(run.now.path),
        "study": None if run.study is None else str(run.study),
        **{key: value for key, value in shown.items() if key != "path"},
    }
