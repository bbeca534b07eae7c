"""The table that ends a study: a mean per condition over its seeds, with the interval of pages and records."""

from typing import Any

import pytest

from loopscope.cli.train_print import print_means
from loopscope.results.student_t import over_seeds_of
from tests.report.study.fixtures import make_failed, make_run


def rows(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Cells of every line of the table."""
    return [
        [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]
        for line in capsys.readouterr().out.splitlines()
        if "│" in line or "┃" in line
    ]


def test_three_seeds_have_an_interval_and_two_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    runs: list[Any] = [make_run("a", seed, scale=3.0 + seed) for seed in range(3)]
    runs += [make_run("b", seed, scale=1.0 + seed) for seed in range(2)]
    print_means(runs, quiet=False)
    heading, first, interval, second = rows(capsys)
    assert heading == ["condition", "seeds", "perplexity", "bits per byte", "RMS"]
    assert (first[:2], second[:2]) == (["a", "3"], ["b", "2"])
    rms = over_seeds_of("rms", [run.per_loop[-1].rms for run in runs[:3]])
    assert rms.low is not None
    assert rms.high is not None
    assert (first[-1], interval[-1]) == (f"{rms.mean:.4g}", f"{rms.low:.4g} to {rms.high:.4g}")
    assert second[-1] == f"{over_seeds_of('rms', [run.per_loop[-1].rms for run in runs[3:]]).mean:.4g}"


def test_runs_that_did_not_complete_are_in_no_mean(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run("a", 0), make_run("a", 1), make_failed("a")]
    print_means(runs, quiet=False)
    assert rows(capsys)[1][:2] == ["a", "2 of 3"]


def test_one_seed_each_has_no_means(capsys: pytest.CaptureFixture[str]) -> None:
    print_means([make_run("a", 0), make_run("b", 0)], quiet=False)
    print_means([make_run("a", 0), make_run("a", 1)], quiet=True)
    assert capsys.readouterr().out == ""
