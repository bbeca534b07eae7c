"""The record of a model that was looped after it was trained: of which layers it is made, and how it compares."""

from dataclasses import dataclass
from typing import Any

from loopscope.results.audits import Verdict
from loopscope.results.judgements import JudgedModel
from loopscope.results.origin import Provenance
from loopscope.results.readable import Readable
from loopscope.results.static_audits import StaticAudit

RETROFIT_SCHEMA = 1


@dataclass(frozen=True)
class RetrofitRecord(Readable):
    """Where a looped model comes from. Layers are the source's, counted from 0."""

    source: str
    family: str  # the source's model_type
    loops: int
    parameters: int
    tied: bool  # whether the head is the token embedding
    prelude: tuple[int, ...]
    loop: tuple[int, ...]
    coda: tuple[int, ...]
    dropped: tuple[int, ...]
    new: tuple[str, ...]  # parameters that the source has not
    exact: bool  # its layers here give the source's logits at one loop, bit for bit, with the layers that are kept
    difference: float  # the largest difference of these logits
    own_difference: float  # the same of the model as it is, with all that is around its layers
    batch: tuple[int, int]  # rows and tokens that were compared
    static: StaticAudit  # what its recipe says, before any training
    others: tuple[tuple[str, Verdict], ...]  # what the same source would start as under other recipes
    provenance: Provenance
    judged: JudgedModel | None = None  # what was measured on it as it is
    notes: tuple[str, ...] = ()
    schema: int = RETROFIT_SCHEMA

    def lines(self) -> list[str]:
        """Return where it comes from, how it compares, and what its recipe says."""
        return [
            f"{self.source} ({self.family}) as a looped model: {self.parameters:,} parameters, {self.loops} loops.",
            self.comparison(),
            *self.static.lines(),
            *self.notes,
        ]

    def comparison(self) -> str:
        """Return how its logits at one loop compare with the source's, in a sentence."""
        rows, tokens = self.batch
        of = "the source's" if not self.dropped else "those of the source with the kept layers alone"
        measured = f"(fp32, {rows} × {tokens} random tokens)"
        if self.own_difference == 0:
            return f"Logits at one loop are {of}, bit for bit {measured}."
        layers = "bit for bit" if self.exact else f"to {self.difference:.1e}"
        return (
            f"Logits at one loop differ from {of} by up to {self.own_difference:.3g} {measured}: what is around its "
            f"layers changes them. The layers themselves give them {layers}."
        )

    def table(self) -> list[dict[str, Any]]:
        """Return one row per part: which of the source's layers it has."""
        return [
            {"part": part, "layers": layer_ranges(layers), "runs": runs}
            for part, layers, runs in (
                ("prelude", self.prelude, "once"),
                ("loop", self.loop, f"{self.loops} times"),
                ("coda", self.coda, "once, at every exit that is read"),
                ("dropped", self.dropped, "never"),
            )
            if layers or part != "dropped"
        ]


def layer_ranges(layers: tuple[int, ...]) -> str:
    """Return consecutive layers in a few words: `0-3`, `5`, `none`."""
    if not layers:
        return "none"
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"
