"""Settings without effect on a run are said, and those with effect are not."""

import warnings

import pytest

from loopscope.config.run_config import parse_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"exit_gate": True}}, "never trains the gate"),
        ({"model": {"loops": 1, "carry": "rmsnorm"}}, "no effect with 1 loop"),
        ({"data": {"tokenizer": "bytes"}}, "256 would do"),
        ({"training": {"depth": {"backprop": 4}}}, "backprop 4 has no effect"),
        ({"objective": {"shortcut": {"weight": 1}}, "model": {"loops": 1}}, "there is no shorter way"),
        ({"objective": {"shortcut": {"loss_weight": 0.3}}}, "shortcut.loss_weight has no effect while"),
        ({"objective": {"jacobian": {"iterations": 3}}}, "jacobian.iterations has no effect while"),
        ({"objective": {"scale_anchor": {"target": 2}}}, "scale_anchor.target has no effect while"),
        ({"training": {"final_learning_rate": 0.5}}, "no effect with schedule 'constant'"),
        ({"model": {"feed_forward": 2, "block": {"width": 256}}}, "feed_forward 2 has no effect"),
        ({"training": {"steps": 10, "depth": {"curriculum": 11}}}, "longer than the run of 10 steps"),
        (
            {"objective": {"placement": "gate-improvement"}, "model": {"exit_gate": True}},
            "name a trained one in training.weights",
        ),
        ({"training": {"depth": {"backprop": 2}}}, "placement 'dense' on earlier loops train only readout"),
        (
            {
                "objective": {"placement": "terminal", "norm_penalty": 0.1, "shortcut": {"weight": 0.1}},
                "training": {"depth": {"backprop": 2}},
            },
            "terms of norm_penalty, shortcut on earlier loops",
        ),
    ],
)
def test_settings_without_effect_warn(values: dict[str, object], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        parse_config(values, "here")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"objective": {"placement": "terminal"}, "training": {"depth": {"backprop": 2}}},
        {
            "objective": {"placement": "terminal"},
            "model": {"prelude": 1, "injection": "add"},
            "training": {"depth": {"backprop": 2}},
        },
        {"objective": {"scale_anchor": {"weight": 0.1, "target": 2}}},
        {"training": {"schedule": "cosine", "final_learning_rate": 0.5}},
        {"model": {"block": {"width": 256}}},
        {"training": {"steps": 10, "depth": {"curriculum": 10}}},
    ],
)
def test_settings_with_effect_do_not_warn(values: dict[str, object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse_config(values, "here")
