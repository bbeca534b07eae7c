"""Can it be foretold where a scale comes to rest? Sizes over training, the cube root between weights, and a balance.

    loopscope study --config benchmarks/resting_scale.yaml --seeds 1 --out runs/rest
    python -m benchmarks.resting_scale runs/rest

For every run of a study: S, the root mean square of H over loops, at several steps; for every two runs that differ by a
norm penalty's weight alone, the size that the cube root says from the other, over the size there was. And at the last
checkpoint the balance that `audit.resting_scale` tells of: what cross-entropy gains by a larger scale along the weights
that move it fastest (W, by differences, with 95 % over sequences), how fast that falls on the way, and the pull (P) of
the penalties. Prints tables, and one JSON line.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.environment import environment, finish, table
from loopscope.audit.resting_scale import pull_at
from loopscope.config.nested import read_yaml
from loopscope.guards import evaluating
from loopscope.jobs import open_model
from loopscope.jobs.text import held_out
from loopscope.numerics import wide
from loopscope.objectives.objective import Objective, build_objective
from loopscope.recurrence import AbstractLoopedLM, unroll
from loopscope.results import trained_runs
from loopscope.results.layout import CONFIG
from loopscope.results.student_t import quantile
from loopscope.training.metrics import read_metrics
from loopscope.wide_weights import replaced_tensors

STEPS = (100, 200, 400, 800, 1600)
STEP = 0.01
"""Change of log S by which the want is measured; ten times that, and back, for how fast it falls."""


def main() -> None:
    """Read a study, measure its last checkpoints, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = [run for study in options.studies for run in trained_runs(study)]
    sizes = {f"{run.parent.name} {run.name}": sizes_of(run) for run in runs}
    print("RMS of H over loops, by step")
    rows = [
        [name, *(f"{found[s]:.2f}" if s in found else "" for s in STEPS)] for name, found in sizes.items()
    ]
    table(["run", *map(str, STEPS)], rows)
    ratios = _print_law({run: sizes[f"{run.parent.name} {run.name}"] for run in runs})
    balances = []
    for run in runs:
        balances.append({"run": f"{run.parent.name} {run.name}", **balance(run, options.sequences)})
    print("\nat the last checkpoint, nats for a scale e times as large: W of cross-entropy, P of penalties")
    keys = ("want", "half", "pull", "falls")
    table(
        ["run", "W", "± 95 %", "P", "W falls by, per e-fold", "balance at, of S"],
        [[str(b["run"]), *(f"{b[key]:.3f}" for key in keys), f"{b['at']:.3f}"] for b in balances],
    )
    finish({"benchmark": "resting_scale", "ratios": ratios, "balances": balances}, environment())


def sizes_of(run: Path) -> dict[int, float]:
    """Return S by step, from a run's own records."""
    dim = read_yaml(run / CONFIG)["model"]["dim"]
    found = {}
    for point in read_metrics(run):
        norms = [norm for norm in point.get("l2_norm", ()) if norm is not None]
        if point["kind"] == "train" and norms:
            found[point["step"]] = math.sqrt(sum(norm**2 for norm in norms) / len(norms) / dim)
    return found


def _print_law(runs: Mapping[Path, Mapping[int, float]]) -> list[float]:
    """For every two runs that differ by the weight alone, how far off the cube root of weights is."""
    print("\nsize that the cube root of weights says from another run, over the size there was")
    rows, last_ratios = [], []
    for one, other in permutations(runs, 2):
        weights = [_weight_and_rest(run) for run in (one, other)]
        if (
            weights[0][1] != weights[1][1]
            or not all(weight for weight, _ in weights)
            or weights[0][0] >= weights[1][0]
        ):
            continue
        cells = []
        for step in STEPS:
            if step in runs[one] and step in runs[other]:
                said = runs[one][step] * (weights[0][0] / weights[1][0]) ** (1 / 3)
                cells.append(f"{said / runs[other][step]:.2f}")
                last = said / runs[other][step]
            else:
                cells.append("")
        last_ratios.append(last)
        rows.append([f"{one.parent.name} to {other.parent.name}", *cells])
    table(["from, to", *map(str, STEPS)], rows)
    return last_ratios


def _weight_and_rest(run: Path) -> tuple[float, Any]:
    """A run's norm penalty, and all else that decides it."""
    config = read_yaml(run / CONFIG)
    objective = dict(config["objective"])
    penalty = dict(objective.pop("norm_penalty"))
    weight = float(penalty.pop("weight"))
    training = {key: value for key, value in config["training"].items() if key not in ("steps", "keep_last")}
    return weight, (config["model"], objective, penalty, config["data"], training["batch"], training["seed"])


def balance(run: Path, sequences: int) -> dict[str, float]:
    """Return W with half of its interval, P, how fast W falls, and where both are equal, over S."""
    opened = open_model(run)
    assert opened.objective is not None, "a run has one"
    objective, text = build_objective(opened.objective), held_out(opened, None, sequences, None)
    model, plain = opened.model, Objective(objective.placement)
    with evaluating(model):
        slopes, squares = scale_gradient(model, text.input_ids)
        squared = math.fsum(float(slope.double().square().sum()) for slope in slopes.values())
        moved = {
            by: _moved(model, plain, slopes, by * STEP / squared, text.input_ids, text.labels)
            for by in (-11, -10, -9, -1, 1, 9, 10, 11)
        }
    gains = (moved[-1][0] - moved[1][0]) / (moved[1][1] - moved[-1][1])
    want = float(gains.mean())
    half = quantile(0.05, len(gains) - 1) * float(gains.std()) / math.sqrt(len(gains))
    ends = [
        float((moved[low][0] - moved[high][0]).mean()) / (moved[high][1] - moved[low][1])
        for low, high in ((-11, -9), (9, 11))
    ]
    falls = (ends[0] - ends[1]) / (moved[10][1] - moved[-10][1])
    pull = pull_at(objective.penalties, squares)
    at = math.exp((want - pull) / falls) if falls > 0 else math.nan
    return {"want": want, "half": half, "pull": pull, "falls": falls, "at": at}


def scale_gradient(model: AbstractLoopedLM, input_ids: Tensor) -> tuple[dict[int, Tensor], Tensor]:
    """Return the gradient of log S to every weight, by id of the parameter, and the loops' mean squares."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    squares = torch.stack([wide(state.hidden).square().mean() for state in unroll(model, input_ids)])
    slopes = torch.autograd.grad(0.5 * squares.mean().log(), parameters, allow_unused=True)
    found = {id(p): slope for p, slope in zip(parameters, slopes, strict=True) if slope is not None}
    return found, squares.detach()


def _moved(
    model: AbstractLoopedLM,
    objective: Objective,
    slopes: Mapping[int, Tensor],
    step: float,
    input_ids: Tensor,
    labels: Tensor,
) -> tuple[Tensor, float]:
    """Cross-entropy of every sequence and log S, with the weights moved along the gradient of log S."""

    def moved(tensor: Tensor) -> Tensor | None:
        slope = slopes.get(id(tensor))
        return None if slope is None else tensor.detach() + step * slope

    losses: list[Tensor] = []
    squares: list[Tensor] = []
    with torch.no_grad(), replaced_tensors(model, moved):
        for ids, follow in zip(input_ids.split(1), labels.split(1), strict=True):
            loss = objective(unroll(model, ids), follow)
            losses.append(loss.total.double())
            squares.append(loss.mean_square.double().mean())
    return torch.stack(losses), _log_size(squares)


def _log_size(squares: Sequence[Tensor]) -> float:
    return 0.5 * math.log(float(torch.stack(list(squares)).mean()))


if __name__ == "__main__":
    main()
