"""The study of the paper's claim: what it trains is valid and of equal cost, and its tables say what rows say."""

from dataclasses import replace

import pytest

from benchmarks import claim_rows
from benchmarks.claim import SHAPES, STARTS, equal_steps, settings
from benchmarks.claim_rows import Row, add_row, load_rows
from benchmarks.claim_tables import EQUAL, at_trained, differences, grouped, spread_of, tables
from loopscope.jobs.study_cells import plan
from loopscope.plan.parameters import count_parameters
from loopscope.plan.training_flops import training_cost

ROW = Row(
    size="1m",
    start="published",
    condition="dense/rmsnorm",
    seed=0,
    tokens=3_000_320,
    precision="fp32",
    parameters=1_000_000,
    training_flops=2e13,
    trained_loops=2,
    losses=(3.2, 3.0, 3.1, 3.3),
    as_trained=None,
    bits_per_byte=(1.3, 1.2, 1.25, 1.4),
    l2_norm=(10.0, 20.0, 30.0, 40.0),
    date="2026-11-30",
)


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("start", STARTS)
def test_every_cell_is_a_valid_run_of_about_its_size(size: str, start: str) -> None:
    shape = SHAPES[size]
    steps = round(shape.tokens / shape.step_tokens)
    configs = plan(shape.recipe, shape.conditions, [0], settings(shape, start, steps, "fp32"), None, False)
    assert {config.model.initialisation for config in configs} == {start}
    tokens = {config.training.steps * config.training.batch * config.model.sequence for config in configs}
    assert tokens == {steps * shape.step_tokens}
    assert tokens.pop() == pytest.approx(shape.tokens, rel=1e-3)
    looped = [config for config in configs if config.model.loops > 1]
    (unlooped,) = [config for config in configs if config.model.loops == 1]
    millions = {"0.7m": (0.6, 0.8), "1m": (1.0, 1.2), "8m": (6.5, 9.0)}[size]
    assert all(
        millions[0] < sum(count_parameters(config.model).values()) / 1e6 < millions[1] for config in looped
    )
    assert unlooped.model.layers == looped[0].model.layers * looped[0].model.loops
    terminal = [config for config in looped if config.condition == "terminal/rmsnorm"]
    for config in terminal:  # one loss, as without loops
        assert training_cost(unlooped) == pytest.approx(training_cost(config), rel=0.01)


@pytest.mark.parametrize("size", SHAPES)
def test_equal_flops_are_those_of_the_blind_looped_model(size: str) -> None:
    shape = SHAPES[size]
    steps = 1_000
    configs = plan(
        shape.recipe,
        ["dense/rmsnorm", "unlooped-deep"],
        [0],
        settings(shape, "scaled", steps, "fp32"),
        None,
        False,
    )
    looped, unlooped = map(training_cost, configs)
    assert equal_steps(shape, steps) * unlooped == pytest.approx(steps * looped, rel=1e-3)


def _rows(condition: str, losses: tuple[float, ...]) -> dict[int, Row]:
    return {
        seed: replace(ROW, condition=condition, seed=seed, losses=(9.0, loss, 9.0, 9.0))
        for seed, loss in enumerate(losses)
    }


def test_differences_are_paired_by_seed_and_corrected_together() -> None:
    blind = _rows("dense/rmsnorm", (3.0, 3.5, 4.0))
    raw = _rows("dense/raw", (2.9, 3.4, 3.9001))
    noisy = _rows("dense/final-only", (3.0, 3.7, 3.7))
    text = differences({"dense/rmsnorm": blind, "dense/raw": raw, "dense/final-only": noisy})
    lines = {line.split("|")[1].strip(): line for line in text.splitlines()[2:]}
    assert "-0.100 (-0.100 to -0.100)" in lines["dense/raw - dense/rmsnorm"]
    p = {name: float(line.split("|")[-2]) for name, line in lines.items()}
    apart = spread_of([at_trained(raw[seed]) - at_trained(blind[seed]) for seed in range(3)])
    assert apart is not None
    assert p["dense/raw - dense/rmsnorm"] == pytest.approx(2 * apart.p(), rel=0.01)
    assert p["dense/final-only - dense/rmsnorm"] > 0.5


def test_a_table_has_every_condition_and_no_interval_from_two_seeds() -> None:
    rows = [*_rows("dense/rmsnorm", (3.0, 3.5)).values(), *_rows("unlooped-deep", (2.5, 2.6)).values()]
    said = tables(rows)
    assert "1m, published start, 3.00M tokens a run, learning rate 0.001" in said
    assert "| dense/rmsnorm | 2 | 1 / 2 / 4 | 9.000 / 3.250 / 9.000 | 1.200 |" in said
    assert "| dense/rmsnorm - unlooped-deep | 2 | 1.00 | +0.700 |  |" in said


def test_runs_of_another_learning_rate_are_not_mixed_in() -> None:
    slower = [replace(row, learning_rate=3e-4) for row in _rows("dense/rmsnorm", (2.0, 2.5)).values()]
    said = tables([*_rows("dense/rmsnorm", (3.0, 3.5)).values(), *slower])
    assert "learning rate 0.0003" in said
    assert " / 3.250 / " in said
    assert " / 2.250 / " in said
    assert slower[0].run != ROW.run


def test_no_loops_at_equal_flops_stand_beside_the_looped_ones() -> None:
    """Found by its FLOPs, since its tokens are others; of another rate or start it stays by itself."""
    blind, raw = _rows("dense/rmsnorm", (3.0, 3.5)), _rows("dense/raw", (2.0, 2.5))
    deep = {
        seed: replace(row, tokens=4_000_000, training_flops=1.005 * ROW.training_flops)
        for seed, row in _rows("unlooped-deep", (2.5, 2.6)).items()
    }
    rows = [*deep.values(), *blind.values(), *raw.values()]
    (found,) = grouped(rows).values()
    assert found[EQUAL] == deep
    said = tables(rows)
    assert "| dense/rmsnorm - unlooped-deep, equal FLOPs | 2 | 1.00 | +0.700 |  |" in said
    assert "| dense/raw - unlooped-deep, equal FLOPs | 2 | 1.00 | -0.300 |  |" in said
    assert said.count("unlooped-deep, equal FLOPs - ") == 0
    for other in ({"learning_rate": 3e-4}, {"start": "scaled"}, {"training_flops": 1.5e13}):
        apart = [replace(row, **other) for row in deep.values()]
        assert len(grouped([*apart, *blind.values()])) == 2


def test_rows_are_added_one_by_one(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(claim_rows, "ROWS", tmp_path / "claim.json")
    assert load_rows() == []
    add_row(ROW)
    add_row(replace(ROW, seed=1))
    add_row(replace(ROW, date="later"))  # the same run, by another call
    assert load_rows() == [ROW, replace(ROW, seed=1)]


def test_the_committed_rows_at_8m_say_what_their_page_says() -> None:
    """Half a nat for both controls, in both seeds, and all ahead of no loops."""
    found = {
        (row.condition, row.seed): at_trained(row)
        for row in load_rows()
        if row.size == "8m" and row.start == "scaled" and row.learning_rate == 1e-3
    }
    assert len(found) == 8
    for seed in (0, 1):
        blind = found["dense/rmsnorm", seed]
        for control in ("dense/raw", "dense/rmsnorm+penalty"):
            assert -0.62 < found[control, seed] - blind < -0.45
        assert blind < found["unlooped-deep", seed]


def test_the_committed_rows_say_what_a_smaller_rate_and_the_published_start_do() -> None:
    """At 3e-4 a tenth of a nat, and no model is better than at 1e-3; from the published start no control is better."""
    found = {
        (row.condition, row.seed, row.learning_rate): at_trained(row)
        for row in load_rows()
        if (row.size, row.start) == ("8m", "scaled")
    }
    for seed in (0, 1):
        blind, held = (found[name, seed, 3e-4] for name in ("dense/rmsnorm", "dense/rmsnorm+penalty"))
        assert -0.11 < held - blind < -0.09
        assert blind > found["dense/rmsnorm", seed, 1e-3]
        assert held > found["dense/rmsnorm+penalty", seed, 1e-3] + 0.5
    published = [row for row in load_rows() if (row.size, row.start) == ("1m", "published")]
    lines = {
        line.split("|")[1].strip(): line.split("|")
        for line in tables(published).splitlines()
        if " - " in line
    }
    for control in ("dense/raw", "dense/rmsnorm+penalty"):
        mean, low = (
            lines[f"{control} - dense/rmsnorm"][-3].split("(")[0],
            lines[f"{control} - dense/rmsnorm"][-3],
        )
        assert 0.015 < float(mean) < 0.04
        assert "(+0.0" in low  # the interval's lower end
    assert float(lines["dense/rmsnorm - unlooped-deep"][-2]) < 0.02


def test_the_committed_rows_at_8m_from_the_published_start_say_what_their_page_says() -> None:
    """The blind norm runs into the thousands; raw gains a sixth of a nat, a penalty nothing, and no loops are ahead."""
    rows = {
        (row.condition, row.seed): row for row in load_rows() if (row.size, row.start) == ("8m", "published")
    }
    assert len(rows) == 8
    for seed in (0, 1):
        blind, raw = rows["dense/rmsnorm", seed], rows["dense/raw", seed]
        assert blind.l2_norm[3] > 3_000
        assert blind.l2_norm[7] > 6_000
        assert raw.l2_norm[7] < 3
        assert -0.17 < at_trained(raw) - at_trained(blind) < -0.15
        assert at_trained(rows["unlooped-deep", seed]) < at_trained(raw) - 0.15
        for name in ("dense/rmsnorm", "dense/raw", "dense/rmsnorm+penalty"):
            losses = rows[name, seed].losses
            assert losses.index(min(losses)) == 1
    worth = [
        at_trained(rows["dense/rmsnorm+penalty", seed]) - at_trained(rows["dense/rmsnorm", seed])
        for seed in (0, 1)
    ]
    assert worth[0] < 0 < worth[1]
