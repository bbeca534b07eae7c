"""The families side by side at laptop size: norms, perplexity by loop, what holds past the trained depth.

    python -m benchmarks.families --out runs/families --seeds 2 --steps 120
    python -m benchmarks.families --out runs/families-scaled --seeds 2 --steps 120 --initialisation scaled

Trains every family's architecture under dense/rmsnorm and dense/raw (a study: called again, it goes on where it
stopped), measures every run to twice its trained depth in one unroll, audits the first seed of each, and writes
`families.json`, the table as `families.md` and two figures. All runs see the same tokens; FLOPs are counted, in the
table. `loopscope report OUT` has the curves over training.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.environment import environment, table
from loopscope import load
from loopscope.config import FAMILIES, recipe
from loopscope.data import prepare
from loopscope.jobs import audit_model, open_model, run_study
from loopscope.jobs.audit import keep_audit
from loopscope.jobs.train import windows
from loopscope.plan import cost
from loopscope.results import LoopMetrics, RunResult, run_folder, to_json
from loopscope.training import resolve_precision, validate

LOSSES = ("dense/rmsnorm", "dense/raw")


@dataclass(frozen=True)
class Row:
    """One run, measured to twice its trained depth."""

    family: str
    loss: str
    seed: int
    status: str
    parameters: int
    training_flops_per_token: int
    verdict: str | None  # first seed only
    perplexity: tuple[float, ...]  # per loop, 1 to 2K
    bits_per_byte: tuple[float, ...]
    l2_norm: tuple[float, ...]


def main() -> None:
    """Train, measure, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--windows", type=int, default=128, help="validation windows")
    parser.add_argument("--initialisation", choices=("published", "scaled"), default="published")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    training = {
        "steps": options.steps,
        "batch": options.batch,
        "threads": options.threads,
        "evaluate_every": None,
        "checkpoint_every": None,
        "final_windows": options.windows,
    }
    # The published one is the recipe's own: not a change.
    start = options.initialisation
    over = {"training": training, **({} if start == "published" else {"model": {"initialisation": start}})}
    names = [f"{family}:{loss}" for family in options.families for loss in LOSSES]
    results = run_study("laptop", names, range(options.seeds), options.out, over)
    rows = [_measure(run, options.out, options.windows) for run in results.runs]
    where = {
        **environment(dtype=resolve_precision("auto", torch.device("cpu"))),
        **{name: getattr(options, name) for name in ("initialisation", "steps", "batch", "seeds")},
    }
    values = {"rows": [row.__dict__ for row in rows], **where}
    (options.out / "families.json").write_text(to_json(values), encoding="utf-8")
    _draw(rows, options.out)
    _print(rows, options.out)
    print(json.dumps({"benchmark": "families", "runs": len(rows), **where}))


def _measure(run: RunResult, out: Path, limit: int) -> Row:
    family, _, loss = run.condition.partition(":")
    config = recipe("laptop", run.condition)
    flops = cost(config.model).training_flops
    if run.status != "completed":
        return Row(family, loss, run.seed, run.status, run.parameters, flops, None, (), (), ())
    folder = run_folder(out, run.condition, run.seed)
    data = windows(config, prepare(config.data, progress=False))
    model = load(folder)

    def measured(loops: int) -> Sequence[LoopMetrics]:
        batches = data.validation(limit)
        return validate(model, batches, data.bytes_per_token, torch.device("cpu"), loops)

    metrics = measured(2 * model.loops)
    if (
        model.depth_conditioned
    ):  # told how deep it runs: its trained loops are those of an unroll of that depth
        metrics = [*measured(model.loops), *metrics[model.loops :]]
    verdict = None
    if run.seed == 0:
        opened = open_model(folder)
        audited = audit_model(opened, sequences=4)
        keep_audit(folder, audited)
        verdict = audited.report.verdict
    return Row(
        family=family,
        loss=loss,
        seed=run.seed,
        status=run.status,
        parameters=run.parameters,
        training_flops_per_token=flops,
        verdict=verdict,
        perplexity=tuple(entry.perplexity for entry in metrics),
        bits_per_byte=tuple(entry.bits_per_byte for entry in metrics),
        l2_norm=tuple(entry.l2_norm for entry in metrics),
    )


def _mean(rows: list[Row], name: str) -> list[float]:
    """Over seeds: geometric, because norms and perplexities differ by factors."""
    columns = zip(*(getattr(row, name) for row in rows if row.status == "completed"), strict=True)
    return [
        math.exp(sum(math.log(max(value, 1e-30)) for value in column) / len(column)) for column in columns
    ]


def _groups(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.family, row.loss), []).append(row)
    return found


def _print(rows: list[Row], out: Path) -> None:
    headings = [
        *("family", "loss", "verdict", "parameters", "training FLOPs/token"),
        *("perplexity, loops 1 / K / 2K", "bits per byte", "L2 norm"),
    ]
    lines = []
    for (family, loss), group in _groups(rows).items():
        verdict = next((row.verdict for row in group if row.verdict), "")
        columns = [_mean(group, name) for name in ("perplexity", "bits_per_byte", "l2_norm")]
        if not columns[0]:
            lines.append([family, loss, group[0].status, "", "", "", "", ""])
            continue
        places = (0, len(columns[0]) // 2 - 1, -1)
        lines.append(
            [
                family,
                loss,
                verdict,
                f"{group[0].parameters:,}",
                f"{group[0].training_flops_per_token:.3g}",
                *(" / ".join(_short(column[place]) for place in places) for column in columns),
            ]
        )
    table(headings, lines)
    marks = [headings, ["---"] * len(headings), *lines]
    (out / "families.md").write_text("".join(f"| {' | '.join(line)} |\n" for line in marks), encoding="utf-8")


def _short(value: float) -> str:
    return f"{value:.1e}" if value >= 1e6 else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _draw(rows: list[Row], out: Path) -> None:
    """Perplexity and norm by loop, the trained depth marked, one panel per loss."""
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    colors = dict(
        zip(
            FAMILIES,
            ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c00"),
            strict=False,
        )
    )
    for name, label in (("perplexity", "validation perplexity"), ("l2_norm", "L2 norm of H")):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(LOSSES), sharey=True)
        for ax, loss in zip(axes, LOSSES, strict=True):
            _panel(ax, {f: g for (f, kind), g in _groups(rows).items() if kind == loss}, name, colors)
            ax.set_title(loss, loc="left", fontsize=11, fontweight="bold")
        axes[0].set_ylabel(label)
        axes[-1].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
        for ending in ("png", "svg"):
            figure.savefig(folder / f"families-{name.replace('_', '-')}.{ending}", dpi=150)


def _panel(ax: Any, groups: dict[str, list[Row]], name: str, colors: dict[str, str]) -> None:
    for family, group in groups.items():
        mean = _mean(group, name)
        if not mean:
            continue
        loops = range(1, len(mean) + 1)
        ax.plot(loops, mean, color=colors[family], marker="o", ms=3.5, lw=1.8, label=family)
        for row in group:
            ax.plot(loops, getattr(row, name), color=colors[family], lw=0.6, alpha=0.4)
        ax.axvline(len(mean) / 2, color="#888888", lw=0.8, ls=":")
    ax.set_yscale("log")
    ax.set_xlabel("loop (dotted: the trained depth)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e4e4e4", lw=0.6)


if __name__ == "__main__":
    main()
