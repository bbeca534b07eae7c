"""What Muon does to the growth of scale: against AdamW, at equal steps and at equal loss, over learning rates.

    python -m benchmarks.muon --out runs/muon --seeds 2 --steps 150

Trains dense/rmsnorm and dense/raw at laptop size with both optimizers at every learning rate, from the scaled start,
and dense/rmsnorm from the published one. The same tokens for all of a seed. Every run is validated every 10 steps: that
gives the norm at the last loop as a function of the loss reached, not of the steps taken. Called again, it goes on
where it stopped. Writes `muon.json`, the tables as `muon.md` and one figure per start.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.environment import environment, table
from loopscope.jobs import run_study
from loopscope.jobs.study import collect
from loopscope.results import RunResult, to_json

GRID = {"scaled": ("dense/rmsnorm", "dense/raw"), "published": ("dense/rmsnorm",)}
OPTIMIZERS = ("adamw", "muon")
RATES = (3e-4, 1e-3, 3e-3)
LOSSES = (5.0, 4.5, 4.0, 3.7)
"""Validation losses of the last loop, in nats per token, at which norms are compared."""
COLORS = {"adamw": "#d55e00", "muon": "#0072b2"}
DASHES = {3e-4: ":", 1e-3: "-", 3e-3: "--"}


@dataclass(frozen=True)
class Growth:
    """One run: loss and norm at the last loop, and the drift over loops, at every validation."""

    start: str
    loss_name: str
    optimizer: str
    learning_rate: float
    seed: int
    status: str
    steps: tuple[int, ...]
    loss: tuple[float, ...]  # nats per token, last loop
    l2_norm: tuple[float, ...]  # last loop
    drift: tuple[float, ...]  # L2 norm of the last loop over that of the first

    def norm_at_loss(self, loss: float) -> float | None:
        """The norm when the validation loss first fell to `loss`, interpolated between two validations."""
        for place in range(1, len(self.loss)):
            before, after = self.loss[place - 1], self.loss[place]
            if after <= loss < before:
                share = (before - loss) / (before - after)
                low, high = math.log(self.l2_norm[place - 1]), math.log(self.l2_norm[place])
                return math.exp(low + share * (high - low))
        return None


def main() -> None:
    """Train, compare, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/muon"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--starts", nargs="*", choices=tuple(GRID), default=list(GRID))
    parser.add_argument("--collect", action="store_true", help="train nothing, compare what is there")
    options = parser.parse_args()
    runs = [
        _growth(start, optimizer, rate, run)
        for start in options.starts
        for optimizer, rate, run in _trained(options, start)
    ]
    where = {**environment(dtype="bf16"), "steps": options.steps, "batch": options.batch}
    (options.out / "muon.json").write_text(
        to_json({"runs": [asdict(run) for run in runs], **where}), encoding="utf-8"
    )
    lines = []
    for start in options.starts:
        own = [run for run in runs if run.start == start]
        _draw(start, own, options.out / "figures")
        lines += _print(start, own)
    (options.out / "muon.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(json.dumps({"benchmark": "muon", "runs": len(runs), **where}))


def _trained(options: Any, start: str) -> list[tuple[str, float, RunResult]]:
    """Seed by seed, so that a grid cut short has every setting once."""
    if options.collect:
        folders = [
            (optimizer, rate, _folder(options.out, start, optimizer, rate))
            for rate in RATES
            for optimizer in OPTIMIZERS
        ]
        return [(*name, run) for *name, folder in folders if folder.is_dir() for run in collect(folder).runs]
    found: dict[tuple[str, float], Sequence[RunResult]] = {}
    for seeds in range(1, options.seeds + 1):
        for rate in sorted(RATES, key=lambda rate: abs(math.log(rate / 1e-3))):  # the middle one first
            for optimizer in OPTIMIZERS:
                training = {
                    "steps": options.steps,
                    "batch": options.batch,
                    "optimizer": optimizer,
                    "learning_rate": rate,
                    "decay": "matrices",  # none on embeddings and gains, which would be a penalty on scale
                    "evaluate_every": 10,
                    "evaluate_windows": 32,
                    "final_windows": 32,
                    "threads": options.threads,
                    "checkpoint_every": None,
                    "monitor_every": None,
                }
                # The published start is the recipe's own: not a change.
                model = {} if start == "published" else {"model": {"initialisation": start}}
                study = run_study(
                    "laptop",
                    GRID[start],
                    range(seeds),
                    _folder(options.out, start, optimizer, rate),
                    {"training": training, **model},
                    quiet=True,
                )
                found[optimizer, rate] = study.runs
    return [(optimizer, rate, run) for (optimizer, rate), study in found.items() for run in study]


def _folder(out: Path, start: str, optimizer: str, rate: float) -> Path:
    return out / start / f"{optimizer}-{rate:g}"


def _growth(start: str, optimizer: str, rate: float, run: RunResult) -> Growth:
    points = [(point.step, point.per_loop) for point in run.evaluations]
    if run.per_loop:
        points.append((run.steps, run.per_loop))
    return Growth(
        start=start,
        loss_name=run.condition,
        optimizer=optimizer,
        learning_rate=rate,
        seed=run.seed,
        status=run.status,
        steps=tuple(step for step, _ in points),
        loss=tuple(loops[-1].loss for _, loops in points),
        l2_norm=tuple(loops[-1].l2_norm for _, loops in points),
        drift=tuple(loops[-1].rms / loops[0].rms for _, loops in points),
    )


def _print(start: str, runs: list[Growth]) -> list[str]:
    """Seeds side by side, divided by a stroke."""
    headings = ["loss", "optimizer", "rate", "loss at the end", "drift at the end", "L2 at the end"]
    headings += [f"L2 at loss {loss:g}" for loss in LOSSES]
    rows = []
    for name in GRID[start]:
        for rate in RATES:
            for optimizer in OPTIMIZERS:
                group = [
                    run
                    for run in runs
                    if (run.loss_name, run.optimizer, run.learning_rate) == (name, optimizer, rate)
                ]
                if not group:
                    continue
                rows.append(
                    [
                        *(name, optimizer, f"{rate:g}"),
                        " / ".join(f"{run.loss[-1]:.2f}" for run in group),
                        " / ".join(f"{run.drift[-1]:.2f}" for run in group),
                        " / ".join(_short(run.l2_norm[-1]) for run in group),
                        *(" / ".join(_short(run.norm_at_loss(loss)) for run in group) for loss in LOSSES),
                    ]
                )
    print(f"{start} start; seeds divided by /")
    table(headings, rows)
    marks = [headings, ["---"] * len(headings), *rows]
    return [f"From the {start} start:", "", *(f"| {' | '.join(line)} |" for line in marks), ""]


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _draw(start: str, runs: list[Growth], folder: Path) -> None:
    """Above the norm by step, below by the loss reached; one column per condition."""
    folder.mkdir(parents=True, exist_ok=True)
    names = GRID[start]
    figure = Figure(figsize=(1.2 + 4 * len(names), 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(names), squeeze=False, sharey="all")
    for (by_step, by_loss), name in zip(grid.T, names, strict=True):
        for run in (run for run in runs if run.loss_name == name):
            style = {"color": COLORS[run.optimizer], "ls": DASHES[run.learning_rate], "lw": 1.3}
            label = f"{run.optimizer} {run.learning_rate:g}" if run.seed == 0 else None
            by_step.plot(run.steps, run.l2_norm, label=label, **style)
            by_loss.plot(run.loss, run.l2_norm, **style)
        by_step.set_title(f"{name}, {start} start", loc="left", fontsize=11, fontweight="bold")
        by_step.set_xlabel("training step")
        by_loss.set_xlabel("validation loss of the last loop, nats per token")
        by_loss.set_xlim(7.5, 3.2)
        for ax in (by_step, by_loss):
            ax.set_yscale("log")
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(True, color="#e4e4e4", lw=0.6)
    for row in grid:
        row[0].set_ylabel("L2 norm of H, last loop")
    grid[0][-1].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(folder / f"muon-{start}.png", dpi=110)


if __name__ == "__main__":
    main()
