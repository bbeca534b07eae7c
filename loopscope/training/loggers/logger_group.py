"""All trackers of a run as one, none of which can stop it.

A tracker that raises, at its start or in mid-run, is told once and left out from then on: training computes the same
with and without. A run that goes on is the same run to its trackers: `trackers.json` in its folder has its identity and
what each has, so that records that are written again after a checkpoint are not sent again, and a tracker that comes to
a run late is given what the run has logged so far.
"""

import json
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from loopscope.optional_packages import needed
from loopscope.results.faults import in_words
from loopscope.results.layout import METRICS, TRACKERS, write_text
from loopscope.training.loggers.base import AbstractLogger, LoggedRun
from loopscope.training.loggers.charts import charts_of

LOGGERS = {"tensorboard": "TensorboardLogger", "trackio": "TrackioLogger", "wandb": "WandbLogger"}
"""Class of each, in the file of its name here; the library has that name too."""


class LoggerGroup:
    """Trackers that are open on one run; empty where none is asked for.

    Args:
        names: of `LOGGERS`.
        run: its `identity` and `before` are taken from its folder where a tracker had it before.
        dim: width of the hidden state.
        records: what the run's metrics hold so far, also what comes after its checkpoint.
    """

    def __init__(
        self, names: Sequence[str], run: LoggedRun, dim: int, records: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.run, self.dim = run, dim
        self.open: dict[str, AbstractLogger] = {}
        if not names:
            return
        kept = kept_trackers(run.folder)
        identity = str(kept.get("identity") or secrets.token_hex(4))
        had: dict[str, dict[str, int]] = kept.get("loggers") or {}
        now = _last_steps(records)
        earlier = [(record["step"], self._lines(record)) for record in records]
        self.has: dict[str, dict[str, int]] = {}
        for name in names:
            before = had.get(name)
            self.run = replace(run, identity=identity, before=None if before is None else earlier)
            try:
                self.open[name] = logger_class(name)(self.run)
            except Exception as error:
                self._leave(name, error)
                continue
            self.has[name] = {
                kind: max((before or {}).get(kind, 0), now.get(kind, 0)) for kind in {*(before or ()), *now}
            }
            if before is None:
                for record in records:
                    self._send(name, record)
        kept = {
            "identity": identity,
            "project": run.project,
            "name": run.name,
            "loggers": {**had, **self.has},
        }
        with suppress(OSError):  # a full disk is no reason to stop: what goes on then has a run of its own
            write_text(run.folder / TRACKERS, json.dumps(kept, indent=1))

    def record(self, record: Mapping[str, Any]) -> None:
        """Give every tracker a record of the metrics, if it has it not yet."""
        for name in list(self.open):
            if record["step"] > self.has[name].get(record["kind"], -1):
                self._send(name, record)

    def text(self, title: str, text: str) -> None:
        """Keep a text with the run."""
        self._each(lambda logger: logger.text(title, text))

    def file(self, path: Path) -> None:
        """Keep a file with the run."""
        self._each(lambda logger: logger.file(path))

    def close(self) -> None:
        """Close every tracker."""
        self._each(lambda logger: logger.close())
        self.open.clear()

    def _send(self, name: str, record: Mapping[str, Any]) -> None:
        numbers, lines = charts_of(record, self.dim).numbers, self._lines(record)

        def send(logger: AbstractLogger) -> None:
            if numbers:
                logger.numbers(record["step"], numbers)
            if lines:
                logger.by_loop(record["step"], lines)

        self._try(name, send)

    def _lines(self, record: Mapping[str, Any]) -> dict[str, dict[int, float]]:
        """The charts by loop that a record adds to, of the loops that have a line."""
        return {
            chart: {loop: value for loop, value in line.items() if loop in self.run.loops}
            for chart, line in charts_of(record, self.dim).by_loop.items()
        }

    def _each(self, act: Callable[[AbstractLogger], None]) -> None:
        for name in list(self.open):
            self._try(name, act)

    def _try(self, name: str, act: Callable[[AbstractLogger], None]) -> None:
        logger = self.open.get(name)
        if logger is None:
            return
        try:
            act(logger)
        except Exception as error:
            del self.open[name]
            self._leave(name, error)

    def _leave(self, name: str, error: Exception) -> None:
        said = in_words(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        warnings.warn(
            f"the logger {name} failed ({said}): it is left out, and nothing else changes; all figures are in "
            f"{self.run.folder / METRICS}",
            stacklevel=2,
        )


def check_loggers(names: Sequence[str]) -> None:
    """Refuse a logger whose library is not installed.

    Raises:
        ValueError: which, and how it is installed.
    """
    for name in names:
        try:
            import_module(name)
            logger_class(name)
        except ImportError as error:
            sentence = needed(f"training.log {name!r}", [name], error)
            raise ValueError(f"{sentence}, or leave it out. Nothing was touched") from None
        except Exception:  # it is there, and broken: told when it is opened, and left out
            continue


def logger_class(name: str) -> Callable[[LoggedRun], AbstractLogger]:
    """Return the class of a logger; its library is loaded when it is made."""
    found: Callable[[LoggedRun], AbstractLogger] = getattr(
        import_module(f"loopscope.training.loggers.{name}"), LOGGERS[name]
    )
    return found


def kept_trackers(run: str | Path) -> dict[str, Any]:
    """Return what a run's folder says of its trackers; empty where none has it."""
    with suppress(OSError, ValueError):
        found = json.loads((Path(run) / TRACKERS).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("loggers"), dict):
            return found
    return {}


def _last_steps(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The last step of each kind of record."""
    found: dict[str, int] = {}
    for record in records:
        found[record["kind"]] = max(record["step"], found.get(record["kind"], 0))
    return found
