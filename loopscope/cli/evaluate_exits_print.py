"""Exits on a terminal: fixed depths, what a threshold gives on text it was not chosen on, seconds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loopscope.cli.output import output
from loopscope.results import Calibration, ExitEvaluation, ExitPoint, ModelEvaluation, Speed
from loopscope.results.short_names import short_names


def print_exits(evaluation: ModelEvaluation, kept: Path | None, console: Console | None = None) -> None:
    """One model's."""
    console = console or output()
    exits = evaluation.exits
    assert exits is not None
    console.print(f"\n[bold]{evaluation.name}[/bold]", highlight=False)
    _say(console, f"{evaluation.windows} windows of {evaluation.sequence} tokens, {evaluation.data}.")
    console.print(_fixed(exits.fixed))
    if evaluation.depth_conditioned:
        _say(
            console,
            f"Its states depend on how many loops are run: these are exits on the way of a run of {len(exits.fixed)}, "
            "and a run of fewer loops has others (loopscope evaluate depth).",
        )
    best, full = min(exits.fixed, key=lambda point: point.loss), exits.fixed[-1]
    if best.mean_loops < full.mean_loops:
        _say(
            console,
            f"Fixed depth {best.mean_loops:g} is better than full depth, and needs no rule: compare with it.",
        )
    for unit in ("sequence", "token"):
        for target in ("perplexity", "mean loops"):
            chosen = [each for each in exits.calibrations if (each.unit, each.target) == (unit, target)]
            if chosen:
                console.print(_calibrated(chosen, exits))
                for each in chosen:
                    if not each.met:
                        _say(console, f"{each.why}.")
    if exits.speeds:
        console.print(_speeds(exits.speeds, _names(exits)))
    for whole, short in _names(exits).items():
        if whole != short:
            _say(console, f"{short} is {whole}.")
    if kept is not None:
        # A path that is cut into lines cannot be copied.
        console.print(f"Kept in {kept}.", markup=False, highlight=False, soft_wrap=True)


def _fixed(points: Sequence[ExitPoint]) -> Table:
    table = _table(None, "fixed depth", "perplexity", "bits per byte")
    for loop, point in enumerate(points, start=1):
        table.add_row(str(loop), f"{point.perplexity:.4g}", f"{point.bits_per_byte:.4f}")
    return table


def _calibrated(chosen: Sequence[Calibration], exits: ExitEvaluation) -> Table:
    """One unit's, for one target."""
    first = chosen[0]
    percent = f"at most {100 * (first.allowed - 1):.3g} % more perplexity than full depth"
    target = percent if first.target == "perplexity" else f"at most {first.allowed:.3g} loops"
    reads = {curve.rule: "labels" if curve.bound else ", ".join(curve.needs) for curve in exits.curves}
    chosen_on, others = first.windows
    title = f"\nper {first.unit}, {target}:\nchosen on {chosen_on} windows, figures on the {others} others"
    table = _table(title, "rule", "reads", "threshold", "loops", "perplexity", "change", "held")
    names = _names(exits)
    for each in chosen:
        tested = each.tested_on
        if tested is None:
            table.add_row(names[each.rule], reads[each.rule], "", "", "", "", "not met")
            continue
        held = "yes" if each.held else "no"
        more = 100 * (tested.perplexity / each.full_depth.perplexity - 1)
        table.add_row(
            names[each.rule],
            reads[each.rule],
            f"{each.threshold:.4g}",
            f"{tested.mean_loops:.2f}",
            f"{tested.perplexity:.4g}",
            f"{more:+.1f} %",
            f"bound: {held}" if reads[each.rule] == "labels" else held,
        )
    return table


def _names(exits: ExitEvaluation) -> dict[str, str]:
    """What tables call each rule: a class of others by its own name, which the line below the tables spells out."""
    rules = [curve.rule for curve in exits.curves] + [made.rule for made in exits.calibrations]
    return short_names([*rules, *(speed.rule for speed in exits.speeds)])


def _speeds(speeds: Sequence[Speed], names: Mapping[str, str]) -> Table:
    one = speeds[0]
    title = f"\ntimes faster than fixed depth: {one.batch} × {one.sequence} tokens, {one.device}, {one.threads} thread"
    table = _table(
        title + "s" * (one.threads > 1), "rule", "loops", "realised", "FLOPs allow", "K / mean loops"
    )
    for speed in speeds:
        allowed = "" if speed.allowed is None else f"{speed.allowed:.2f}"
        table.add_row(
            names[speed.rule],
            f"{speed.mean_loops:.2f}",
            f"{speed.realised:.2f}",
            allowed,
            f"{speed.ideal:.2f}",
        )
    return table


def _table(title: str | None, first: str, *rest: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="italic",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column(first, no_wrap=True)
    for heading in rest:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
