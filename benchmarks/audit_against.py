"""Audits of this build and of an earlier commit, side by side: `python -m benchmarks.audit --against COMMIT`.

A worktree of the commit goes into a temporary folder. Both builds stay in processes of their own, with the same weights
and the same batch, and take turns; the one that is not asked waits. A ratio is new over old, the median of pairs.
`plain` is an audit that tries no other number format, as earlier builds have it; `fast` the verdict alone, held against
a forward pass of the same batch (to the trained depth, the last exit's logits, no gradient) in the same rounds. Peak
memory is that of one more process each.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.earlier_state import earlier_state
from benchmarks.environment import MEBI, environment, finish, table

HERE = Path(__file__).parents[1]
AGREES = 1e-5
"""Relative difference of two figures that counts as none; figures below `NOISE` times this are rounding in both."""
NOISE = 1e-2


def compare(options: Namespace) -> None:
    """Measure every row, print tables, and one line of JSON."""
    with earlier_state(options.against) as old, tempfile.TemporaryDirectory() as folder:
        rows = {row: measure(row, old, Path(folder), options) for row in options.rows}
    headings = [
        "row",
        "old, s",
        "new, s",
        "ratio (range)",
        "no rounding",
        "fast / forward",
        "MiB old, new",
        "ratio",
    ]
    lines = []
    for row, found in rows.items():
        low, high = found["time_range"]
        lines.append(
            [
                row,
                f"{found['seconds']['old']:.1f}",
                f"{found['seconds']['audit']:.1f}",
                f"{found['time_ratio']:.3f} ({low:.3f} to {high:.3f})",
                f"{found['time_ratio_without_rounding']:.3f}",
                f"{found['fast_in_forwards']:.2f}",
                f"{found['peak_mib']['old']:,}, {found['peak_mib']['audit']:,}",
                f"{found['memory_ratio']:.3f}",
            ]
        )
    print()
    table(headings, lines)
    for row, found in rows.items():
        print(
            f"\n{row}: verdicts {'agree' if found['verdicts_agree'] else 'DIFFER'}; figures that differ, by key:"
        )
        table(
            ["key", "figures", "differ", "largest"],
            [[key, *map(str, of)] for key, of in found["differences"].items()],
        )
    print()
    finish(
        {
            "benchmark": "audit",
            "against": options.against,
            "time_ratio": max(found["time_ratio"] for found in rows.values()),
            "memory_ratio": max(found["memory_ratio"] for found in rows.values()),
            "verdicts_agree": all(found["verdicts_agree"] for found in rows.values()),
            "rows": rows,
        },
        environment(),
    )


def measure(row: str, old: Path, folder: Path, options: Namespace) -> dict[str, Any]:
    """One row: pairs in turn, then memory."""
    weights = folder / f"{row}.pt"
    subprocess.run(
        [*command(row, options), "--save", str(weights)], check=True, env=environ(HERE), cwd=folder
    )
    seconds: dict[str, list[float]] = {"old": [], "plain": [], "audit": [], "fast": [], "forward": []}
    with ExitStack() as stack:
        before = stack.enter_context(process(row, old, weights, options))
        now = stack.enter_context(process(row, HERE, weights, options))
        ask(now, "fast"), ask(now, "forward"), ask(before, "forward")  # warm up
        for pair in range(options.pairs):
            earlier = ask(before, "audit")
            seconds["old"].append(earlier["seconds"])
            for what in ("plain", "audit", "fast", "forward"):
                answer = ask(now, what)
                seconds[what].append(answer["seconds"])
                if what == "audit":
                    report = answer["report"]
            said = ", ".join(f"{name} {spent[-1]:.2f} s" for name, spent in seconds.items())
            print(f"{row}, pair {pair + 1}: {said}", flush=True)
    peaks = {
        name: peak(row, tree, weights, what, options)
        for name, tree, what in (("old", old, "audit"), ("audit", HERE, "audit"), ("fast", HERE, "fast"))
    }
    weights.unlink()
    ratios = [one / other for one, other in zip(seconds["audit"], seconds["old"], strict=True)]
    return {
        "pairs": options.pairs,
        "time_ratio": round(statistics.median(ratios), 4),
        "time_range": [round(min(ratios), 4), round(max(ratios), 4)],
        "time_ratio_without_rounding": ratio(seconds, "plain", "old"),
        "fast_in_forwards": ratio(seconds, "fast", "forward"),
        "memory_ratio": round(peaks["audit"]["peak"] / peaks["old"]["peak"], 4),
        "added_memory_ratio": round(added(peaks["audit"]) / added(peaks["old"]), 4),
        "seconds": {name: round(statistics.median(spent), 3) for name, spent in seconds.items()},
        "peak_mib": {name: round(found["peak"] / MEBI) for name, found in peaks.items()},
        "before_audit_mib": {name: round(found["before"] / MEBI) for name, found in peaks.items()},
        "verdicts_agree": said_of(earlier["report"]) == said_of(report),
        "differences": differences(earlier["report"], report),
    }


def ratio(seconds: Mapping[str, list[float]], one: str, other: str) -> float:
    """The median over pairs."""
    return round(statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True)), 4)


def added(found: Mapping[str, int]) -> int:
    """What an audit takes beside what the process had: libraries, weights, batch."""
    return found["peak"] - found["before"]


def said_of(report: Mapping[str, Any]) -> list[Any]:
    """Every verdict of a report: the model's, its loops', its remedies'."""
    remedies = [(one["change"], one["verdict"]) for one in report["remedies"]]
    return [report["verdict"], [loop["status"] for loop in report["loops"]], remedies]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """By key of the report: figures that both have, how many differ by more than `AGREES`, the largest difference."""
    found: dict[str, list[Any]] = {}
    others = dict(figures(new))
    for path, one in figures(old):
        if path not in others:
            continue
        other = others[path]
        apart, size = abs(one - other), max(abs(one), abs(other))
        relative = apart / size if size > AGREES * NOISE else 0.0
        counted = found.setdefault(path.split("/")[1], [0, 0, 0.0])
        counted[0] += 1
        counted[1] += relative > AGREES
        counted[2] = max(counted[2], float(f"{relative:.2g}"))
    return found


def figures(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a report by its path."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from figures(part, f"{path}/{key}")
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from figures(part, f"{path}/{place}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def command(row: str, options: Namespace) -> list[str]:
    """The process that audits; its own folder is not on its path."""
    script = HERE / "benchmarks" / "audit_process.py"
    return [sys.executable, "-P", str(script), row, "--threads", str(options.threads)]


def environ(tree: Path) -> dict[str, str]:
    """This environment, with the package of that tree."""
    return {**os.environ, "PYTHONPATH": str(tree)}


@contextmanager
def process(row: str, tree: Path, weights: Path, options: Namespace) -> Iterator["subprocess.Popen[str]"]:
    """A process that is ready to audit with one build."""
    arguments = [*command(row, options), "--weights", str(weights)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(arguments, text=True, env=environ(tree), cwd=weights.parent, **pipes) as started:
        assert started.stdout is not None
        assert json.loads(started.stdout.readline())["ready"]
        yield started


def ask(started: "subprocess.Popen[str]", what: str) -> dict[str, Any]:
    """What a process answers."""
    assert started.stdin is not None
    assert started.stdout is not None
    print(what, file=started.stdin, flush=True)
    answer: dict[str, Any] = json.loads(started.stdout.readline())
    return answer


def peak(row: str, tree: Path, weights: Path, what: str, options: Namespace) -> dict[str, int]:
    """Peak memory of one audit's process, and what it had before the audit."""
    arguments = [*command(row, options), "--weights", str(weights), "--memory", what]
    done = subprocess.run(
        arguments, check=True, text=True, capture_output=True, env=environ(tree), cwd=weights.parent
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found
