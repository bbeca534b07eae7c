"""Which runs of a study are trained by a call, how many at the same time, and by whom."""

import re
from dataclasses import dataclass, field
from math import gcd
from typing import Literal

from loopscope.config.nested import shown
from loopscope.config.slurm_request import SlurmRequest

Launcher = Literal["local", "slurm"]
MOST_AT_ONCE = 10_000


@dataclass(frozen=True)
class Shard:
    """One part of a study's runs, of several that together are all of them.

    Attributes:
        number: which part, from 1.
        of: how many there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def takes(self, seed: int, condition: int, conditions: int) -> bool:
        """Return whether a run is of this part, by the places of its seed and condition from 0.

        Parts differ by one run at most, and every part has its share of every seed and every condition, as far as that
        can be divided: places are dealt round, and the deal moves on by one where it would meet the same conditions
        again.
        """
        moved = seed // (self.of // gcd(conditions, self.of))
        return (seed * conditions + condition + moved) % self.of == self.number - 1


@dataclass(frozen=True)
class StudyLaunch:
    """How a call of a study trains its runs.

    Attributes:
        at_once: runs at the same time; `auto` is as many as the machine has cores or GPUs for. One is trained in this
            process, several in processes of their own. None is one here, `auto` with launcher `local`, and all that the
            cluster gives with `slurm`.
        shard: the part of the study that is this call's; None is all of it.
        launcher: None trains them here and now. `slurm` submits a job for each, `local` starts the same jobs as
            processes of this machine that outlive this one.
        slurm: what each job asks for.
    """

    at_once: int | Literal["auto"] | None = None
    shard: Shard | None = None
    launcher: Launcher | None = None
    slurm: SlurmRequest = field(default_factory=SlurmRequest)


def shard_of(text: str) -> Shard:
    """Return the part of a study that a text such as 2/4 names.

    Raises:
        ValueError: no two whole numbers, or a part that there is not.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip(), re.ASCII)
    number, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= of:
        raise ValueError(
            f"shard is {shown(text)}; give which part of how many, from 1 up to that many: 2/4 is the second of four"
        )
    return Shard(number, of)


def at_once_of(text: str) -> int | Literal["auto"]:
    """Return how many runs are trained at the same time: a whole number from 1 up, or `auto`.

    Raises:
        ValueError: something else.
    """
    if text.strip() == "auto":
        return "auto"
    number = int(text) if re.fullmatch(r"\d{1,6}", text.strip(), re.ASCII) else 0
    if not 1 <= number <= MOST_AT_ONCE:
        raise ValueError(
            f"at-once is {shown(text)}; give how many runs are trained at the same time, from 1 up, or auto"
        )
    return number
