"""A process that trains the runs of a study that it is told to: `python -m loopscope.jobs.cell_worker`.

`side_by_side` starts it. Each line that comes in is a run, each line that goes out says how that went; all else that is
printed goes to stderr. Where its input ends without a word, the one who started it is gone: it saves and stops.
"""

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

NO_MORE = "end"
"""Of a line that comes in: there is nothing left to do."""


class WorkerStoppedError(KeyboardInterrupt):
    """SIGTERM, where no training is that would finish its step first."""


def serve() -> None:
    """Train what comes in until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints, prints to the log
    signal.signal(signal.SIGTERM, _stop)
    lines: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    import torch

    threads = torch.get_num_threads()
    while not (line := lines.get()).get(NO_MORE):
        torch.set_num_threads(threads)  # a run that went on has had its own
        print(json.dumps(train_line(line)), file=answers, flush=True)


def cell_line(run: Path, config: Mapping[str, Any], before: str | None) -> str:
    """Return the line that tells a worker to train a run."""
    return json.dumps({"run": str(run), "config": config, "before": before})


def train_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """Train the run that a line names, and return what to answer: `held` by whom, or `refused` by the system."""
    from loopscope.config.run_config import parse_config
    from loopscope.jobs.study import train_cell
    from loopscope.jobs.study_cells import Cell, result_mark
    from loopscope.results.class_names import own_words
    from loopscope.results.faults import in_words
    from loopscope.results.lock import FolderHeldError, hold
    from loopscope.training.progress import ProgressDisplay

    with own_words():  # the user's: whoever sent the line has checked it
        config = parse_config(line["config"])
    cell = Cell(Path(line["run"]), config, config, line["before"])
    display = ProgressDisplay("study", 1, 0)
    try:
        with hold(cell.run):
            if result_mark(cell.run) == cell.before:
                display.say(cell.name)
                train_cell(cell, display, quiet=False)
    except FolderHeldError as error:
        if error.folder != cell.run:
            raise
        return {"held": str(error.holder)}
    except OSError as error:  # its folder cannot even be held
        return {"refused": in_words(error)}
    return {}


def _stop(number: int, frame: FrameType | None) -> None:
    raise WorkerStoppedError


def _read(lines: "queue.Queue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        lines.put(json.loads(line))
        if json.loads(line).get(NO_MORE):
            return
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    try:
        serve()
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGTERM) from None
