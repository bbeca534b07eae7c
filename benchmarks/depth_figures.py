"""Figures of the pages on depth and control, from committed rows: nothing is trained.

`control-is-worth`: what control of scale is worth at the trained depth, by size, start and learning rate. `prognosis`:
the change of the loss that was foretold at four times the depth, against what came. In docs/results/figures, unless
`python -m benchmarks.depth_figures --out FOLDER` names another.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.claim_rows import Row, load_rows
from benchmarks.claim_tables import BLIND, grouped, paired
from benchmarks.fates_fit import LARGEST, prognosis
from benchmarks.fates_runs import load_runs
from loopscope.evaluation.depth.prognosis_rule import UNIT
from loopscope.report.plots.figure import PALETTE, QUIET
from loopscope.results.prognoses import BREAKS
from loopscope.results.student_t import over_seeds

COLORS = {
    name: PALETTE[place]
    for place, name in enumerate(
        ("dense/rmsnorm", "dense/raw", "dense/rmsnorm+penalty", "dense/final-only", "dense/rmsnorm+interloop")
    )
}
STUDIES = {
    "narrow": "held back from the fit",
    "laptop": "of other width and starts",
    "depths": "of 2, 8 and drawn loops",
}
MARKS = ("o", "s", "^")


def main() -> None:
    """Draw both figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/figures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, figure in (("control-is-worth", worth(load_rows())), ("prognosis", told_and_true())):
        figure.savefig(options.out / f"{name}.png", dpi=130)


def gains(rows: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """Nats at the trained depth against the blind model, seed by seed, of every control in every group of runs."""
    found = {}
    for (size, start, rate, tokens), conditions in grouped(rows).items():
        blind = conditions.get(BLIND, {})
        controls = [name for name in conditions if name in COLORS and name != BLIND]
        amount = f"{tokens / 1e6:.1f}M" if tokens >= 9.5e5 else f"{tokens / 1e3:.0f}k"
        told = f"{size.upper()} parameters, {start} start, {amount} tokens, rate {rate:g}"
        found[told] = {name: apart for name in controls if (apart := paired(conditions[name], blind))}
    return {name: group for name, group in found.items() if group}


def worth(rows: Sequence[Row]) -> Figure:
    """One panel a group of runs: seeds as points, the mean with its 95 % interval where there are three."""
    groups = gains(rows)
    heights = [len(group) for group in groups.values()]
    figure = Figure(figsize=(7.0, 0.6 + 0.26 * sum(heights) + 0.5 * len(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        len(groups), 1, sharex=True, squeeze=False, height_ratios=[n + 0.6 for n in heights]
    )
    for (name, group), (ax,) in zip(groups.items(), panels, strict=True):
        for place, (condition, values) in enumerate(group.items()):
            color, mean = COLORS[condition], over_seeds(values)
            ax.plot(values, [place] * len(values), "o", ms=4, color=color, alpha=0.45, mew=0)
            ax.plot([mean.mean], [place], "D", ms=6, color=color)
            if mean.low is not None and mean.high is not None:
                ax.plot([mean.low, mean.high], [place, place], color=color, lw=2.5)
        ax.set_yticks(
            range(len(group)), [condition.removeprefix("dense/") for condition in group], fontsize=8.5
        )
        ax.set_ylim(len(group) - 0.5, -0.5)
        ax.axvline(0, color=QUIET, lw=1)
        ax.set_title(name, loc="left", fontsize=9)
        for side in ("top", "right", "left"):
            ax.spines[side].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", alpha=0.25)
    panels[-1][0].set_xlabel(
        "nats per token at the trained depth against dense/rmsnorm; left of 0: better", fontsize=9
    )
    return figure


def told_and_true() -> Figure:
    """Every run that nothing was fitted on: what was foretold of 4K against what came."""
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    ends = (-UNIT / 2, LARGEST)
    ax.plot(ends, ends, color=QUIET, lw=1)
    for place, (study, name) in enumerate(STUDIES.items()):
        runs = [run for run in load_runs(study) if run.part != "fit"]
        told = [prognosis(run) for run in runs]
        points = [
            (min(run.four_times, LARGEST), min(said.four_times, LARGEST))
            for run, said in zip(runs, told, strict=True)
        ]
        right = [said.fate == run.fate for run, said in zip(runs, told, strict=True)]
        for came in (True, False):
            chosen = [point for point, so in zip(points, right, strict=True) if so == came]
            label = f"{name}: {sum(right)} of {len(right)} fates right" if came else None
            face = PALETTE[place] if came else "white"
            ax.plot(
                *zip(*chosen, strict=True),
                MARKS[place],
                ms=5,
                mec=PALETTE[place],
                mfc=face,
                alpha=0.8,
                label=label,
            )
    limit = math.log1p(BREAKS)
    for line in (ax.axvline, ax.axhline):
        line(limit, color=QUIET, lw=0.8, ls=":")
    ax.annotate(
        "breaks", (limit, ends[0]), xytext=(4, 4), textcoords="offset points", fontsize=8, color=QUIET
    )
    ax.set_xscale("asinh", linear_width=UNIT)
    ax.set_yscale("asinh", linear_width=UNIT)
    ax.set_xlim(-0.5, 1.2 * LARGEST)
    ax.set_ylim(-UNIT / 2, 1.2 * LARGEST)
    ticks = [0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10]
    below = [-0.3, -0.1, -0.03, -0.01]
    ax.set_xticks([*below, *ticks], [f"{tick:g}" for tick in (*below, *ticks)], rotation=45)
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xlabel("what four times the trained depth did to the loss, nats per token")
    ax.set_ylabel("what was foretold from K + 2 loops")
    ax.legend(
        frameon=False, fontsize=8.5, loc="upper left", title="hollow: another fate came", title_fontsize=8.5
    )
    ax.grid(alpha=0.2)
    return figure


if __name__ == "__main__":
    main()
