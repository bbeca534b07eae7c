"""Several processes train as one: losses, terms, gradients, evaluations and weights, by DDP and by FSDP2."""

from typing import Any

import pytest

from tests.training.distributed.fixtures import trained_by
from tests.training.distributed.training_ranks import alone

GATED = {"exit_gate": True}
CASES: dict[str, dict[str, Any]] = {
    "dense rmsnorm": {},
    "raw": {"model": {"readout": {"kind": "raw"}}},
    "exit-weighted": {"model": GATED, "objective": {"placement": "exit-weighted"}},
    "gate that no loss reads": {"model": GATED},
    "gate alone": {"model": GATED, "objective": {"placement": "gate-improvement"}},
    "penalty": {"objective": {"norm_penalty": {"weight": 0.1}}},
    "anchor": {"objective": {"scale_anchor": {"weight": 0.5, "target": 2.0, "over": "each"}}},
    "anchor in parts": {
        "objective": {"scale_anchor": {"weight": 0.5, "target": 2.0}},
        "training": {"accumulation": 2},
    },
    "uneven labels": {"uneven": True},
    "uneven labels in parts": {
        "uneven": True,
        "training": {"accumulation": 2},
        "objective": {"norm_penalty": {"weight": 0.1}},
    },
    "uneven exit-weighted": {"uneven": True, "model": GATED, "objective": {"placement": "exit-weighted"}},
    "sampled depth": {"training": {"depth": {"distribution": "uniform", "low": 1, "high": 4}}},
    "depth by sequence, cut": {
        "training": {
            "depth": {"distribution": "uniform", "low": 1, "high": 5, "per_sequence": True, "backprop": 2}
        }
    },
    "cut": {"training": {"depth": {"backprop": 1}}},
    "prelude, coda, untied": {"model": {"prelude": 1, "coda": 1, "tied": False}},
    "checkpointed layers": {"training": {"gradient_checkpointing": "layer"}},
    "checkpointed loops": {"training": {"gradient_checkpointing": "loop"}},
    "norm between loops": {"model": {"carry": ["rmsnorm"]}},
    "muon": {"training": {"optimizer": "muon"}},
    "shorter way": {"objective": {"shortcut": {"weight": 0.1, "loss_weight": 0.5}}},
    "clipped": {"training": {"clip": 0.01}},
    "bf16": {"training": {"precision": "bf16"}},
    "plain operations": {"training": {"cpu_ops": "off"}},
    "watched": {"training": {"monitor_every": 2}},
}
WAYS = {"ddp": {"parallel": "ddp"}, "fsdp": {"parallel": "fsdp"}}
IN_EVERY_LOOP = {"fsdp loop": {"parallel": "fsdp", "fsdp_reshard": "loop"}}
FEW = (
    *("dense rmsnorm", "exit-weighted", "anchor in parts", "uneven labels", "depth by sequence, cut"),
    *("prelude, coda, untied", "checkpointed loops"),
)


def plan(cases: dict[str, dict[str, Any]], ways: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**case, "name": f"{name}, {way}", "training": {**case.get("training", {}), **settings}}
        for name, case in cases.items()
        for way, settings in ways.items()
    ]


@pytest.fixture(scope="module")
def of_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return alone(tmp_path_factory.mktemp("one"), plan(CASES, {"one": {}}))


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    few = {name: CASES[name] for name in FEW}
    return trained_by(2, tmp_path_factory.mktemp("two"), plan(CASES, WAYS) + plan(few, IN_EVERY_LOOP))


@pytest.fixture(scope="module")
def of_four(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    few = {name: CASES[name] for name in FEW}
    return trained_by(4, tmp_path_factory.mktemp("four"), plan(few, WAYS))


def compare(found: dict[str, Any], one: dict[str, Any], rough: float) -> None:
    assert found["tokens"] == one["tokens"]
    assert found["losses"] == pytest.approx(one["losses"], rel=rough)
    # Of a gate alone it is small beside what it is the difference of.
    assert found["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=10 * rough)
    for mine, other in zip(found["terms"], one["terms"], strict=True):
        assert mine == pytest.approx(other, rel=rough, abs=1e-6)
    for name in ("cross_entropy", "l2_norm"):
        for mine, other in zip(found[name], one[name], strict=True):
            assert [e is None for e in mine] == [e is None for e in other]
            assert [e or 0 for e in mine] == pytest.approx([e or 0 for e in other], rel=rough), name
    for mine, other in zip(found["evaluation"], one["evaluation"], strict=True):
        assert mine == pytest.approx(other, rel=rough, abs=1e-6)  # the small one is a difference of losses
    assert found["weights"].keys() == one["weights"].keys()
    for key, weight in one["weights"].items():
        assert found["weights"][key] == pytest.approx(weight, abs=100 * rough), key


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(
    of_one: dict[str, Any], of_two: dict[str, Any], name: str, way: str
) -> None:
    found, one = of_two[f"{name}, {way}"], of_one[f"{name}, one"]
    rough = 2e-2 if name == "bf16" else 1e-5
    compare(found, one, rough)
    assert found["evaluation"]
    assert found["monitor"] == [] or name == "watched"
    assert [verdict for _, verdict in found["monitor"]][:1] == [verdict for _, verdict in one["monitor"]][:1]


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_weights_that_are_gathered_in_every_loop_train_as_one(
    of_one: dict[str, Any], of_two: dict[str, Any], name: str
) -> None:
    compare(of_two[f"{name}, fsdp loop"], of_one[f"{name}, one"], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FEW)
def test_four_processes_train_as_one(
    of_one: dict[str, Any], of_four: dict[str, Any], name: str, way: str
) -> None:
    compare(of_four[f"{name}, {way}"], of_one[f"{name}, one"], 1e-5)


@pytest.mark.slow
def test_the_comparison_can_fail(of_one: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        compare(of_one["anchor, one"], of_one["penalty, one"], 1e-5)
