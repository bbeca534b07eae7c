"""What every trained run showed in K + 2 loops, and what more loops then did: measured once, kept as one small file.

The signs are of the windows that an audit takes, the truth is of other windows of the validation text.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.fates_flops import flops_per_token
from benchmarks.fates_grid import grid, part
from loopscope.config.run_config import kept_config
from loopscope.evaluation.depth.curve import depth_curves
from loopscope.evaluation.depth.prognosis import scale_blind
from loopscope.evaluation.depth.prognosis_signs import loop_signs
from loopscope.guards import evaluating
from loopscope.jobs import open_model
from loopscope.jobs.text import held_out, some_windows
from loopscope.results import Fate, LoopSigns, RunResult, decode, fate_of, load_results, run_folder
from loopscope.results.layout import RESULT, write_text

RUNS = {
    "narrow": Path(__file__).with_name("fates.json"),
    "laptop": Path(__file__).with_name("fates_laptop.json"),
    "depths": Path(__file__).with_name("fates_depths.json"),
    "flops": Path(__file__).with_name("fates_flops.json"),
}
"""The committed measurements: what the committed constants were fitted on and tested with, and only tested with."""
AUDIT_WINDOWS = 8
AUDIT_TOKENS = AUDIT_WINDOWS * 64
"""Of those windows: what committed signs were measured on."""
TRUTH_WINDOWS = 64
BEYOND = 4


@dataclass(frozen=True)
class Run:
    """One run of the study: its signs, and the loss at every depth to four times the trained one."""

    condition: str
    seed: int
    group: str
    part: str
    trained_loops: int
    scale_blind: bool | None
    signs: tuple[LoopSigns, ...]
    losses: tuple[float, ...]  # held-out cross-entropy at loop 1 to 4K, read at depth
    rms: tuple[float, ...]
    training_flops: float  # per token of a training step

    def change(self, loops: int) -> float:
        """Nats per token against the trained depth."""
        change = self.losses[loops - 1] - self.losses[self.trained_loops - 1]
        return change if math.isfinite(change) else math.inf

    @property
    def twice(self) -> float:
        return self.change(2 * self.trained_loops)

    @property
    def four_times(self) -> float:
        return self.change(4 * self.trained_loops)

    @property
    def fate(self) -> Fate:
        """What more loops truly did."""
        return fate_of(self.twice, self.four_times)


def asked_at(run: Run, loops: int) -> Run:
    """A run as it looks to who knows `loops` as its depth: its first signs, and what four times as many came to."""
    return replace(
        run, trained_loops=loops, signs=run.signs[: loops + 2], losses=run.losses[: BEYOND * loops]
    )


def measure_runs(out: Path, size: str) -> list[Run]:
    """Measure every run of the study that has completed; keeps each beside its run and goes on from there."""
    runs = []
    for condition, entry in grid(size).items():
        for seed in range(entry.seeds):
            folder = run_folder(out, condition, seed)
            if not (folder / RESULT).is_file():
                continue
            asked = [None] if entry.asked_at is None else [None, entry.asked_at]
            found = [_kept(folder, condition, seed, entry.group, loops) for loops in asked]
            # Nothing is fitted on others than narrow ones.
            runs += found if size == "narrow" else [replace(run, part="test") for run in found]
    return runs


def _kept(folder: Path, condition: str, seed: int, group: str, asked: int | None) -> Run:
    """A run at its trained depth or at one that is asked for, measured once."""
    kept = folder / ("fate.json" if asked is None else f"fate-at-{asked}.json")
    if not kept.is_file():
        run = _measure(folder, condition, seed, group, asked)
        write_text(kept, json.dumps(asdict(run)))
        print(
            f"{run.condition}, seed {seed}: {run.fate} ({run.twice:+.3f}, {run.four_times:+.3f})", flush=True
        )
    return decode(Run, json.loads(kept.read_text(encoding="utf-8")))


def _measure(folder: Path, condition: str, seed: int, group: str, asked: int | None) -> Run:
    opened = open_model(folder, loops=asked)
    model = opened.model
    shown = some_windows(opened, None, AUDIT_WINDOWS)
    text = held_out(opened, None, TRUTH_WINDOWS + AUDIT_WINDOWS)
    new = ~(text.input_ids[:, None] == shown.input_ids[None]).all(dim=-1).any(dim=1)
    truth = [
        (text.input_ids[new][start : start + 16], text.labels[new][start : start + 16])
        for start in range(0, TRUTH_WINDOWS, 16)
    ]
    with evaluating(model):
        signs = loop_signs(model, shown.input_ids, shown.labels, model.loops + 2)
        blind = scale_blind(model, shown.input_ids[:1])
    curve = depth_curves(model, truth, text.bytes_per_token, BEYOND * model.loops)[0]
    (result,) = load_results(folder).runs
    return Run(
        condition=condition if asked is None else f"{condition} at {asked}",
        seed=seed,
        group=group if asked is None else f"{group} at {asked}",
        part=part(condition, seed) if condition in grid("laptop") else "test",
        trained_loops=model.loops,
        scale_blind=blind,
        signs=tuple(signs),
        losses=tuple(row.loss for row in curve.per_loop),
        rms=tuple(row.rms for row in curve.per_loop),
        training_flops=_flops_per_token(result),
    )


def _flops_per_token(result: RunResult) -> float:
    return flops_per_token(kept_config(result.config, result.condition))


def shortened(value: Any) -> Any:
    """Return a record with its numbers at six digits: what a fit needs of them."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list | tuple):
        return [shortened(entry) for entry in value]
    return {name: shortened(entry) for name, entry in value.items()} if isinstance(value, dict) else value


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Write records as a JSON list, one a line, so that a change of one shows as one."""
    lines = [json.dumps(shortened(asdict(row))) for row in rows]
    write_text(path, "[\n" + ",\n".join(lines) + "\n]\n")


def load_runs(size: str) -> list[Run]:
    """Return the committed measurements of one study."""
    rows = json.loads(RUNS[size].read_text(encoding="utf-8"))["runs"]
    return [decode(Run, row) for row in rows]
