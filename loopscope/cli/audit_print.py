"""An audit on a terminal: the verdict first, then the figures it rests on."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loopscope.cli.evaluate_depth_print import print_prognosis
from loopscope.cli.output import output
from loopscope.cli.recipes import in_short
from loopscope.results import (
    AuditedModel,
    AuditReport,
    JudgedModel,
    Judgement,
    LoopVerdict,
    Rounding,
    SideScale,
    StaticAudit,
    StaticLoop,
    Verdict,
)

VERDICT_STYLES: dict[Verdict, str] = {
    "blind": "bold white on red",
    "damped": "bold black on yellow",
    "visible": "bold white on dark_green",
    "removed": "bold white on blue",
}
FLAT = 0.01
"""Relative change of scale below which no line is fitted to it."""
MARKS: dict[Verdict, str] = {"blind": "✗", "damped": "~", "visible": "✓", "removed": "✓"}


def print_audits(audits: Sequence[AuditedModel], console: Console | None = None) -> None:
    """One card per model."""
    console = console or output()
    for audited in audits:
        _print_audit(audited, console)


def print_judged(judged: JudgedModel, console: Console | None = None) -> None:
    """A verdict without the rest of an audit."""
    console = console or output()
    judgement = judged.judgement
    _print_verdict(judged, judgement, judged.judgements, console)
    table = _table("loop", "verdict", "RMS", "carry", "direct visibility", "exposure")
    for loop, rms in zip(judgement.loops, judgement.rms, strict=True):
        table.add_row(str(loop.loop), _word(loop.status), _n(rms), *_exposed(loop))
    console.print(_captioned(table))
    if judgement.side_scales:
        console.print(_beside(judgement.side_scales))
    batch, length = judged.batch
    _say(console, f"{judged.parameters:,} parameters; {batch} × {length} tokens: {judged.data}.")
    _say(
        console, "The verdict alone (--fast). Drift, what a changed scale costs and remedies: without --fast."
    )
    console.print()


def print_static(audit: StaticAudit, console: Console | None = None, by_loop: bool = True) -> None:
    """What a config says before training: the verdict and why, and the same of every loop."""
    console = console or output()
    console.print(_headline(audit.verdict, audit.name))
    _say(console, f"{audit.why}.")
    if audit.resting:
        _say(console, f"Scale {audit.resting}.")
    if not by_loop:
        return
    for number, phase in enumerate(audit.phases, start=1):
        cost = f"{in_short(phase.flops_per_token)} FLOPs per token of a training step"
        _say(console, f"Phase {number}, {phase.name} ({phase.when}; {cost}): {phase.verdict}.")
        console.print(_static_loops(phase.loops))
    if not audit.phases:
        console.print(_static_loops(audit.loops))
    if audit.deeper:
        _say(console, f"{audit.deeper}.")
    _say(console, "Read from the config. Measure it once a model is trained: loopscope audit RUN.")


def _static_loops(loops: Sequence[StaticLoop]) -> Table:
    table = _table("loop", "verdict", "why")
    for loop in loops:
        table.add_row(str(loop.loop), _word(loop.status), loop.reason)
    return table


def _print_audit(audited: AuditedModel, console: Console) -> None:
    report = audited.report
    _print_verdict(audited, report, audited.reports, console)
    if report.resting is not None:
        for line in report.resting.lines():
            _say(console, f"Scale {line}")
    if audited.trend is not None:
        _say(console, " ".join(audited.trend.lines()))
    console.print(_loops(report))
    if report.side_scales:
        console.print(_beside(report.side_scales))
    expansion = report.expansion
    drift = f"Scale goes from {_n(expansion.rms[0])} at loop 1 to {_n(expansion.rms[-1])} at loop {len(expansion.rms)}"
    grown = expansion.rms[-1] - expansion.rms[0]
    if expansion.growth and abs(grown) > FLAT * expansion.rms[0]:
        drift += f"; a line fits with slope {_n(expansion.growth.slope)} a loop (r² {expansion.growth.r_squared:.3f})"
    _say(console, drift + ".")
    if report.remedies:
        console.print(_remedies(report))
    if report.rounding:
        console.print(_rounding(report))
        for tried in report.rounding:
            _say(console, f"{tried.format}: {tried.why}")
    if audited.prognosis is not None:
        print_prognosis(audited.prognosis, console)
    batch, length = audited.batch
    _say(console, f"{audited.parameters:,} parameters; {batch} × {length} tokens: {audited.data}.")
    console.print()


def _print_verdict(
    model: AuditedModel | JudgedModel,
    worst: AuditReport | Judgement,
    reports: Sequence[AuditReport | Judgement],
    console: Console,
) -> None:
    console.print(_headline(worst.verdict, model.name))
    _say(console, worst.why)
    for note in worst.notes:
        _say(console, note)
    origin = {
        "model": f"Judged under its own objective, {worst.objective}.",
        "given": f"Judged under the objective given, {worst.objective}.",
        "assumed": "Nothing says what it was trained on, so the plausible objectives were judged: "
        + ", ".join(f"{r.objective} {r.verdict}" for r in reports)
        + ". Name its own with --objective.",
    }
    _say(console, origin[model.objective_from])


def _loops(report: AuditReport) -> Table:
    table = _table(
        "loop", "verdict", "RMS", "carry", "direct visibility", "exposure", "cross-entropy", "radius"
    )
    for loop, entropy, dynamics in zip(report.loops, report.cross_entropy, report.dynamics, strict=True):
        table.add_row(
            str(loop.loop),
            _word(loop.status),
            _n(report.expansion.rms[loop.loop - 1]),
            *_exposed(loop),
            f"{entropy:.3f}",
            f"{dynamics.spectral_radius:.2f}",
        )
    return _captioned(table)


def _exposed(loop: LoopVerdict) -> tuple[str, str, str]:
    """Cells of carry, direct visibility and exposure."""
    return f"{abs(loop.carry):.0%}", f"{loop.direct:.1e}", f"{loop.exposure:.1e}"


def _captioned(table: Table) -> Table:
    table.caption = "visibility and exposure in nats for a scale e times as large"
    table.caption_justify = "left"
    return table


def _beside(side_scales: Sequence[SideScale]) -> Table:
    table = _table("beside H", "loop", "verdict", "RMS", "carry", "visibility", "radial share", "exposure")
    for side in side_scales:
        table.add_row(
            side.name,
            str(side.loop),
            _word(side.status),
            _n(side.rms),
            f"{abs(side.carry):.0%}",
            f"{side.visibility:.1e}",
            f"{side.share:.1%}",
            f"{side.exposure:.1e}",
        )
    return table


def _remedies(report: AuditReport) -> Table:
    table = _table("what would close it, tried without training", "verdict then", "cost now, mean over exits")
    for remedy in report.remedies:
        cost = f"{remedy.cost:+.3f} nats" if remedy.cost else "once trained with"
        table.add_row(remedy.change, _word(remedy.verdict), cost)
    return table


def _rounding(report: AuditReport) -> Table:
    trained = len(report.loops)
    deepest = max((len(tried.loops) for tried in report.rounding), default=0)
    table = _table(
        "number format",
        "its error",
        "a loop (95 %)",
        f"H off, loop {trained}",
        f"loop {deepest}",
        "exit, nats",
        "loses 1 %",
    )
    for tried in report.rounding:
        rows = {row.loop: row for row in tried.loops}
        at, last = rows.get(trained), rows.get(deepest)
        table.add_row(
            tried.format,
            tried.outcome,
            _growth(tried),
            _finite(at.state if at else None, ".2%"),
            _finite(last.state if last else None, ".2%"),
            _finite(at.excess if at else None, "+.4f"),
            f"at loop {tried.lost_at}" if tried.lost_at else "never" if tried.loops else "–",
        )
    return table


def _growth(tried: Rounding) -> str:
    """How an error changes in a loop, beside what loops add, with its interval over tokens."""
    if tried.growth is None:
        return "–"
    if tried.growth_interval is None:
        return f"{100 * tried.growth:+.1f} %"
    low, high = tried.growth_interval
    return f"{100 * tried.growth:+.1f} % ({100 * low:+.1f} to {100 * high:+.1f})"


def _finite(value: float | None, form: str) -> str:
    return "–" if value is None or not math.isfinite(value) else format(value, form)


def _headline(verdict: Verdict, name: str) -> Text:
    return Text.assemble(
        (f" {MARKS[verdict]} {verdict.upper()} ", VERDICT_STYLES[verdict]), "  ", (name, "bold")
    )


def _word(verdict: Verdict) -> Text:
    return Text(f"{MARKS[verdict]} {verdict}", style="bold red" if verdict == "blind" else "")


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, heading in enumerate(headings):
        left = place == 0 or heading in ("verdict", "why", "verdict then")
        table.add_column(heading, justify="left" if left else "right")
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _n(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
