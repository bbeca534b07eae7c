"""The study behind the prognosis of depth: its grid is whole, and what is tested is not what was fitted."""

import statistics
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.fates_entries import RECIPE, SHAPES, settings
from benchmarks.fates_fit import (
    accuracy,
    fitted,
    held,
    hurts_after,
    last_difference,
    off_by,
    prognosis,
)
from benchmarks.fates_flops import flops_per_token
from benchmarks.fates_flops_tables import flops_table
from benchmarks.fates_grid import FITTED_ON, grid, part, rounds, variants
from benchmarks.fates_runs import Run, asked_at, load_runs
from loopscope.config import FAMILIES
from loopscope.evaluation.depth.prognosis_constants import FITTED
from loopscope.evaluation.depth.prognosis_rule import UNIT, movements
from loopscope.jobs.study_cells import plan
from loopscope.results import LoopSigns

PLANS = {
    size: [
        config
        for seed, names in rounds(size)
        for config in plan(RECIPE, names, [seed], settings(size), variants(size), here=False)
    ]
    for size in SHAPES
}
PLANNED = PLANS["narrow"]


@pytest.mark.parametrize(("size", "count"), [("narrow", 66), ("laptop", 84)])
def test_every_run_of_a_grid_has_a_valid_config_of_the_same_depth_and_tokens(size: str, count: int):
    assert len(PLANS[size]) == sum(entry.seeds for entry in grid(size).values()) == count
    assert {config.model.loops for config in PLANS[size]} == {4}
    assert len({config.data for config in PLANS[size]}) == 1
    assert {config.training.steps for config in PLANS[size]} == {SHAPES[size].steps}


def test_conditions_are_what_their_names_say():
    runs = {(config.condition, config.training.seed): config for config in PLANNED}
    assert len(runs) == len(PLANNED)
    assert runs["penalty-1e-4", 0].objective.norm_penalty.weight == 1e-4
    assert runs["decay", 2].model.carry == ("decay",)
    larger = {(config.condition, config.training.seed): config for config in PLANS["laptop"]}
    assert {larger[f"published-{name}", 1].model.initialisation for name in ("raw", "terminal")} == {
        "published"
    }
    assert larger["dense/raw", 0].model.initialisation == "scaled"
    assert [phase.placement for phase in runs["dense-then-terminal", 1].objective.phases] == [
        *("dense", "terminal")
    ]


def test_other_depths_differ_by_the_depth_alone():
    runs = {(config.condition, config.training.seed): config for config in PLANS["depths"]}
    assert len(runs) == sum(entry.seeds for entry in grid("depths").values()) == 28
    assert {config.model.loops for config in runs.values()} == {2, 8}
    assert {config.training.steps for config in runs.values()} == {SHAPES["laptop"].steps}
    assert runs["loops-8-dense/raw", 0].model.readout.kind == "raw"
    assert runs["drawn-deeper-terminal", 1].training.depth.average(2) == 6.5


def test_runs_at_equal_flops_have_them():
    """Counted anew from every config, also of a curriculum, that costs what its mean depth does."""
    runs = PLANS["flops"]
    assert len(runs) == sum(entry.seeds for entry in grid("flops").values()) == 61
    assert {config.model.loops for config in runs} == {4}
    spent = {
        name: statistics.mean(
            run.training.steps * flops_per_token(run) for run in runs if run.condition == name
        )
        for name in grid("flops")
    }
    assert list(spent.values()) == pytest.approx([spent["blind"]] * len(spent), rel=0.01)
    each = [run.training.steps * flops_per_token(run) for run in runs]
    assert each == pytest.approx([spent["blind"]] * len(each), rel=0.02)
    steps = {config.condition: config.training.steps for config in runs}
    assert steps["parcae-whole"] < steps["jacobian"] < steps["blind"] < steps["terminal"]
    assert steps["growing"] == steps["drawn"] == steps["blind"] == SHAPES["flops"].steps


def test_a_part_of_huginn_is_huginn_but_for_it():
    runs = {config.condition: config for config in PLANS["flops"] if config.training.seed == 0}
    whole = runs["huginn-whole"]
    for name, kept in {
        "huginn-fixed-depth": {"model"},
        "huginn-no-prelude": {"training"},
        "huginn-start-input": {"training"},
        "huginn-no-injection": {"training"},
        "huginn-pre-norm": {"training"},
    }.items():
        for section in kept:
            other = getattr(runs[name], section)
            steps = {"training": {"steps": whole.training.steps}}.get(section, {})
            assert other.model_copy(update=steps) == getattr(whole, section), name
        assert runs[name].model != whole.model or runs[name].training.depth != whole.training.depth
    assert runs["huginn-no-injection"].model.injection.kind == "none"


def test_drawn_depths_cost_what_the_fixed_one_does():
    depths = {config.condition: config.training.depth for config in PLANNED}
    assert depths["sampled-dense"].average(4) == depths["sampled-terminal"].average(4) == 4
    curriculum = depths["curriculum"]
    assert (curriculum.fewest(4) + curriculum.most(4)) / 2 == 4
    assert curriculum.curriculum == settings("narrow")["training"]["steps"]


def test_what_is_tested_was_not_fitted():
    parts = Counter(part(config.condition, config.training.seed) for config in PLANNED)
    assert parts == {"fit": 30, "unseen seed": 9, "unseen condition": 15, "unseen family": 12}
    assert set(FITTED_ON) <= set(grid("laptop"))
    assert not set(FITTED_ON) & set(FAMILIES)


RUNS = load_runs("narrow")
LARGER = load_runs("laptop")


def test_the_committed_constants_are_those_that_the_committed_runs_give():
    assert len(RUNS) == 66
    for times, constants in fitted(RUNS).items():
        shipped = FITTED[times]
        assert constants.coefficients == pytest.approx(shipped.coefficients, abs=2e-4)
        assert constants.spread == shipped.spread
        assert constants.width == pytest.approx(shipped.width, abs=2e-3)


def test_the_fit_is_a_weighted_line_of_fitted_runs_alone():
    """Against numpy's own least squares on all runs that may be fitted on, and unmoved by those that may not."""
    other = [
        replace(run, losses=tuple(0.0 for _ in run.losses)) if run.part != "fit" else run for run in RUNS
    ]
    assert fitted(other) == fitted(RUNS)
    chosen = [run for run in RUNS if run.part == "fit"]
    rows = [movements(run.signs, run.trained_loops, 4 * run.trained_loops) for run in chosen]
    weights = np.array([1 / (UNIT / 2 + max(abs(row["loss"]), row["moved"])) for row in rows])
    x = np.array([[row["loss"], row["moved"]] for row in rows])
    y = np.array([min(run.four_times, 10.0) for run in chosen])
    solved = np.linalg.solve((x.T * weights**2) @ x, (x.T * weights**2) @ y)
    assert list(fitted(RUNS)[4].coefficients.values()) == pytest.approx(list(solved), abs=2e-4)


def test_on_runs_it_never_saw_it_is_no_worse_in_words_and_nearer_in_numbers():
    tested = [run for run in RUNS if run.part != "fit"]
    plain = hurts_after([run for run in RUNS if run.part == "fit"])
    for predictor in (last_difference, plain):
        assert accuracy(tested, prognosis) >= accuracy(tested, predictor)
        assert off_by(tested, prognosis, 4) < off_by(tested, predictor, 4)


def test_on_a_study_that_nothing_was_fitted_on_it_is_better_in_both():
    assert len(LARGER) >= 74
    assert {run.part for run in LARGER} == {"test"}
    plain = hurts_after([run for run in RUNS if run.part == "fit"])
    for predictor in (last_difference, plain):
        assert accuracy(LARGER, prognosis) > accuracy(LARGER, predictor)
        assert off_by(LARGER, prognosis, 4) < off_by(LARGER, predictor, 4)
    assert held(LARGER, 4) >= 0.75


def test_it_holds_of_trained_depths_that_no_fitted_run_has():
    """K is 2 and 8 here, and was 4 in all that was fitted on."""
    trained = [run for run in load_runs("depths") if run.group in ("K 2", "K 8")]
    assert sorted({run.trained_loops for run in trained}) == [2, 8]
    assert len(trained) == 24
    assert accuracy(trained, prognosis) > accuracy(trained, last_difference)
    assert off_by(trained, prognosis, 4) < off_by(trained, last_difference, 4)
    assert held(trained, 4) >= 0.75


def test_it_holds_of_a_depth_before_the_trained_one_in_words():
    for runs in (RUNS, LARGER):
        asked = [asked_at(run, 2) for run in runs if len(run.signs) >= 4]
        assert {(run.trained_loops, len(run.signs), len(run.losses)) for run in asked} == {(2, 4, 8)}
        assert accuracy(asked, prognosis) > accuracy(asked, last_difference)


def test_the_plain_predictors_say_what_they_are_called():
    signs = tuple(
        LoopSigns(loop, 1.0 + 0.1 * (loop == 6), 1.0, 0.0, 0.1, 1.0, 0.01, 1.0) for loop in range(1, 7)
    )
    run = replace(RUNS[0], signs=signs)
    told = last_difference(run)
    assert (told.twice, told.four_times) == (pytest.approx(0.3), pytest.approx(1.1))
    assert told.fate == "breaks"
    flat = replace(run, losses=(1.0,) * 16)
    assert hurts_after([flat])(run).four_times == 0.0
    assert held([flat], 2) == held([flat], 4) == 0.0


def test_what_rests_is_what_its_page_says() -> None:
    """A matrix for the state, an input of its size, and no knowing how far it is: any two of the three do not."""
    runs: dict[str, list[Run]] = {}
    for run in load_runs("flops"):
        runs.setdefault(run.condition, []).append(run)
    assert sum(map(len, runs.values())) == 61
    for name in ("concat-gain-drawn", "concat-gain-start-random", "huginn-whole", "huginn-fixed-depth"):
        assert all(abs(run.four_times) < 0.01 for run in runs[name]), name
        assert all(run.rms[15] < 1 for run in runs[name])
    for name in ("concat", "concat-drawn", "concat-gain", "add-gain-drawn", "gain-drawn"):
        assert all(run.four_times > 0.09 for run in runs[name]), name
    for at_random, terminal in zip(runs["concat-gain-start-random"], runs["terminal"], strict=False):
        assert terminal.losses[3] - at_random.losses[3] == pytest.approx(0.585, abs=0.005)
    for gain, without in zip(runs["gain-drawn"], runs["drawn-terminal"], strict=False):
        assert without.losses[3] - gain.losses[3] == pytest.approx(0.45, abs=0.01)


def test_the_prognosis_of_runs_at_equal_flops_is_right_as_often_as_their_page_says() -> None:
    runs = load_runs("flops")
    assert round(accuracy(runs, prognosis) * len(runs)) == 57
    assert round(accuracy(runs, last_difference) * len(runs)) == 51
    assert held(runs, 4) == pytest.approx(0.84, abs=0.005)


def test_the_table_of_runs_at_equal_flops_pairs_seeds() -> None:
    runs = load_runs("flops")
    lines = {line.split("|")[1].strip(): line.split("|") for line in flops_table(runs).splitlines()[2:]}
    chosen = {run.seed: run for run in runs if run.condition == "growing"}
    blind = {run.seed: run for run in runs if run.condition == "blind"}
    apart = [chosen[seed].losses[3] - blind[seed].losses[3] for seed in range(3)]
    assert lines["growing"][6].strip().startswith(f"{statistics.mean(apart):+.3f} (")
    assert lines["blind"][6].strip() == ""
    assert lines["growing"][3].strip() == "600"
    assert "(" not in lines["concat"][5]  # two seeds have no interval
