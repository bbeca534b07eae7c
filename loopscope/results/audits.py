"""Records of an audit. Losses are in nats per token; a scale s_k is a root mean square over dim.

Loops count from 1. What is "per loop" has one entry per loop of the trained depth unless it says otherwise.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loopscope.results.codec import decode, json_object
from loopscope.results.origin import Provenance
from loopscope.results.prognoses import Prognosis
from loopscope.results.readable import Readable
from loopscope.results.resting_scales import RestingScale
from loopscope.results.rounded_runs import Rounding
from loopscope.results.scale_trends import ScaleTrend

Verdict = Literal["removed", "visible", "damped", "blind"]
"""What holds a state's scale: blind and damped, no term of the loss; visible, one; removed, nothing needs to."""
WORST_FIRST: tuple[Verdict, ...] = ("blind", "damped", "visible", "removed")
"""In the order in which a report lists them."""
REMOVED = 0.05
"""Carry below which a scale is removed: of a relative change of it less than a twentieth arrives."""
SEEN = 1e-4
"""Exposure from which a loss term sees a scale, in nats per e-fold of it. Blind models measure 1e-8 to 1e-6 (rounding),
seen ones 1e-2 and up."""
AUDIT_SCHEMA = 1


@dataclass(frozen=True)
class Radial:
    """The radial part of one gradient at H_k. Units: nats for a relative change of scale by 1."""

    d_log_scale: float  # d L / d log s_k: sum over tokens of <dL/dH, H>
    absolute: float  # sum over tokens of |<dL/dH, H>|: what the signed sum may cancel
    share: float  # mean over tokens of the absolute cosine between dL/dH and H


@dataclass(frozen=True)
class LoopVisibility:
    """What the loss sees of one loop's scale, term by term.

    `direct` counts the terms that read H_k itself, by path (`cross_entropy@2/readout`, `entropy/gate`,
    `norm_penalty/state`), the rest of the unroll cut off. `total` counts every term through the rest of the
    unroll too, and their sum under `loss`. `grown` sums the absolute direct visibility of a state thirty
    times as large: what a runaway scale would meet.
    """

    loop: int
    direct: Mapping[str, Radial]
    total: Mapping[str, Radial]
    grown: float
    readout_response: float  # relative change of the features for one of scale: 0 where it is hidden, 1 raw
    readout_response_grown: float  # the same at thirty times the size, where no norm's eps is left


@dataclass(frozen=True)
class Carry:
    """How much of a relative change of scale arrives one loop later, over tokens."""

    loop: int
    mean: float  # d log s_{k+1} / d log s_k
    spread: float  # standard deviation over tokens
    gain: float  # mean of ‖carry(H_k)‖ / ‖H_k‖: what the step between loops alone does to the size
    slope: float  # what one carry and core leave of a large state: 1 pre-norm, 0 for a norm, a decay's own number


@dataclass(frozen=True)
class Fit:
    """A line fitted by least squares, and how much of the variance it explains."""

    slope: float
    intercept: float
    r_squared: float


@dataclass(frozen=True)
class Expansion:
    """Scale per loop, also past the trained depth, and what changes from loop k to k + 1 (one entry fewer)."""

    rms: tuple[float, ...]  # mean over tokens of s_k
    l2_norm: tuple[float, ...]
    radial_increment: tuple[float, ...]  # mean over tokens and dim of u_k·(H_{k+1} - H_k): RMS units
    angular_step: tuple[float, ...]  # mean over tokens of ‖u_{k+1} - u_k‖, u of RMS 1
    step_size: tuple[float, ...]  # mean over tokens of ‖H_{k+1} - H_k‖ / ‖H_k‖
    direction_cosine: tuple[float, ...]  # mean over tokens of the cosine of H_{k+1} and H_k
    update_cosine: tuple[float, ...]  # of successive updates H_{k+1} - H_k (two entries fewer)
    growth: Fit | None  # s_k against k; None for fewer than three loops
    turning: Fit | None  # angular step against 1 / s_k; None for fewer than three steps

    @property
    def drift(self) -> float:
        """s at the deepest loop measured over s_1."""
        return self.rms[-1] / self.rms[0] if self.rms[0] else float("nan")


@dataclass(frozen=True)
class LoopDynamics:
    """The loop map H_k to H_{k+1}, linearised at H_k."""

    loop: int
    spectral_radius: float  # of its Jacobian, by Arnoldi's iteration
    radial: float  # mean over tokens of u_{k+1}·J u_k: what a change along H_k keeps along H_{k+1}
    angular: float  # spectral radius of the Jacobian with the direction of H_k projected out, per token
    converged: bool  # whether both estimates left a residual of 5 % at most


@dataclass(frozen=True)
class Clamped:
    """Per loop, with every state changed before its readout and before it is carried on."""

    cross_entropy: tuple[float, ...]
    l2_norm: tuple[float, ...]
    rms: tuple[float, ...]


@dataclass(frozen=True)
class TokenNorms:
    """L2 norms over the tokens of one loop."""

    loop: int
    count: int
    mean: float
    median: float
    p99: float
    max: float
    min: float
    std: float
    top_token_share: float  # of the summed squared norm, in the largest 1 % of tokens (at least one)
    top_channel_share: float  # in the largest 1 % of channels (at least one)
    largest: tuple[tuple[int, int, int, float], ...]  # (sequence, position, token id, norm), largest first


@dataclass(frozen=True)
class LoopVerdict:
    """One loop: its direct visibility, its carry, its exposure, and what follows."""

    loop: int
    status: Verdict
    direct: float  # sum over terms and paths of the absolute radial gradient, nats per e-fold of scale
    carry: float
    exposure: float  # the largest over loops j >= k of direct visibility at j × the carries from k to j
    exposure_grown: float  # the same for states thirty times as large


@dataclass(frozen=True)
class SideScale:
    """What goes from loop to loop beside H_k (a momentum, a low stack), at one loop at which it has a scale.

    Visibility goes through the next loop's H alone, in nats for a scale e times as large.
    """

    name: str
    loop: int
    status: Verdict
    rms: float  # mean over its vectors
    carry: float  # d log of its scale at the next loop / d log of its scale here
    slope: float  # what one loop leaves of a large one
    visibility: float
    share: float  # mean over its vectors of the absolute cosine between the loss's gradient there and it
    visibility_grown: float  # of one thirty times as large
    exposure: float  # the largest over loops j >= k of visibility that does not fade, times the carries to j


@dataclass(frozen=True)
class Remedy:
    """One change that needs no training, and the verdict with it."""

    change: str
    verdict: Verdict
    cross_entropy: float  # with the change, mean over exits
    cost: float  # that less the model's own


@dataclass(frozen=True)
class AuditReport(Readable):
    """What one batch shows about one looped model under one objective."""

    verdict: Verdict
    why: str
    objective: str  # its name (`dense + norm_penalty`)
    terms: tuple[str, ...]  # the loss terms that were judged
    loops: tuple[LoopVerdict, ...]
    cross_entropy: tuple[float, ...]  # per exit
    visibility: tuple[LoopVisibility, ...]
    readout: tuple[Radial, ...]  # every loop's own cross-entropy by itself, whatever the objective
    carry: tuple[Carry, ...]
    expansion: Expansion  # to four times the trained depth
    dynamics: tuple[LoopDynamics, ...]
    tokens: tuple[TokenNorms, ...]
    final_scale_sweep: Mapping[str, float]  # factor to cross-entropy of the last exit
    radial_clamp: Mapping[str, Clamped]
    rescaled: Mapping[str, Clamped]  # loop whose state was doubled, to what each exit then measures
    remedies: tuple[Remedy, ...]  # tried where the verdict is blind or damped
    notes: tuple[str, ...] = ()  # what the reader should know about how it was measured
    side_scales: tuple[SideScale, ...] = ()  # of what goes beside H_k; the verdict is the worst of all
    rounding: tuple[Rounding, ...] = ()  # number formats that were tried, to four times the trained depth
    resting: RestingScale | None = None  # how firmly the scale is held; None in records of earlier versions

    def lines(self) -> list[str]:
        """Return the verdict and why, how firmly the scale is held, notes, remedies, and what rounding does."""
        tried = [
            f"Tried without training: {remedy.change}: {remedy.verdict}, {remedy.cost:+.3f} nats now."
            for remedy in self.remedies
        ]
        held = [f"Scale {line}" for line in self.resting.lines()] if self.resting else []
        coarser = [line for tried_format in self.rounding for line in tried_format.lines()]
        return [
            f"{self.verdict} (judged under {self.objective}): {self.why}",
            *held,
            *self.notes,
            *tried,
            *coarser,
        ]

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
                "cross-entropy": entropy,
            }
            for loop, rms, entropy in zip(self.loops, self.expansion.rms, self.cross_entropy, strict=False)
        ]


@dataclass(frozen=True)
class AuditedModel(Readable):
    """An audit of one model: the report under its objective, and where it came from.

    Where the objective is not known, the plausible ones are audited: `report` is the one with the worst verdict,
    `others` holds the rest.
    """

    name: str
    report: AuditReport
    objective_from: Literal["model", "given", "assumed"]
    others: tuple[AuditReport, ...]
    data: str  # what the tokens were
    batch: tuple[int, int]  # sequences, tokens of each
    parameters: int
    token_texts: Mapping[str, str]  # of the largest tokens, by id
    provenance: Provenance
    fingerprint: str | None = None  # of a folder of transformers: which settings and weights
    prognosis: Prognosis | None = None  # what more loops than trained will do; None in records of before
    trend: ScaleTrend | None = (
        None  # where a run's scale is going; None of what is no run, or where it cannot be said
    )

    @property
    def reports(self) -> tuple[AuditReport, ...]:
        """All of them, worst verdict first."""
        return (self.report, *self.others)

    def lines(self) -> list[str]:
        """Return the model's name, what its report says, where its scale is going, and what more loops will do."""
        beside = [line for each in (self.trend, self.prognosis) if each is not None for line in each.lines()]
        return [f"{self.name}: {self.parameters:,} parameters, {self.data}", *self.report.lines(), *beside]

    def table(self) -> list[dict[str, Any]]:
        """Return the report's rows: one per loop."""
        return self.report.table()


def audit_values(audited: AuditedModel) -> dict[str, Any]:
    """Return plain values of an audited model: the report's own keys first, so that `verdict` stands at the top."""
    values = dataclasses.asdict(audited)
    report = values.pop("report")
    return {"schema": AUDIT_SCHEMA, "name": values.pop("name"), **report, **values}


def audits_from_json(text: str) -> list[AuditedModel]:
    """Return the audits that `loopscope audit --json` wrote: one model, or several under `models`.

    Raises:
        ValueError: not an audit, of another schema, or with a key missing.
    """
    data = json_object(text)
    entries: Sequence[Any] = data.get("models", [data])
    found = []
    for values in entries:
        if not isinstance(values, dict) or values.get("schema") != AUDIT_SCHEMA:
            raise ValueError(
                f"not an audit of schema {AUDIT_SCHEMA}; write one with loopscope audit PATH --json"
            )
        try:
            found.append(decode(AuditedModel, {**values, "report": values}))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a whole audit: {error}") from error
    return found


def load_audits(path: str | Path) -> list[AuditedModel]:
    """Return the audits in a JSON file. Raises ValueError, naming the file, where it holds none."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file; write one with loopscope audit PATH --json > {path.name}")
    try:
        return audits_from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
