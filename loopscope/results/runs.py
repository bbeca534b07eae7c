"""Records of training: what was run, what came out, and where a study keeps it."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loopscope.results.codec import decode, json_object
from loopscope.results.layout import RESULT, RESULTS
from loopscope.results.origin import Provenance, provenance
from loopscope.results.readable import Readable
from loopscope.results.run_phases import RunPhase

SCHEMA = 1
"""Version of the file format."""
Status = Literal["completed", "diverged", "failed"]
"""How a run ended."""


@dataclass(frozen=True)
class LoopMetrics:
    """What one exit is worth on the validation set, and how large the state behind it is."""

    loop: int  # 1-based
    loss: float  # mean cross-entropy, nats per token
    perplexity: float  # exp(loss); depends on the tokenizer
    bits_per_byte: float  # loss in bits per byte of the original text; does not
    l2_norm: float  # mean over tokens of the L2 norm of H_k
    rms: float  # mean over tokens of s_k, the root mean square of H_k over dim


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token; infinite where it would overflow."""
    return math.exp(loss) if loss < 700 else loss + math.inf


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """A loss in nats per token as bits per byte of text with so many bytes a token."""
    return loss / math.log(2) / bytes_per_token


@dataclass(frozen=True)
class TrainPoint:
    """One logged training step: the loss and every loop's scale at that moment."""

    step: int
    loss: float
    l2_norm: tuple[float, ...]  # per loop, mean over tokens of the batch


@dataclass(frozen=True)
class EvalPoint:
    """One evaluation on held-out text during training."""

    step: int
    per_loop: tuple[LoopMetrics, ...]


@dataclass(frozen=True)
class Failure:
    """Why a run ended early. A diverged run is a result, not a lost grid."""

    message: str
    step: int | None = None
    loop: int | None = None  # first loop whose state or loss was not finite
    l2_norm: tuple[float, ...] = ()
    last_checkpoint: str | None = None


@dataclass(frozen=True)
class RunResult(Readable):
    """One run: one condition, size and seed."""

    condition: str
    size: str
    seed: int
    status: Status
    parameters: int
    tokens_trained: int
    steps: int
    seconds: float
    per_loop: tuple[LoopMetrics, ...]  # final evaluation; empty when the run did not complete
    training: tuple[TrainPoint, ...] = ()  # thinned to at most a few hundred points
    evaluations: tuple[EvalPoint, ...] = ()
    failure: Failure | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None
    unknown_share: float | None = None  # of the validation text's tokens: they stand for unknown text
    unread_share: float | None = (
        None  # of its bytes: no known token stands for them. None where nobody counts
    )
    source: Mapping[str, Any] = field(
        default_factory=dict
    )  # of its text: dataset, commit, documents, bytes; empty where nobody noted it
    phases: tuple[RunPhase, ...] = ()  # of a schedule of objectives; empty where one trained throughout

    @property
    def drift(self) -> float | None:
        """s_K / s_1 at the final evaluation."""
        if not self.per_loop or self.per_loop[0].rms == 0:
            return None
        return self.per_loop[-1].rms / self.per_loop[0].rms

    def lines(self) -> list[str]:
        """Return how the run ended."""
        ended = (
            f"{self.condition}, seed {self.seed}, size {self.size}: {self.status} after {self.steps:,} steps"
        )
        said = [
            f"{ended}, {self.tokens_trained:,} tokens, {self.seconds:,.0f} s; {self.parameters:,} parameters."
        ]
        if self.phases:
            said.append(f"Trained on {', then '.join(phase.in_words() for phase in self.phases)}.")
        if self.failure is not None:
            said.append(self.failure.message)
        if self.unknown_share:
            said.append(
                f"{self.unknown_share:.1%} of the validation text's tokens are unknown: bits per byte are too low."
            )
        return said

    def table(self) -> list[dict[str, Any]]:
        """Return one row per loop, of the final evaluation."""
        return [
            {
                "loop": entry.loop,
                "loss": entry.loss,
                "perplexity": entry.perplexity,
                "bits per byte": entry.bits_per_byte,
                "L2 norm": entry.l2_norm,
                "RMS": entry.rms,
            }
            for entry in self.per_loop
        ]


@dataclass(frozen=True)
class StudyResults(Readable):
    """All runs of one study folder (or of one run folder, as a study of one)."""

    runs: tuple[RunResult, ...]
    provenance: Provenance
    schema: int = SCHEMA

    def lines(self) -> list[str]:
        """Return how many runs there are, and how they ended."""
        ended = Counter(run.status for run in self.runs)
        return [
            f"{len(self.runs)} runs: {', '.join(f'{number} {status}' for status, number in ended.items())}."
        ]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per run: its last loop, and the scale of its first and last."""
        lossy = any(run.unknown_share for run in self.runs)
        return [
            {
                "condition": run.condition,
                "seed": run.seed,
                "status": run.status,
                "perplexity": run.per_loop[-1].perplexity if run.per_loop else None,
                "bits per byte": run.per_loop[-1].bits_per_byte if run.per_loop else None,
                "L2 norm, first loop": run.per_loop[0].l2_norm if run.per_loop else None,
                "last loop": run.per_loop[-1].l2_norm if run.per_loop else None,
                **({"unknown tokens": run.unknown_share} if lossy else {}),
            }
            for run in self.runs
        ]


def study_from_json(text: str) -> StudyResults:
    """Read what `to_json` wrote.

    Raises:
        ValueError: not a results file, of a schema this version does not read, or with a key missing.
    """
    return _study(json_object(text))


def _study(data: Mapping[str, Any]) -> StudyResults:
    if data.get("schema") != SCHEMA:
        raise ValueError(f"results have schema {data.get('schema')!r}; this version reads schema {SCHEMA}")
    return decode(StudyResults, data)


def run_from_json(text: str) -> RunResult:
    """Return the record of one run from the text of its `result.json`."""
    return decode(RunResult, json_object(text))


def load_results(path: str | Path) -> StudyResults:
    """Results of a study folder (`results.json`), a run folder (`result.json`) or one of those files.

    Raises:
        ValueError: nothing to read there, or not results; says what was looked for.
    """
    path = Path(path)
    candidates = [path] if path.is_file() else [path / RESULTS, path / RESULT]
    for candidate in candidates:
        if not candidate.is_file():
            continue
        try:
            data = json_object(candidate.read_text(encoding="utf-8"))
            if "runs" in data:
                return _study(data)
            run = decode(RunResult, data)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{candidate} is not a results file of Loopscope: {error}") from error
        return StudyResults(runs=(run,), provenance=run.provenance or provenance())
    looked = " or ".join(str(candidate) for candidate in candidates)
    raise ValueError(
        f"no results at {path}: looked for {looked}. Train first: loopscope train or loopscope study; "
        "or measure a model that is there: loopscope audit, loopscope evaluate depth."
    )
