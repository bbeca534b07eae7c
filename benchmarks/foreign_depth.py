"""Are prognosis and rounding right of looped models of others? Each is trained a little, then told, then measured.

    python -m benchmarks.foreign_depth              # all of them: rows of benchmarks/foreign_depth.json, then the table
    python -m benchmarks.foreign_depth dory ouro    # those whose name holds one of these
    python -m benchmarks.foreign_depth --tables     # the table alone

The small models of `benchmarks.foreign_models`: a package's own code where one has it, else structures of our own with
the same parts. Trained on characters of Python's standard library, on the cross-entropy of their own last exit; what
is told and what is true come from text that they were not trained on. Nothing of Loopscope was fitted to any of them.
"""

import argparse
import json
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import loopscope
from benchmarks.environment import environment, markdown
from benchmarks.fates_fit import accuracy, hurts_after, judged, last_difference, off_by, prognosis
from benchmarks.fates_runs import Run, load_runs, write_rows
from benchmarks.foreign_models import rows
from loopscope.audit.audit_report import BEYOND
from loopscope.data.corpora.stdlib import StdlibCorpus
from loopscope.evaluation import depth_curves, prognose
from loopscope.recurrence import unroll
from loopscope.results import LoopSigns, Prognosis, decode
from tests.interop.foreign.families.models import Named

ROWS = Path(__file__).with_name("foreign_depth.json")
VOCABULARY = 40
SEQUENCE = 12
STEPS, BATCH, RATE = 600, 32, 3e-3
TOLD_ON, TRUE_ON = 64, 1024
"""Sequences."""
FORMATS = ("bf16", "int8", "int4")
NOT_CAUSAL = ("albert",)
"""See the token that follows, so that there is nothing to predict."""


@dataclass(frozen=True)
class Row:
    """One model: what it is told from, and what came."""

    name: str
    code: str
    verdict: str
    trained_loops: int
    loss_before: float  # at the trained depth, held-out, nats per character, before it was trained
    scale_blind: bool | None
    signs: tuple[LoopSigns, ...]
    losses: tuple[float, ...]  # held-out cross-entropy at loop 1 to 4K, read at depth
    outcomes: tuple[str, ...]  # of rounding, by format
    off: tuple[tuple[float, ...], ...]  # H off, by format: at loop 1, K, and the last
    lost_at: tuple[int | None, ...]
    date: str

    @property
    def run(self) -> Run:
        """As the predictors of `benchmarks.fates` take it."""
        known = self.trained_loops, self.scale_blind, self.signs, self.losses
        return Run(self.name, 0, self.code, "test", *known, rms=(), training_flops=0.0)

    @property
    def told(self) -> Prognosis:
        """What the rule of today says."""
        return judged(self.run, TOLD_ON * SEQUENCE)


def main() -> None:
    """Train, tell and measure; then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="rows whose name holds one of these; none: all")
    parser.add_argument("--tables", action="store_true", help="train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what goes along beside H_k, and what packages deprecate
    done = {row.name: row for row in load_rows()}
    text = None if options.tables else characters()
    for name, (case, *_) in rows().items():
        asked = not options.names or any(part in name for part in options.names)
        if text is None or not asked or name in done or name in NOT_CAUSAL:
            continue
        start = time.perf_counter()
        try:
            done[name] = measure(name, case, text)
        except ImportError as error:
            print(f"{name}: not installed ({error.name or error})", flush=True)
            continue
        except Exception as error:  # a model that fails is told of, and the others go on
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            continue
        write_rows(ROWS, list(done.values()))
        told, true, took = done[name].told.fate, done[name].run.fate, time.perf_counter() - start
        print(f"{name}: {told}, {true}, {took:.0f} s", flush=True)
    print(tables(list(done.values())))


def load_rows() -> list[Row]:
    """Return the committed rows."""
    if not ROWS.is_file():
        return []
    return [decode(Row, row) for row in json.loads(ROWS.read_text(encoding="utf-8"))]


def characters() -> tuple[Tensor, Tensor]:
    """The corpus' two parts as numbers of its commonest characters; all others are the last."""
    corpus = StdlibCorpus(0.05)
    parts = ["".join(islice(pieces, 40)) for pieces in (corpus.train(), corpus.validation())]
    common = [sign for sign, _ in Counter(parts[0]).most_common(VOCABULARY - 1)]
    number = {sign: index for index, sign in enumerate(common)}
    train_part, held_out = (
        torch.tensor([number.get(sign, VOCABULARY - 1) for sign in part]) for part in parts
    )
    return train_part, held_out


def windows(text: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ids and labels of windows from anywhere in a text."""
    starts = torch.randint(len(text) - SEQUENCE - 1, (count,), generator=generator)
    taken = text[starts[:, None] + torch.arange(SEQUENCE + 1)]
    return taken[:, :-1].contiguous(), taken[:, 1:].contiguous()


def measure(name: str, case: Named, text: tuple[Tensor, Tensor]) -> Row:
    """Train a model of others, and return what was told of it and what came."""
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(0)
    model = case.open(case.make())
    told_on, true_on = (windows(text[1], count, draws) for count in (TOLD_ON, TRUE_ON))
    before = losses(model, true_on, model.loops)[-1]
    train(model, text[0], draws)
    report = loopscope.audit(model.eval(), *told_on, objective="terminal", rounding=FORMATS)
    told = prognose(model, *told_on)
    ends = [(1, model.loops, len(tried.loops)) if tried.loops else () for tried in report.rounding]
    return Row(
        name=name,
        code=case.code,
        verdict=report.verdict,
        trained_loops=model.loops,
        loss_before=before,
        scale_blind=told.scale_blind,
        signs=told.signs,
        losses=tuple(losses(model, true_on, BEYOND * model.loops)),
        outcomes=tuple(tried.outcome for tried in report.rounding),
        off=tuple(
            tuple(tried.loops[loop - 1].state for loop in loops)
            for tried, loops in zip(report.rounding, ends, strict=True)
        ),
        lost_at=tuple(tried.lost_at for tried in report.rounding),
        date=environment()["date"],
    )


def train(model: Any, text: Tensor, draws: torch.Generator) -> None:
    """Train a model on its last exit, with AdamW and a rate that falls to a tenth."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, RATE / 10)
    for _ in range(STEPS):
        ids, labels = windows(text, BATCH, draws)
        *_, last = unroll(model, ids)
        loss = F.cross_entropy(last.logits().flatten(0, 1)[:, :VOCABULARY], labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        falling.step()


@torch.no_grad()
def losses(model: Any, text: tuple[Tensor, Tensor], loops: int) -> list[float]:
    """Cross-entropy at every depth."""
    model.eval()
    curve, *_ = depth_curves(model, [text], 1.0, loops)
    return [row.loss for row in curve.per_loop]


def tables(found: Sequence[Row]) -> str:
    """Return one row a model, and how the prognosis and two plain predictors fare."""
    heads = [
        *(
            "model",
            "code",
            "K",
            "nats before, after",
            "verdict",
            "told",
            "true",
            "change at 4K, told (80 %)",
            "true",
        ),
        *(f"{name}, H off 1 / K / 4K" for name in FORMATS),
    ]
    lines = []
    for row in found:
        told, run = row.told, row.run
        last = told.at[-1] if told.at else None
        lines.append(
            [
                *(row.name, row.code, str(row.trained_loops)),
                f"{row.loss_before:.2f}, {row.losses[row.trained_loops - 1]:.2f}",
                *(row.verdict, told.fate, run.fate),
                f"{last.change:+.3f} ({last.low:+.3f} to {last.high:+.3f})" if last else "",
                f"{run.four_times:+.3f}",
                *_rounded(row),
            ]
        )
    return f"{markdown(heads, lines)}\n\n{scores([row for row in distinct(found) if row.told.at])}"


def distinct(found: Sequence[Row]) -> list[Row]:
    """Return one row of each model: some come twice, opened in another way or with outputs of another form."""
    return list({row.losses: row for row in reversed(found)}.values())[::-1]


def scores(found: Sequence[Row]) -> str:
    """Return how often each predictor is right, and how far off."""
    runs = [row.run for row in found]
    predictors = {
        "prognosis": prognosis,
        "last difference goes on": last_difference,
        "holds to K, hurts after": hurts_after([run for run in load_runs("narrow") if run.part == "fit"]),
    }
    lines = [
        [name, f"{accuracy(runs, rule):.0%}", f"{off_by(runs, rule, 2):.2f}", f"{off_by(runs, rule, 4):.2f}"]
        for name, rule in predictors.items()
    ]
    heads = [f"{len(runs)} models told", "right fates", "off at 2K", "off at 4K"]
    deepest = [(row.told.at[-1], row.run.four_times) for row in found]
    inside = [told.low <= true <= told.high for told, true in deepest]
    return f"{markdown(heads, lines)}\n\ntruth in the 80 % interval at 4K: {sum(inside)} of {len(inside)}"


def _rounded(row: Row) -> Iterator[str]:
    for outcome, off, lost in zip(row.outcomes, row.off, row.lost_at, strict=True):
        if not off:
            yield outcome
            continue
        loses = "" if lost is None else f"; loses 1 % from {lost}"
        yield f"{outcome}: {' / '.join(f'{100 * share:.2g}' for share in off)} %{loses}"


if __name__ == "__main__":
    main()
