"""Runs that are killed again and again, held against the same run in one piece."""

import hashlib
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors.torch import load_file

from loopscope.results.layout import checkpoint_folders, newest_checkpoint, step_in_name
from loopscope.training.checkpoint import verify
from loopscope.training.metrics import read_metrics
from tests.crash.moments import Moment, draw_moment, is_writing, last_step, wait_for
from tests.crash.trainers import INTERVAL, STEPS, Trainers, Way

KILLS_OF_A_RUN = 5
"""After so many a run is left to come to its end, and another one begins."""


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        inside_save: a checkpoint was being written: half of it lay there.
        step: the last that was logged.
        saved: the newest checkpoint's.
    """

    way: Way
    moment: Moment
    inside_save: bool
    step: int
    saved: int

    @property
    def lost(self) -> int:
        """Steps that have to be taken again."""
        return self.step - self.saved


@dataclass
class Outcome:
    """What came of the kills of one way of training."""

    way: Way
    kills: list[Kill] = field(default_factory=list)
    runs: int = 0
    equal: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def may_lose(self) -> int:
        """Steps that a kill may cost: an interval between saves; in the background, two."""
        return 2 * INTERVAL if self.way == "background" else INTERVAL

    @property
    def most_lost(self) -> int:
        """Most steps that one kill has cost."""
        return max((kill.lost for kill in self.kills), default=0)


def kill_runs(way: Way, kills: int, folder: Path, numbers: random.Random) -> Outcome:
    """Train a way in one piece, then kill runs of it so often, each to the end at last; say how they compare."""
    outcome = Outcome(way)
    whole = folder / f"{way}-whole"
    if any(codes := Trainers(way, whole).wait()):
        raise RuntimeError(f"{way}: the run in one piece ended with {codes}: {_log(whole)}")
    left = kills
    while left:
        run = folder / f"{way}-{outcome.runs}"
        outcome.runs += 1
        ended = False
        for number in range(min(left, KILLS_OF_A_RUN)):
            kill = _kill_once(way, run, numbers, number)
            if kill is None:  # it came to its end before: no kill
                ended = True
                break
            left -= 1
            outcome.kills.append(kill)
            for checkpoint in checkpoint_folders(run):
                verify(checkpoint)
        if not ended and any(codes := Trainers(way, run).wait()):
            outcome.problems.append(f"{run.name} did not resume, {codes}: {_log(run)}")
            continue
        difference = compared(whole, run)
        outcome.equal += not difference
        outcome.problems += [f"{run.name}: {difference}"] if difference else []
        shutil.rmtree(run)
    return outcome


def _kill_once(way: Way, run: Path, numbers: random.Random, number: int) -> Kill | None:
    moment = draw_moment(numbers)
    trainers = Trainers(way, run)
    came = wait_for(moment, run, INTERVAL, trainers.lives)
    if not came:
        if any(codes := trainers.wait()):
            raise RuntimeError(f"{run.name} ended with {codes} before it was killed: {_log(run)}")
        return None
    trainers.kill(moment.one, number)
    trainers.wait()
    saved = newest_checkpoint(run)
    return Kill(
        way, moment, is_writing(run), last_step(run), 0 if saved is None else step_in_name(saved) or 0
    )


def compared(whole: Path, run: Path) -> str:
    """What differs between a run in one piece and one that was killed: losses of all steps, weights, optimizer."""
    one, other = (
        [(r["kind"], r["step"], r.get("loss"), r.get("per_loop")) for r in read_metrics(path)]
        for path in (whole, run)
    )
    if [entry[1] for entry in other if entry[0] == "train"] != list(range(1, STEPS + 1)):
        return "its curve has not every step once"
    if one != other:
        return (
            f"its losses differ: {next(pair for pair in zip(one, other, strict=False) if pair[0] != pair[1])}"
        )
    if tensor_hashes(whole) != tensor_hashes(run):
        return "its last checkpoint differs"
    return ""


def tensor_hashes(run: Path) -> dict[tuple[str, str], str]:
    """SHA-256 of every tensor of a run's newest checkpoint, by file and name: headers have no fixed order."""
    checkpoint = newest_checkpoint(run)
    assert checkpoint is not None
    return {
        (path.name, name): hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for path in sorted(checkpoint.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def summary(outcomes: Sequence[Outcome], seed: int) -> dict[str, object]:
    """All that was found, as one JSON record."""
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    drawn = hashlib.sha256(repr([asdict(kill.moment) for kill in kills]).encode()).hexdigest()[:12]
    return {
        "seed": seed,
        "moments": drawn,
        "kills": len(kills),
        "inside_a_save": sum(kill.inside_save for kill in kills),
        "runs": sum(outcome.runs for outcome in outcomes),
        "equal": sum(outcome.equal for outcome in outcomes),
        "interval": INTERVAL,
        "ways": {
            outcome.way: {
                "kills": len(outcome.kills),
                "inside_a_save": sum(kill.inside_save for kill in outcome.kills),
                "runs": outcome.runs,
                "equal": outcome.equal,
                "most_lost": outcome.most_lost,
                "may_lose": outcome.may_lose,
            }
            for outcome in outcomes
        },
        "problems": [problem for outcome in outcomes for problem in outcome.problems],
    }


def _log(run: Path) -> str:
    lines = [
        line for path in run.parent.glob(f"{run.name}-*.log") for line in path.read_text().splitlines()[-4:]
    ]
    return " | ".join(lines)
