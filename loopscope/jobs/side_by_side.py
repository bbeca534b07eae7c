"""Runs of a study at the same time on one machine, each in a process of its own that has its cores and its GPU.

A worker takes one run after the other. One that is killed is replaced: its run goes on from what it had saved, and is a
failure where that happens again. Ctrl-C and SIGTERM stop all of them once each has finished its step and saved.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path

from loopscope.jobs.cell_rows import CellRows
from loopscope.jobs.cell_worker import NO_MORE, cell_line
from loopscope.jobs.lost_run import record_failure
from loopscope.jobs.places import Workplace
from loopscope.jobs.study_board import StudyBoard
from loopscope.jobs.study_cells import Cell
from loopscope.jobs.study_results import collect_meanwhile
from loopscope.results.layout import worker_log

LOOK_EVERY = 1.0
"""Seconds between looks at how far all are."""
MOST_DEATHS = 2
"""Of workers with one run: after that it has failed."""


class StudyStoppedError(KeyboardInterrupt):
    """A study whose runs were asked to stop, and have saved where they stood.

    Attributes:
        signal: which one asked.
    """

    def __init__(self, number: int, runs: int) -> None:
        self.signal = number
        super().__init__(
            f"stopped by {signal.Signals(number).name}; {runs} runs were under way, and each has saved"
        )


class Worker:
    """A process that trains one run at a time in its place.

    Attributes:
        cell: that it trains now.
    """

    def __init__(
        self, place: Workplace, out: Path, answers: "queue.Queue[tuple[Worker, str | None]]"
    ) -> None:
        self.place = place
        self.cell: Cell | None = None
        self.log = worker_log(out, place.number)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        package = str(Path(__file__).parent.parent.parent)
        paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "loopscope.jobs.cell_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **place.environment(), "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C reaches this process alone, which asks each to stop, once
            )
        threading.Thread(target=self._listen, args=(answers,), daemon=True).start()

    def take(self, cell: Cell) -> None:
        """Give it a run to train."""
        self.cell = cell
        self._tell(cell_line(cell.run.absolute(), cell.asked.model_dump(mode="json"), cell.before))

    def end(self) -> None:
        """Let it end, as it has nothing left to do."""
        self._tell(json.dumps({NO_MORE: True}))

    def ask_to_stop(self) -> None:
        """Ask it to finish its step, save and end; asked again, to end at once."""
        if self.process.poll() is None:
            self.process.terminate()

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: that is heard from its other end
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()

    def _listen(self, answers: "queue.Queue[tuple[Worker, str | None]]") -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answers.put((self, line))
        self.process.wait()
        answers.put((self, None))


def train_side_by_side(
    cells: list[Cell], places: list[Workplace], out: Path, quiet: bool, wait: bool
) -> None:
    """Train cells at the same time, one in each place. Those that other processes hold come last, or are left to them.

    Raises:
        StudyStoppedError: (a KeyboardInterrupt) Ctrl-C or SIGTERM: every run has finished its step, and is saved.
    """
    board = StudyBoard("study", len(cells), quiet)
    crew = _Crew(cells, places, out, board, wait)
    with board:
        try:
            crew.work()
        except KeyboardInterrupt as stop:
            crew.stop(int(getattr(stop, "signal", signal.SIGINT)))
        finally:
            crew.end()


class _Crew:
    """The workers of a study, and what each has to do."""

    def __init__(
        self, cells: list[Cell], places: list[Workplace], out: Path, board: StudyBoard, wait: bool
    ) -> None:
        self.cells, self.out, self.board, self.wait = cells, out, board, wait
        self.rows = CellRows(cells)
        self.free = deque(places[: len(cells)])
        self.todo = deque(cells)
        self.held: list[tuple[Cell, str]] = []
        self.deaths: Counter[Path] = Counter()
        self.answers: queue.Queue[tuple[Worker, str | None]] = queue.Queue()
        self.workers: list[Worker] = []
        self.said = False

    def work(self) -> None:
        """Give out runs until all are done."""
        while True:
            idle = [worker for worker in self.workers if worker.cell is None]
            while self.todo and (idle or self.free):
                if not idle:
                    idle.append(Worker(self.free.popleft(), self.out, self.answers))
                    self.workers.append(idle[0])
                idle.pop(0).take(self.todo.popleft())
            if not any(worker.cell for worker in self.workers) and not self._waits_for_others():
                return
            with suppress(queue.Empty):
                self._hear(*self.answers.get(timeout=LOOK_EVERY))
            self._show()

    def _waits_for_others(self) -> bool:
        """Whether runs that others hold are to be tried again; says so once."""
        if self.held and not self.said:
            self.said = True
            whose = "; ".join(f"{cell.name}: {holder}" for cell, holder in self.held)
            does = "waiting for" if self.wait else "left to their processes:"
            self.board.say(f"{does} {len(self.held)} of {len(self.cells)} that others train ({whose})")
        if self.held and self.wait:
            with suppress(queue.Empty):
                self._hear(*self.answers.get(timeout=LOOK_EVERY))
            self.todo.extend(cell for cell, _ in self.held)
            self.held.clear()
        return bool(self.todo)

    def _hear(self, worker: Worker, line: str | None) -> None:
        cell, worker.cell = worker.cell, None
        if line is None:
            self.workers.remove(worker)
            self.free.append(worker.place)
            if cell is not None:
                self._lost(worker, cell)
            return
        assert cell is not None
        answer = json.loads(line)
        if "held" in answer:
            self.held.append((cell, answer["held"]))
            return
        if "refused" in answer:
            self.board.say(f"{cell.name} failed: {answer['refused']}")
        collect_meanwhile(self.out, self.board.say)

    def _lost(self, worker: Worker, cell: Cell) -> None:
        """A worker ended while it had a run: that goes on in another, or has failed for good."""
        code = worker.process.returncode
        how = f"exit status {code}" if code >= 0 else signal.Signals(-code).name
        hint = "; memory may have run out" if code == -signal.SIGKILL else ""
        self.deaths[cell.run] += 1
        if self.deaths[cell.run] < MOST_DEATHS:
            self.board.say(
                f"{cell.name}: its process was ended ({how}{hint}); it goes on from what was saved"
            )
            self.todo.appendleft(cell)
            return
        said = (
            f"its process was ended {MOST_DEATHS} times (the last time: {how}{hint}); its log is {worker.log}"
        )
        record_failure(cell, said, self.board.say)
        collect_meanwhile(self.out, self.board.say)

    def _show(self) -> None:
        where = {worker.cell.run: f"worker {worker.place.number}" for worker in self.workers if worker.cell}
        self.board.show(self.rows.now({run: ("running", text) for run, text in where.items()}))

    def stop(self, number: int) -> None:
        """Ask all to stop, wait for them, and raise; asked again meanwhile, they end at once."""
        under_way = [worker for worker in self.workers if worker.cell]
        self.board.say("finishing the steps under way, then saving; once more to stop at once")
        self._ask_all()
        while any(worker.process.poll() is None for worker in self.workers):
            try:
                with suppress(queue.Empty):
                    self.answers.get(timeout=LOOK_EVERY)
            except KeyboardInterrupt:
                self._ask_all()
        collect_meanwhile(self.out, self.board.say)
        raise StudyStoppedError(number, len(under_way)) from None

    def _ask_all(self) -> None:
        for worker in self.workers:
            worker.ask_to_stop()

    def end(self) -> None:
        """Let all end: those that have nothing left, and where something went wrong here, the others too, saved."""
        for worker in self.workers:
            worker.end()
            if worker.cell is not None:
                worker.ask_to_stop()
        for worker in self.workers:
            worker.process.wait()
