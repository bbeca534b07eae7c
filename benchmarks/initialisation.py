"""Does a sane start prevent the runaway, or only delay it? Growth of the state's scale over a longer training.

    python -m benchmarks.initialisation --out runs/initialisation --seeds 2 --steps 1000

Trains dense/rmsnorm at laptop size from the published initialisation (PyTorch's defaults) and from the scaled one
(0.02), and fits the L2 norm at the last loop over steps by a power law, norm = a · step^p, on the steps after
`--after`. Called again, it goes on where it stopped. Writes `initialisation.json` and a figure.
"""

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.environment import environment, table
from loopscope.audit.expansion import fit
from loopscope.jobs import run_study
from loopscope.results import RunResult, to_json

STARTS = ("published", "scaled")
COLORS = {"published": "#d55e00", "scaled": "#0072b2"}


@dataclass(frozen=True)
class Growth:
    """One run's growth at the last loop."""

    initialisation: str
    seed: int
    perplexity: float  # last loop
    bits_per_byte: float
    norm_at: dict[str, float]  # L2 norm at the last loop, by step
    power: float  # p
    r_squared: float  # of log norm against log step


def main() -> None:
    """Train, fit, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/initialisation"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--after", type=int, default=100, help="first step of the fit")
    options = parser.parse_args()
    training = {
        "steps": options.steps,
        "batch": options.batch,
        "evaluate_every": 250,
        "evaluate_windows": 64,
        "final_windows": 256,
        "threads": options.threads,
        "checkpoint_every": 250,
    }
    runs: list[tuple[str, RunResult]] = []
    for start in STARTS:
        # The published one is the recipe's own: not a change.
        over = {
            "training": training,
            **({} if start == "published" else {"model": {"initialisation": start}}),
        }
        study = run_study("laptop", ["dense/rmsnorm"], range(options.seeds), options.out / start, over)
        runs += [(start, run) for run in study.runs if run.status == "completed"]
    growths = [_growth(start, run, options.after) for start, run in runs]
    where = {
        **environment(dtype="bf16"),
        "steps": options.steps,
        "batch": options.batch,
        "after": options.after,
    }
    (options.out / "initialisation.json").write_text(
        to_json({"runs": [asdict(growth) for growth in growths], **where}), encoding="utf-8"
    )
    _draw(runs, options.out / "figures")
    steps = list(growths[0].norm_at)
    table(
        [
            "start",
            "seed",
            "perplexity",
            "bits per byte",
            *(f"L2 at {step}" for step in steps),
            "power p",
            "r²",
        ],
        [
            [
                *(
                    growth.initialisation,
                    str(growth.seed),
                    f"{growth.perplexity:.1f}",
                    f"{growth.bits_per_byte:.3f}",
                ),
                *(f"{growth.norm_at[step]:.1f}" for step in steps),
                *(f"{growth.power:.2f}", f"{growth.r_squared:.2f}"),
            ]
            for growth in growths
        ],
    )
    print(
        json.dumps({"benchmark": "initialisation", "powers": [growth.power for growth in growths], **where})
    )


def _growth(start: str, run: RunResult, after: int) -> Growth:
    points = [point for point in run.training if point.step >= after]
    line = fit([math.log(point.step) for point in points], [math.log(point.l2_norm[-1]) for point in points])
    assert line is not None, "a run of more than a few logged steps"
    last = run.training[-1].step
    wanted = [step for step in (50, 100, 250, 500, 750, 1000, 2000, 4000) if step <= last]
    nearest = {
        str(step): min(run.training, key=lambda point: abs(point.step - step)).l2_norm[-1] for step in wanted
    }
    return Growth(
        start,
        run.seed,
        run.per_loop[-1].perplexity,
        run.per_loop[-1].bits_per_byte,
        nearest,
        line.slope,
        line.r_squared,
    )


def _draw(runs: list[tuple[str, RunResult]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    for start, run in runs:
        steps = [point.step for point in run.training]
        label = f"{start} start" if run.seed == 0 else None
        ax.plot(steps, [p.l2_norm[-1] for p in run.training], color=COLORS[start], lw=1.6, label=label)
        ax.plot(steps, [p.l2_norm[0] for p in run.training], color=COLORS[start], lw=0.8, ls=":")
    ax.set(xscale="log", yscale="log", xlabel="training step", ylabel="L2 norm of H")
    ax.set_title(
        "dense/rmsnorm: last loop (solid), first (dotted)", loc="left", fontsize=11, fontweight="bold"
    )
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e4e4e4", lw=0.6)
    ax.legend(frameon=False)
    for ending in ("png", "svg"):
        figure.savefig(folder / f"initialisation.{ending}", dpi=150)


if __name__ == "__main__":
    main()
