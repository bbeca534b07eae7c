"""Schedules of objectives: their form, the steps that each phase gets, and what does not fit."""

from typing import Any

import pytest

from loopscope.config.recipes import recipe
from loopscope.objectives import Dense, ObjectiveConfig, build_objective
from loopscope.objectives.phase import objective_name, phases_over
from loopscope.results import RunPhase

DENSE_THEN_TERMINAL = [{"until": 0.9, "placement": "dense"}, {"placement": "terminal"}]


def config_of(*phases: dict[str, Any], **beside: Any) -> ObjectiveConfig:
    return ObjectiveConfig.model_validate({"schedule": list(phases), **beside})


def test_phases_get_their_share_of_the_steps() -> None:
    config = config_of(*DENSE_THEN_TERMINAL)
    assert phases_over(config, 1000) == (RunPhase(1, 1, 900, "dense"), RunPhase(2, 901, 1000, "terminal"))
    by_step = config_of({"until_step": 7}, {"until_step": 9, "placement": "terminal"}, {"norm_penalty": 0.1})
    assert [(p.first, p.last) for p in phases_over(by_step, 20)] == [(1, 7), (8, 9), (10, 20)]
    assert objective_name(by_step) == "dense, then terminal, then dense + norm_penalty"
    for share in range(1, 100):  # never off by one, whatever 0.29 · 100 is in binary
        thirds = config_of({"until": share / 100}, {})
        assert phases_over(thirds, 100)[0].last == share
    assert phases_over(ObjectiveConfig(), 5) == (RunPhase(1, 1, 5, "dense"),)


def test_a_config_ends_with_its_last_phase_and_survives_the_way_to_yaml() -> None:
    config = config_of({"until": 0.5, "loop_weights": [1, 2]}, {"placement": "terminal", "norm_penalty": 0.1})
    assert (config.placement, config.norm_penalty.weight, config.loop_weights) == ("terminal", 0.1, None)
    assert build_objective(config).name == "terminal + norm_penalty"
    first = build_objective(config.phases[0]).placement
    assert isinstance(first, Dense)
    assert first.weights == (1.0, 2.0)
    written = config.model_dump(mode="json")
    assert written.keys() == {"schedule"}
    assert ObjectiveConfig.model_validate(written) == config
    assert "schedule" not in ObjectiveConfig().model_dump()


OTHERS = {"until": 0.5}


@pytest.mark.parametrize(
    ("schedule", "beside", "message"),
    [
        ([], {}, "schedule is empty; give its phases"),
        ("dense", {}, "'dense' is no list; give the phases in order"),
        (
            [{"until": 0.9}, {"until": 0.5}, {}],
            {},
            "schedule.1.until is 0.5, and the phase before ends at 0.9",
        ),
        ([{"until": 1.5}, {}], {}, "schedule.0.until is 1.5; it is a share of the run's steps, above 0"),
        ([{"until": 0}, {}], {}, "schedule.0.until is 0; it is a share"),
        ([{"until": 900}, {}], {}, r"\(until_step takes a step\)"),
        ([{"until": 1}, {}], {}, "until is 1, the end of the run, and phase 2 follows"),
        ([OTHERS, {"until": 0.8}], {}, "schedule.1.until is 0.8, and no phase follows"),
        ([{}, {}], {}, "schedule.0 has no end, and phase 2 follows"),
        ([OTHERS, {"until_step": 9}, {}], {}, "give all of them in one of the two"),
        ([{"until_step": 0}, {}], {}, "until_step is 0; it is the number of a step"),
        ([{"until_step": 900}, {}], {}, r"leaves no step for phase 2 \(dense\) in a run of 100 steps"),
        ([{"until": 0.001}, {}], {}, r"leaves no step for phase 1 \(dense\) in a run of 100 steps"),
        ([OTHERS, {}], {"placement": "dense"}, "placement beside schedule: every phase has terms of its own"),
        ([OTHERS, {}], {"norm_penalty": 0.1}, "norm_penalty beside schedule"),
        ([OTHERS, {"placement": "gate-improvement"}], {}, "is a run of its own, which starts from a trained"),
        (
            [OTHERS, {"placement": "densee"}],
            {},
            "schedule.1: unknown placement 'densee'; did you mean dense?",
        ),
        (
            [OTHERS, {"placment": "dense"}],
            {},
            "unknown key objective.schedule.1.placment; did you mean placement",
        ),
        ([OTHERS, {"schedule": [{}]}], {}, "schedule.1.schedule"),
        (
            [OTHERS, {"placement": "exit-weighted"}],
            {},
            r"schedule.1.placement 'exit-weighted' needs a learned",
        ),
        ([OTHERS, {"loop_weights": [1, 1]}], {}, "schedule.1.loop_weights has 2 numbers for 4 loops"),
    ],
)
def test_what_does_not_fit_is_told(schedule: Any, beside: dict[str, Any], message: str) -> None:
    objective = {"schedule": schedule, **beside}
    over = {"model": {"readout": "raw"}, "objective": objective, "training": {"steps": 100}}
    with pytest.raises(ValueError, match=message):
        recipe("laptop", "mine", over)


def test_ends_in_steps_need_to_know_the_steps_and_a_condition_by_name_keeps_its_word() -> None:
    by_step = {"schedule": [{"until_step": 9}, {}]}
    over = {"model": {"readout": "raw"}, "objective": by_step, "training": {"epochs": 1, "steps": None}}
    with pytest.raises(ValueError, match="training.epochs leaves open how many there are"):
        recipe("laptop", "mine", over)
    with pytest.raises(
        ValueError, match="has one objective for the whole run, and objective.schedule others"
    ):
        recipe("laptop", "dense/rmsnorm", {"objective": {"schedule": DENSE_THEN_TERMINAL}})
