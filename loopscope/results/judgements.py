"""A verdict without the rest of an audit: what is measured in seconds where a whole audit takes minutes."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from loopscope.results.audits import AUDIT_SCHEMA, LoopVerdict, SideScale, Verdict
from loopscope.results.origin import Provenance
from loopscope.results.readable import Readable


@dataclass(frozen=True)
class Judgement(Readable):
    """What a verdict rests on, of one model under one objective: visibility and carry, and no more."""

    verdict: Verdict
    why: str
    objective: str  # its name (`dense + norm_penalty`)
    terms: tuple[str, ...]  # the loss terms that were judged
    loops: tuple[LoopVerdict, ...]
    rms: tuple[float, ...]  # of every loop's state, mean over tokens
    side_scales: tuple[SideScale, ...] = ()  # of what goes beside H_k; the verdict is the worst of all
    notes: tuple[str, ...] = ()  # what the reader should know about how it was measured

    def lines(self) -> list[str]:
        """Return the verdict and why, and notes."""
        return [f"{self.verdict} (judged under {self.objective}): {self.why}", *self.notes]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per loop; visibility and exposure in nats for a scale e times as large."""
        return [
            {
                "loop": loop.loop,
                "verdict": loop.status,
                "RMS": rms,
                "carry": loop.carry,
                "direct visibility": loop.direct,
                "exposure": loop.exposure,
            }
            for loop, rms in zip(self.loops, self.rms, strict=True)
        ]


@dataclass(frozen=True)
class JudgedModel(Readable):
    """The verdict on one model, and where it came from.

    Where the objective is not known, the plausible ones are judged: `judgement` is the one with the worst verdict,
    `others` holds the rest.
    """

    name: str
    judgement: Judgement
    objective_from: Literal["model", "given", "assumed"]
    others: tuple[Judgement, ...]
    data: str  # what the tokens were
    batch: tuple[int, int]  # sequences, tokens of each
    parameters: int
    provenance: Provenance
    fingerprint: str | None = None  # of a folder of transformers: which settings and weights

    @property
    def judgements(self) -> tuple[Judgement, ...]:
        """All of them, worst verdict first."""
        return (self.judgement, *self.others)

    def lines(self) -> list[str]:
        """Return the model's name, then the verdict and why."""
        return [f"{self.name}: {self.parameters:,} parameters, {self.data}", *self.judgement.lines()]

    def table(self) -> list[dict[str, Any]]:
        """Return the verdict's rows: one per loop."""
        return self.judgement.table()


def judged_values(judged: JudgedModel) -> dict[str, Any]:
    """Return plain values of a judged model: the verdict at the top, as in a whole audit's, and `fast`."""
    values = dataclasses.asdict(judged)
    judgement = values.pop("judgement")
    return {"schema": AUDIT_SCHEMA, "fast": True, "name": values.pop("name"), **judgement, **values}
