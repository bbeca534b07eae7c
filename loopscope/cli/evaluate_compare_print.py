"""A comparison on a terminal: what it says first, then the figures it rests on."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from loopscope.cli.evaluate_depth_print import new_table, print_verdicts, say, with_interval
from loopscope.cli.output import output
from loopscope.results import Comparison, Difference, Matched, Option
from loopscope.results.layout import COMPARISON


def print_comparison(comparison: Comparison, console: Console | None = None, kept: bool = True) -> None:
    """Sentences, notes, and six tables."""
    console = console or output()
    settings = comparison.settings
    unit = settings.get("unit", "bits per byte")
    console.print(Text("What the data separates, each model run to so many loops", "bold"))
    for sentence in comparison.sentences:
        say(console, f"• {sentence}")
    for note in comparison.notes:
        say(console, f"Note: {note}")
    console.print()
    _quality(comparison, unit, console)
    trained = max((verdict.trained_loops for verdict in comparison.verdicts), default=1)
    _differences([d for d in comparison.differences if d.loop == trained], trained, unit, console)
    _pareto(comparison.options, unit, console)
    _equal_flops(comparison, unit, console)
    if comparison.matched:
        _matched(comparison.matched, unit, console)
    print_verdicts(comparison.verdicts, console)
    say(
        console,
        f"{settings['windows']} windows of {settings['sequence']} tokens: {settings['data']}. Seeds: "
        f"{settings['seeds']}. Intervals are 95 %; p-values are corrected over {settings['tests']} tests (Holm). "
        + (f"Every loop's figures are in {COMPARISON}." if kept else "Every loop's figures: --json."),
    )


def _quality(comparison: Comparison, unit: str, console: Console) -> None:
    """Mean bits per byte (of a task: per answer): conditions down, loops across."""
    deepest = max(option.loops for option in comparison.options)
    table = new_table([f"{unit} at loop", *map(str, range(1, deepest + 1))])
    for condition in comparison.conditions:
        found = {o.loops: o.bits_per_byte.mean for o in comparison.options if o.condition == condition}
        cells = (f"{found[loop]:.3f}" if loop in found else "" for loop in range(1, deepest + 1))
        table.add_row(condition, *cells)
    console.print(table)
    console.print()


def _differences(differences: Sequence[Difference], loop: int, unit: str, console: Console) -> None:
    if not differences:
        return
    table = new_table([f"at loop {loop}: second minus first", unit, "p", "corrected", ""])
    for entry in differences:
        table.add_row(
            f"{entry.one}, {entry.other}",
            with_interval(entry.bits_per_byte, sign=True),
            _p(entry.p),
            _p(entry.p_corrected),
            "separated" if entry.separated else "",
        )
    console.print(table)
    console.print()


def _pareto(options: Sequence[Option], unit: str, console: Console) -> None:
    """Only what nothing beats; the whole table is in the file."""
    measured = any(option.seconds_per_token is not None for option in options)
    time = ["µs per token"] if measured else []
    table = new_table(["nothing beats (mean)", "loops", unit, "FLOPs per token", *time, "for its"])
    for option in sorted(options, key=lambda o: (o.loops, o.bits_per_byte.mean)):
        fronts = {"loops": option.best_for_loops, "FLOPs": option.best_for_flops}
        fronts |= {"time": option.best_for_time} if measured else {}
        if not any(fronts.values()):
            continue
        seconds = option.seconds_per_token
        table.add_row(
            option.condition,
            str(option.loops),
            with_interval(option.bits_per_byte),
            _figure(option.flops_per_token),
            *([_figure(None if seconds is None else seconds * 1e6)] if measured else []),
            ", ".join(name for name, on in fronts.items() if on),
        )
    console.print(table)
    if not measured:
        say(console, "--time measures seconds per token at every depth.")
    console.print()


def _equal_flops(comparison: Comparison, unit: str, console: Console) -> None:
    """Who is ahead within an amount of arithmetic, and by how much."""
    if comparison.equal_flops:
        per = "byte" if unit == "bits per byte" else "token"
        table = new_table(
            [f"FLOPs per {per}, from", "ahead", "loops", unit, "best other", "loops", "behind by"]
        )
        for entry in comparison.equal_flops:
            other, loops = entry.second or "", "" if entry.second_loops is None else str(entry.second_loops)
            behind = "" if entry.behind is None else with_interval(entry.behind, sign=True)
            table.add_row(
                f"{entry.flops_per_byte:.3g}",
                entry.condition,
                str(entry.loops),
                with_interval(entry.bits_per_byte),
                other,
                loops,
                behind,
            )
        console.print(table)
    if how := comparison.settings.get("flops"):
        say(console, f"{how}.")
    console.print()


def _matched(rows: Sequence[Matched], unit: str, console: Console) -> None:
    """What each baseline is worth beside its looped model, then what they cost."""
    table = new_table(["is looping worth it", "loops", unit, "minus looped", "separated"])
    costs = new_table(["cost", "parameters", "FLOPs per token", "FLOPs of training"])
    for row in rows:
        table.add_row(
            row.condition if row.role == "looped" else f"  {row.condition} ({row.role})",
            str(row.loops),
            with_interval(row.bits_per_byte),
            "" if row.against is None else with_interval(row.against, sign=True),
            "✓" if row.separated else "",
        )
    for row in {row.condition: row for row in rows}.values():
        costs.add_row(
            row.condition, f"{row.parameters:,}", _figure(row.inference_flops), _figure(row.training_flops)
        )
    for printed in (table, costs):
        console.print(printed)
        console.print()


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
