"""Exit rules of a user's own in a terminal of 80 columns: told apart, and spelt out once."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from loopscope.cli.evaluate_exits_print import print_exits
from tests.report.evaluations.fixtures import make_evaluation, make_exits

PACKAGE = "a_package.rules"
NAMES = {
    "logit-margin": f"{PACKAGE}.first:GapStallsAfterSomeLoops",
    "hidden-step": f"{PACKAGE}.first:GapStallsAfterSomeLoopsOrNot",
}


def renamed(records: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(replace(one, rule=NAMES.get(one.rule, one.rule)) for one in records)


def test_long_names_are_told_apart() -> None:
    exits = make_exits()
    exits = replace(
        exits,
        curves=renamed(exits.curves),
        calibrations=renamed(exits.calibrations),
        speeds=renamed(exits.speeds),
    )
    console = Console(file=StringIO(), width=80)
    print_exits(make_evaluation(exits=exits), None, console)
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    rows = [line for line in shown.splitlines() if line.startswith("GapStallsAfterSomeLoops")]
    # Per sequence, per token, and times, each under its own name; then what each name stands for.
    assert [line.split()[0] for line in rows] == [*(name.rpartition(":")[2] for name in NAMES.values())] * 4
    for name in NAMES.values():
        assert f"{name.rpartition(':')[2]} is {name}." in " ".join(shown.split())


def test_a_path_stays_in_one_line() -> None:
    console = Console(file=StringIO(), width=40)
    path = Path("/a/folder/with-a-long/name-that-has-hyphens/dense_raw/seed-0/evaluation.json")
    print_exits(make_evaluation(exits=make_exits()), path, console)
    assert isinstance(console.file, StringIO)
    assert f"Kept in {path}." in console.file.getvalue().splitlines()
