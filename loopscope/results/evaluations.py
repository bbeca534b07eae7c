"""Records of one model's evaluation: what every depth is worth, and what early exits save.

One `ModelEvaluation` per model lies beside its run (`evaluation.json`); each command fills its own part and keeps
the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from loopscope.results.codec import decode, json_object
from loopscope.results.layout import EVALUATION
from loopscope.results.origin import Provenance
from loopscope.results.prognoses import Prognosis
from loopscope.results.readable import Readable
from loopscope.results.runs import LoopMetrics

Unit = Literal["sequence", "token"]
CurveReading = Literal["as trained", "at depth"]
"""How exits of a depth curve are read: each as in an unroll to the trained depth, or each as the last of its own."""
_Record = TypeVar("_Record")


@dataclass(frozen=True)
class LoopQuality(LoopMetrics):
    """What one depth is worth on held-out text."""

    accuracy: float  # share of labels that are the likeliest token
    exact_match: float | None = (
        None  # share of windows with every label right; None where text has no answers
    )


@dataclass(frozen=True)
class DepthCurve:
    """Quality at every loop, in one reading.

    Attributes:
        reading: `at depth`: loop k is read as the last loop of an unroll of k loops. `as trained`: below the trained
            depth K, loop k is read as exit k of an unroll of K loops; from K on as the last. They differ where a
            readout or the states know the depth.
        window_loss: per loop, mean cross-entropy of every window, in nats per token: what comparisons pair.
        window_labels: counted labels of every window; () where all have the same number.
    """

    reading: CurveReading
    per_loop: tuple[LoopQuality, ...]
    window_loss: tuple[tuple[float, ...], ...]
    window_labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class ExitPoint:
    """One setting of an exit rule, on one part of the data."""

    threshold: float | None  # None: the rule has none
    mean_loops: float  # over sequences, or over tokens
    loss: float  # nats per token, of the exits taken
    perplexity: float
    bits_per_byte: float
    left_at: tuple[float, ...]  # share that leaves at loop 1, 2, ... K; sums to 1


@dataclass(frozen=True)
class ExitCurve:
    """What a rule trades: quality against loops, over its thresholds."""

    rule: str
    unit: Unit
    needs: tuple[str, ...]  # what it reads at every loop: "logits", "hidden", "gate"; () reads nothing
    bound: bool  # an oracle, which knows the labels: no rule that can be run
    points: tuple[ExitPoint, ...]


@dataclass(frozen=True)
class Calibration:
    """A threshold chosen on one part of the data, and what it gives on another."""

    rule: str
    unit: Unit
    target: Literal["perplexity", "mean loops"]
    allowed: float  # perplexity: at most so many times full depth's (1.01); mean loops: at most so many
    met: bool  # on the calibration part
    held: bool | None  # on the test part; None where it was not met
    threshold: float | None
    chosen_on: ExitPoint | None
    tested_on: ExitPoint | None
    full_depth: ExitPoint  # on the test part
    windows: tuple[int, int]  # of the calibration part, of the test part
    why: str  # one sentence


@dataclass(frozen=True)
class Speed:
    """Seconds of early exit beside fixed depth, measured alternately in one process."""

    rule: str
    unit: Unit
    threshold: float | None
    batch: int
    sequence: int
    mean_loops: float
    fixed_seconds: tuple[float, ...]  # per pair
    exit_seconds: tuple[float, ...]
    realised: float  # median over pairs of fixed / exit
    ideal: float  # K / mean loops
    allowed: float | None  # by counted FLOPs, with the readouts that the rule asks for; None: not counted
    threads: int
    device: str


@dataclass(frozen=True)
class ExitEvaluation:
    """Early exits of one model: curves per rule, calibrated thresholds, measured speed."""

    fixed: tuple[ExitPoint, ...]  # fixed depth 1, 2, ... K
    curves: tuple[ExitCurve, ...]
    calibrations: tuple[Calibration, ...] = ()
    speeds: tuple[Speed, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)  # what was asked for, in words


@dataclass(frozen=True)
class ModelEvaluation(Readable):
    """What was evaluated of one model. A command that fills one part keeps the others."""

    name: str
    condition: str | None  # of a run
    size: str | None
    seed: int | None
    trained_loops: int
    parameters: int
    data: str  # the held-out text, in words
    bytes_per_token: float
    windows: int
    sequence: int
    flops_per_token: tuple[float, ...] = ()  # forward to loop k and one readout there; () where not counted
    training_flops_per_token: float | None = None
    tokens_trained: int | None = None
    depth: tuple[DepthCurve, ...] = ()
    exits: ExitEvaluation | None = None
    provenance: Provenance | None = None
    text_hash: str | None = None  # SHA-256 of the whole validation text; None where it was not asked for
    depth_conditioned: bool = False  # whether its states depend on how many loops are run
    fingerprint: str | None = None  # of a folder of transformers: which settings and weights
    unknown_share: float | None = None  # of the text's tokens: they stand for unknown text
    unread_share: float | None = (
        None  # of its bytes: no known token stands for them. None where nobody counts
    )
    weights: str | None = None  # hash of the checkpoint; None where nobody keeps one
    tokens: str | None = None  # hash of the windows
    flops_counted: bool = False  # whether FLOPs are a count of its forward, not what its config says
    prognosis: Prognosis | None = (
        None  # what more loops than trained were foretold to do; None in records of before
    )

    def lines(self) -> list[str]:
        """Return what was evaluated, on what."""
        text = f"{self.windows} windows of {self.sequence} tokens, {self.data}"
        deeper = [] if self.prognosis is None else self.prognosis.lines()
        return [
            f"{self.name}: {self.parameters:,} parameters, trained to loop {self.trained_loops}; {text}.",
            *deeper,
        ]

    def how_depths_were_read(self) -> str | None:
        """Return a sentence on exits on the way of a longer run, where these are not those of a shorter one."""
        if not self.depth_conditioned:
            return None
        return (
            "Its states depend on how many loops are run: every depth was run by itself, and exits on the way of a "
            "longer run are others (as trained: those of a run of the trained depth)."
        )

    def table(self) -> list[dict[str, Any]]:
        """Return one row per loop, as a user gets it who runs so many; none where depth was not evaluated."""
        curves = [curve for curve in self.depth if curve.reading == "at depth"]
        return [
            {
                "loop": entry.loop,
                "loss": entry.loss,
                "perplexity": entry.perplexity,
                "bits per byte": entry.bits_per_byte,
                "accuracy": entry.accuracy,
                "L2 norm": entry.l2_norm,
                "RMS": entry.rms,
            }
            for curve in curves[:1]
            for entry in curve.per_loop
        ]


def load_evaluation(path: str | Path) -> ModelEvaluation | None:
    """The evaluation in a run or model folder (or that file), or None where there is none yet.

    Raises:
        ValueError: a file that is not an evaluation.
    """
    return load_record(ModelEvaluation, Path(path), EVALUATION)


def load_record(kind: type[_Record], path: Path, name: str) -> _Record | None:
    """Return the record in a folder, under this name, or in a file; None where there is none."""
    file = path / name if path.is_dir() else path
    if not file.is_file():
        return None
    try:
        return decode(kind, json_object(file.read_text(encoding="utf-8")))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not a {kind.__name__} of Loopscope: {error}") from error
