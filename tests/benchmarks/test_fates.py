"""The study behind the prognosis of depth: its grid is whole, and what is tested is not what was fitted."""

from collections import Counter

from benchmarks.fates_grid import FITTED, SIZE, grid, part, rounds, settings, variants
from loopscope.config import FAMILIES
from loopscope.jobs.study_cells import plan

PLANNED = [
    config
    for seed, names in rounds()
    for config in plan(SIZE, names, [seed], settings(), variants(), here=False)
]


def test_every_run_of_the_grid_has_a_valid_config_of_the_same_depth_and_tokens():
    assert len(PLANNED) == sum(entry.seeds for entry in grid().values()) == 66
    assert {config.model.loops for config in PLANNED} == {4}
    assert len({config.data for config in PLANNED}) == 1
    runs = {(config.condition, config.training.seed): config for config in PLANNED}
    assert len(runs) == len(PLANNED)
    assert runs["penalty-1e-4", 0].objective.norm_penalty.weight == 1e-4
    assert runs["decay", 2].model.carry == ("decay",)
    assert [phase.placement for phase in runs["dense-then-terminal", 1].objective.phases] == [
        *("dense", "terminal")
    ]


def test_drawn_depths_cost_what_the_fixed_one_does():
    depths = {config.condition: config.training.depth for config in PLANNED}
    assert depths["sampled-dense"].average(4) == depths["sampled-terminal"].average(4) == 4
    curriculum = depths["curriculum"]
    assert (curriculum.fewest(4) + curriculum.most(4)) / 2 == 4
    assert curriculum.curriculum == settings()["training"]["steps"]


def test_what_is_tested_was_not_fitted():
    parts = Counter(part(config.condition, config.training.seed) for config in PLANNED)
    assert parts == {"fit": 30, "unseen seed": 9, "unseen condition": 15, "unseen family": 12}
    assert set(FITTED) <= set(grid())
    assert not set(FITTED) & set(FAMILIES)
