"""What a tracker of runs implements: numbers, figures by loop, texts and files of one run."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LoggedRun:
    """A run as trackers know it.

    Attributes:
        folder: of the run; a tracker that writes files puts them there.
        name: what it is called beside others of its project.
        project: what trackers that have projects file it under.
        identity: by which a tracker finds it again when it goes on: in `trackers.json` of its folder.
        loops: that have lines in charts by loop: all, or so many of a deep model as can be told apart.
        config: resolved, as nested plain values.
        before: step and charts by loop of all that it has logged, where the tracker has it already; None: it is new.
    """

    folder: Path
    name: str
    project: str
    identity: str
    loops: Sequence[int]
    config: Mapping[str, Any]
    before: Sequence[tuple[int, Mapping[str, Mapping[int, float]]]] | None = None


class AbstractLogger(ABC):
    """One tracker, open on one run. Made with a `LoggedRun`; what goes wrong raises, and `LoggerGroup` goes on without.

    A tracker draws a chart by loop as ONE chart with a line per loop, on the page that it opens with.
    """

    @abstractmethod
    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Take one point of each curve: name (`train/loss`) to value."""

    @abstractmethod
    def by_loop(self, step: int, values: Mapping[str, Mapping[int, float]]) -> None:
        """Take one point of every line of each chart by loop: name (`loops/scale_rms`) to loop (1-based) to value."""

    @abstractmethod
    def text(self, title: str, text: str) -> None:
        """Keep a text (Markdown) with the run; one of the same title takes its place."""

    @abstractmethod
    def file(self, path: Path) -> None:
        """Keep a file with the run: as an artifact where the tracker has those."""

    @abstractmethod
    def close(self) -> None:
        """Hand everything over and let go of the run; it can be opened again."""
