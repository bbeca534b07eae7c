"""What the page of a large study takes: by default 10 conditions × 10 seeds, 8 loops, all audited and evaluated.

    python -m benchmarks.report                            # makes the study (about ten minutes), then its page, 3 times
    python -m benchmarks.report --study runs/hundred       # the same, kept there: made once

One seed of every condition is trained, audited and evaluated in earnest, small; the others are its records with every
number changed by a few percent. The page is made by `loopscope report` in a process of its own, as people call it;
its stages are timed in another, where the work of drawing processes counts as processor time.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.environment import elsewhere, environment, finish, table

DIM, LOOPS = 32, 8
SPREAD = 0.03
"""How far a seed's records are from another's, at most; every number a tenth of that more."""
ALIKE = ("allowed", "bytes_per_token", "flops_per_token", "training_flops_per_token")
"""What seeds of a condition share."""
COMMAND = "import sys; from loopscope.cli import main; sys.argv[0] = 'loopscope'; main()"


def main() -> None:
    """Make the study where it is not there, time its page, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", type=Path, help="its folder; a temporary one by default")
    parser.add_argument("--conditions", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--validation-bytes", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3, help="0: its stages alone")
    parser.add_argument("--stages-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stages_of:
        print(json.dumps(stages(options.stages_of)))
        return
    with tempfile.TemporaryDirectory() as folder:
        study = options.study or Path(folder) / "hundred"
        if not (study / "comparison.json").is_file():
            make(study, options.conditions, options.seeds, options.steps, options.validation_bytes)
        whole = [_run("-c", COMMAND, "report", str(study)) for _ in range(options.repeats)]
        inside = elsewhere("report", "--stages-of", str(study))
        page, figures = study / "report.html", list((study / "figures").glob("*.png"))
        sizes = {"page_mb": round(page.stat().st_size / 1e6, 2), "figures": len(figures)}
        runs = len(json.loads((study / "results.json").read_text())["runs"])
    seconds, processor = (
        statistics.median(entry[place] for entry in whole or [inside["all"]]) for place in (0, 1)
    )
    rows = [["loopscope report, whole", f"{seconds:.1f}", f"{processor:.1f}"]]
    rows += [[name, *(f"{value:.2f}" for value in pair)] for name, pair in inside.items()]
    table([f"{runs} runs", "seconds", "processor, s"], rows)
    finish(
        {
            "benchmark": "report",
            "runs": runs,
            "seconds": round(seconds, 2),
            "processor_seconds": round(processor, 2),
            "repeats": options.repeats,
            "cores": os.cpu_count(),
            "stages": inside,
            **sizes,
        },
        environment(),
    )


def make(study: Path, conditions: int, seeds: int, steps: int, validation_bytes: int) -> None:
    """Make a study whose first seeds are real, with records for all seeds: results, audits, evaluations, comparison."""
    from loopscope.config.recipes import CONDITIONS
    from loopscope.jobs import ExitSettings, audit_paths, measure_depth, measure_exits, run_study
    from loopscope.results.layout import run_folder

    names = list(CONDITIONS)[:conditions]
    over = {
        "model": {"dim": DIM, "layers": 1, "heads": 2, "loops": LOOPS, "vocabulary": 512},
        "data": {
            "max_bytes": 1_000_000,
            "max_validation_bytes": validation_bytes,
            "tokenizer": {"vocabulary": 512},
        },
        "training": {"steps": steps, "batch": 4, "log_every": 1, "checkpoint_every": steps},
    }
    run_study("small", names, [0], study, over, quiet=True)
    list(audit_paths([study]))
    for name in names:
        measure_depth(run_folder(study, name, 0))
        measure_exits(run_folder(study, name, 0), ExitSettings(pairs=1))
    add_seeds(study, seeds)


def add_seeds(study: Path, seeds: int) -> None:
    """Give a study of one seed each the records of more, and their comparison."""
    from loopscope.evaluation.compare import compare
    from loopscope.results import decode, load_results, to_json
    from loopscope.results.evaluations import ModelEvaluation
    from loopscope.results.layout import AUDIT, COMPARISON, EVALUATION, RESULTS, run_folder
    from loopscope.results.runs import RunResult

    first = load_results(study)
    runs, evaluations = [], []
    for result in (run for run in first.runs if run.seed == 0):
        for seed in range(seeds):
            source, run = (run_folder(study, result.condition, number) for number in (0, seed))
            run.mkdir(exist_ok=True)
            config = {**result.config, "training": {**result.config["training"], "seed": seed}}
            known = json.loads(to_json(replace(result, seed=seed, config={})))
            runs.append(replace(decode(RunResult, changed(known, result.condition, seed)), config=config))
            audit, evaluation = (json.loads((source / name).read_text()) for name in (AUDIT, EVALUATION))
            evaluation["seed"] = seed
            for name, record in ((AUDIT, audit), (EVALUATION, evaluation)):
                (run / name).write_text(json.dumps(changed(record, result.condition, seed), indent=1))
            evaluations.append(decode(ModelEvaluation, changed(evaluation, result.condition, seed)))
    (study / RESULTS).write_text(to_json(replace(first, runs=tuple(runs))))
    (study / COMPARISON).write_text(to_json(compare(evaluations)))


def changed(record: Any, condition: str, seed: int) -> Any:
    """A record with every number that is not whole changed a little, seed 0 as it is; shares stay shares."""
    draw = random.Random(f"{condition} {seed}")
    together = 1 + SPREAD * draw.uniform(-1, 1)

    def other(value: Any) -> Any:
        if isinstance(value, float) and not value.is_integer():
            moved = value * together * (1 + SPREAD / 10 * draw.uniform(-1, 1))
            return min(moved, 1.0) if 0 < value < 1 else moved
        if isinstance(value, dict):
            return {key: entry if key in ALIKE else other(entry) for key, entry in value.items()}
        return [other(entry) for entry in value] if isinstance(value, list) else value

    return other(record) if seed else record


def stages(study: Path) -> dict[str, tuple[float, float]]:
    """Seconds, and processor seconds with those of children that ended, of every stage of one page."""
    found: dict[str, tuple[float, float]] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began, used = time.perf_counter(), _processor()
        try:
            yield
        finally:
            before = found.get(name, (0.0, 0.0))
            spent = (time.perf_counter() - began, _processor() - used)
            found[name] = (round(before[0] + spent[0], 3), round(before[1] + spent[1], 3))

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with timed(name):
                return function(*given, **named)

        return call

    with timed("importing"):
        from loopscope.report import html, page
    watch: Mapping[str, tuple[str, ...]] = {
        "reading records": ("load_results", "find_audits", "find_evaluations"),
        "figures and tables": ("build_figures", "build_audit_section", "build_evaluation_section", "_study"),
        "statements": ("_statements", "findings"),
        "rendering, drawing": ("render",),
    }
    for name, functions in watch.items():
        for function in functions:
            setattr(page, function, watched(name, getattr(page, function)))
    for name, function in {"of it plotly's data": "to_plotly", "of it plotly's script": "_plotly"}.items():
        setattr(html, function, watched(name, getattr(html, function)))
    with timed("all"):
        page.write_report(study)
    return found


def _processor() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _run(*arguments: str) -> tuple[float, float]:
    """Seconds and processor seconds of a Python process."""
    began, used = time.perf_counter(), _processor()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, _processor() - used


if __name__ == "__main__":
    main()
