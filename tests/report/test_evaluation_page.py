"""The section about depth and exits on the page: from the files beside the runs, and from nothing else."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from loopscope.report.page import write_report
from loopscope.report.plots.figure import PALETTE
from loopscope.results import Comparison, ModelEvaluation, audit_values, to_json
from tests.report.audits.fixtures import make_audit
from tests.report.evaluations.fixtures import broken_evaluation, make_comparison, make_evaluation
from tests.report.fixtures import (
    EVIL,
    assert_nothing_breaks_out,
    assert_offline,
    figure_data,
)
from tests.report.study.fixtures import make_run, make_study


def write(
    folder: Path,
    names: Sequence[str] = ("a/b", "c/d"),
    seeds: int = 1,
    evaluations: Sequence[ModelEvaluation] = (),
    comparison: Comparison | None = None,
) -> str:
    """A study with these evaluations beside its runs."""
    folder.mkdir(parents=True, exist_ok=True)
    study = make_study(*(make_run(name, seed) for name in names for seed in range(seeds)))
    (folder / "results.json").write_text(to_json(study))
    for number, evaluation in enumerate(evaluations):
        place = folder / f"condition-{number}" / f"seed-{evaluation.seed}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "evaluation.json").write_text(to_json(evaluation))
    if comparison:
        (folder / "comparison.json").write_text(to_json(comparison))
    return write_report(folder).read_text()


def evaluation_keys(text: str) -> set[str]:
    return {key for key in figure_data(text) if key.startswith("evaluation-")}


@pytest.mark.usefixtures("undrawn")
def test_without_evaluations_there_is_no_section(tmp_path: Path) -> None:
    text = write(tmp_path)
    assert "Depth and exits" not in text
    assert evaluation_keys(text) == set()


def test_evaluations_beside_the_runs_become_a_section(tmp_path: Path) -> None:
    made = [make_evaluation("a/b"), make_evaluation("c/d")]
    text = write(tmp_path, evaluations=made, comparison=make_comparison(("a/b", "c/d")))
    assert_offline(text)
    assert "Depth and exits" in text
    assert len(evaluation_keys(text)) == 12
    assert text.index('id="evaluation-worth"') < text.index('id="evaluation-depth"')
    assert "made up: the data does not separate two of them" in text
    assert "made up: hurts" in text
    assert (
        re.findall(r'class="badge (\w+)"', text) == ["hurts", "holds"] * 2
    )  # in words first, then in the table
    for key in evaluation_keys(text):
        assert (tmp_path / "figures" / f"{key}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "figures" / f"{key}.svg").exists()


@pytest.mark.usefixtures("undrawn")
def test_another_record_makes_another_page(tmp_path: Path) -> None:
    made = make_evaluation("a/b")
    before = write(tmp_path, evaluations=[made])
    changed = replace(made.depth[0].per_loop[5], bits_per_byte=7.125)
    curve = replace(
        made.depth[0], per_loop=(*made.depth[0].per_loop[:5], changed, *made.depth[0].per_loop[6:])
    )
    after = write(tmp_path, evaluations=[replace(made, depth=(curve,), data="another text")])
    of = [figure_data(text)["evaluation-depth"]["data"][0]["y"] for text in (before, after)]
    assert of[0][:5] + of[0][6:] == of[1][:5] + of[1][6:]
    assert (of[0][5] != 7.125, of[1][5]) == (True, 7.125)
    assert "another text" in after
    assert "another text" not in before


@pytest.mark.usefixtures("undrawn")
def test_a_run_folder_and_a_study_evaluated_in_part(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "result.json").write_text(to_json(make_run("a/b")))
    (alone / "evaluation.json").write_text(to_json(make_evaluation("a/b")))
    text = write_report(alone).read_text()
    assert "worth running: within 1 % of the best perplexity. Trained to loop 4." in text
    assert "One seed: no interval." in text
    text = write(tmp_path / "study", seeds=2, evaluations=[make_evaluation("c/d", 1)])
    assert "Evaluated: 1 of 4 completed runs." in text


@pytest.mark.usefixtures("undrawn")
def test_a_condition_has_one_look_and_one_place_on_the_whole_page(tmp_path: Path) -> None:
    """Whatever order the records have: audits come by folder, comparisons by name, evaluations by number."""
    names = ["z/first", "a/second", "m/third"]
    for name in names:
        place = tmp_path / name.replace("/", "_") / "seed-0"
        place.mkdir(parents=True)
        (place / "audit.json").write_text(to_json(audit_values(make_audit(name))))
    made = [make_evaluation(name) for name in sorted(names)]
    text = write(tmp_path, names, evaluations=made, comparison=make_comparison(sorted(names)))
    colors: dict[str, set[str]] = {}
    for key, figure in figure_data(text).items():
        seen = dict.fromkeys(trace.get("name") for trace in figure["data"] if trace.get("name") in names)
        assert list(seen) == [name for name in names if name in seen], key
        for trace in figure["data"]:
            if trace.get("name") in names:
                colors.setdefault(trace["name"], set()).add(trace["line"]["color"])
    assert [colors[name] for name in names] == [{color} for color in PALETTE[:3]]
    assert re.findall(r'class="model" title="([^"]+)"', text) == names
    for table in re.findall(r'<table class="headline[^"]*">(.*?)</table>', text, re.DOTALL):
        rows = list(dict.fromkeys(re.findall(r'<th scope="row" data-sort="([^"]+)">', table)))
        assert rows == [name for name in (*names, "unlooped", "unlooped, deep") if name in rows]


@pytest.mark.usefixtures("undrawn")
def test_a_seed_is_said_once(tmp_path: Path) -> None:
    made = [make_evaluation("a/b", 0, name="a/b"), make_evaluation("a/b", 1, name="a/b, seed 1")]
    text = write(tmp_path, ["c/d"], evaluations=made)
    assert re.findall(r"<summary>(a/b[^<]*?) <span>", text) == ["a/b, seed 0", "a/b, seed 1"]


@pytest.mark.usefixtures("undrawn")
def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    place = tmp_path / "x" / "seed-0"
    place.mkdir(parents=True)
    (place / "evaluation.json").write_text('{"name": 1}')
    (tmp_path / "comparison.json").write_text("[]")
    text = write_report(tmp_path).read_text()
    assert "Not shown: x/seed-0/evaluation.json is not a ModelEvaluation" in text
    assert "Not shown: comparison.json is not a Comparison" in text


@pytest.mark.usefixtures("page_only")
def test_untrusted_text_cannot_break_out(tmp_path: Path) -> None:
    comparison = make_comparison((EVIL, "c/d"), sentences=(EVIL,) * 9, notes=(EVIL,))
    made = [make_evaluation(EVIL, data=EVIL), make_evaluation("c/d")]
    assert_nothing_breaks_out(write(tmp_path, (EVIL, "c/d"), evaluations=made, comparison=comparison))


@pytest.mark.usefixtures("page_only")
def test_many_conditions_and_seeds_stay_one_page(tmp_path: Path) -> None:
    names = [f"condition/{'long-' * 3}{n}" for n in range(12)]
    made = [
        make_evaluation(name, seed, level=4.0 + 0.1 * n) for n, name in enumerate(names) for seed in range(2)
    ]
    text = write(tmp_path, names, 2, made, make_comparison(names))
    assert len(text) < 3_300_000
    data = figure_data(text)
    assert len(data["evaluation-worth"]["data"][0]["z"]) == 12
    assert "The first 6 of 12 conditions." in text


@pytest.mark.usefixtures("page_only")
def test_a_page_where_nothing_is_finite_and_audits_are_there_too(tmp_path: Path) -> None:
    place = tmp_path / "a_b" / "seed-0"
    place.mkdir(parents=True)
    (place / "audit.json").write_text(to_json(audit_values(make_audit("a/b"))))
    text = write(tmp_path, evaluations=[broken_evaluation("a/b")])
    assert "No loss is finite at any depth." in text
    assert "evaluation-worth" not in evaluation_keys(text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
