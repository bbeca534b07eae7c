"""Benchmarks by depth on a page: what is drawn, what is in the table, and what is said."""

import math
from pathlib import Path

import pytest

from loopscope.report.evaluations.section import build_evaluation_section
from loopscope.report.evaluations.task_curves import MOST_TASKS, task_figures, task_sentences, task_table
from loopscope.report.found import EvaluationFiles
from loopscope.report.looks import Looks
from loopscope.report.page import write_report
from loopscope.results import TaskEvaluation, TaskMetric, TaskScores, decode, load_tasks, to_json
from loopscope.results.codec import json_object
from tests.report.fixtures import EVIL, assert_nothing_breaks_out, without_files


def made(condition: str, seed: int | None = 0, tasks: tuple[TaskScores, ...] = ()) -> TaskEvaluation:
    return TaskEvaluation(condition, condition, "laptop", seed, 4, 1000, 50, 128, tasks)


def scores(
    task: str = "colours",
    values: tuple[float, ...] = (0.2, 0.5, 0.4),
    errors: tuple[float | None, ...] = (0.1, 0.1, 0.1),
    better: bool | None = True,
    group: str | None = None,
    cut: int = 0,
) -> TaskScores:
    metric = TaskMetric("acc", "none", better, values, errors)
    return TaskScores(
        task, "multiple_choice", group, (1, 2, 4), (metric,), 40, 50, 0, "1.0", True, cut, "0.4.13"
    )


LOOKS = Looks([("a/b", "laptop"), ("c/d", "laptop")])


def test_a_curve_has_standard_errors_and_a_table_marks_the_best() -> None:
    models = [made("a/b", tasks=(scores(),)), made("c/d", tasks=(scores(values=(0.1, 0.2, 0.3)),))]
    (figure,) = task_figures(models, LOOKS)
    first, second = figure.series
    assert (first.x, first.y) == ((1.0, 2.0, 4.0), (0.2, 0.5, 0.4))
    assert first.low == pytest.approx((0.1, 0.4, 0.3))
    assert first.high == pytest.approx((0.3, 0.6, 0.5))
    assert (first.bars, second.y) == ("y", (0.1, 0.2, 0.3))
    assert [mark.at for mark in figure.marks] == [4.0]
    table = task_table(models, LOOKS)
    assert table is not None
    assert [[cell.mark for cell in row[4:]] for row in table.rows] == [["", "best", ""], ["", "", "best"]]
    assert table.rows[0][5].interval == "± 0.100"


def test_what_is_said_of_the_best_depth() -> None:
    told = {
        (
            0.2,
            0.5,
            0.4,
        ): "colours: acc is best at loop 2: 0.5 ± 0.1; at the trained depth, 4, it is 0.4 ± 0.1.",
        (0.2, 0.4, 0.5): "colours: acc is best at the trained depth, 4: 0.5 ± 0.1.",
        (0.2, 0.5, 0.5): "colours: acc is best at the trained depth, 4: 0.5 ± 0.1.",
        (0.5, 0.5, 0.5): "colours: acc is 0.5 ± 0.1 at every depth.",
    }
    for values, sentence in told.items():
        assert task_sentences([made("a/b", tasks=(scores(values=values),))], LOOKS) == [("a/b", sentence)]
    nobody_knows = made("a/b", tasks=(scores(better=None, cut=3),))
    ((_, said),) = task_sentences([nobody_knows], LOOKS)
    assert said.startswith("colours: 3 requests are longer than the 128 tokens")


def test_groups_stand_for_their_tasks_and_seeds_share_a_name() -> None:
    tasks = (scores("all"), *(scores(f"part {n}", group="all") for n in range(3)))
    figures = task_figures([made("a/b", 0, tasks), made("a/b", 1, tasks)], LOOKS)
    assert [figure.title for figure in figures] == ["all at every depth"]
    assert [series.in_legend for series in figures[0].series] == [True, False]
    table = task_table([made("a/b", 0, tasks), made("a/b", 1, tasks)], LOOKS)
    assert table is not None
    assert [row[0].text for row in table.rows] == ["a/b, seed 0"] * 4 + ["a/b, seed 1"] * 4
    many = made("a/b", tasks=tuple(scores(f"task {n}") for n in range(9)))
    assert len(task_figures([many], LOOKS)) == MOST_TASKS


def test_values_decades_apart_are_drawn_on_a_log_axis_and_no_number_nowhere() -> None:
    wide = scores(values=(1e6, 20.0, 10.0), errors=(2e6, 1.0, None), better=False)
    (figure,) = task_figures([made("a/b", tasks=(wide,))], LOOKS)
    assert figure.log_y
    assert all(low > 0 for low in figure.series[0].low)
    broken = scores(values=(math.nan, math.inf, 0.5), errors=(None, None, None))
    (figure,) = task_figures([made("a/b", tasks=(broken,))], LOOKS)
    assert (figure.series[0].x, figure.series[0].low) == ((4.0,), ())
    record = made("a/b", tasks=(broken,))
    again = decode(TaskEvaluation, json_object(to_json(record)))
    assert math.isnan(again.tasks[0].metrics[0].values[0])
    assert again.tasks[0].metrics[0].errors == (None, None, None)


def test_a_record_reads_as_a_table() -> None:
    record = made("a/b", tasks=(scores(),))
    assert record.lines()[1].startswith("colours: acc is best at loop 2")
    assert [row["loop"] for row in record.table()] == [1, 2, 4]


def test_benchmarks_alone_make_a_section_and_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = made(EVIL, tasks=(scores(EVIL), scores("more")))
    section = build_evaluation_section(EvaluationFiles((), None, (), (record,)), ())
    assert section is not None
    assert [part.key for part in section.parts] == ["tasks"]
    without_files(monkeypatch)
    (tmp_path / "tasks.json").write_text(to_json(record))
    assert load_tasks(tmp_path) == record
    assert_nothing_breaks_out(write_report(tmp_path).read_text())
