"""How two builds' audits are compared: which figures differ, by how much, and which verdicts."""

import torch

from benchmarks.audit_against import added, differences, figures, ratio, said_of
from benchmarks.audit_process import LoopedLlama

REPORT = {
    "verdict": "blind",
    "loops": [{"loop": 1, "status": "blind", "carry": 0.9}],
    "remedies": [{"change": "add a penalty", "verdict": "visible", "cost": 0.0}],
    "converged": True,
}


def test_figures_are_every_number_by_its_path() -> None:
    assert dict(figures(REPORT)) == {"/loops/0/loop": 1.0, "/loops/0/carry": 0.9, "/remedies/0/cost": 0.0}


def test_figures_that_differ_are_counted_by_key() -> None:
    other = {**REPORT, "loops": [{"loop": 1, "status": "blind", "carry": 0.9 * (1 + 3e-4)}]}
    assert differences(REPORT, other) == {"loops": [2, 1, 0.0003], "remedies": [1, 0, 0.0]}
    almost = {**REPORT, "loops": [{"loop": 1, "status": "blind", "carry": 0.9 * (1 + 5e-6)}]}
    assert differences(REPORT, almost)["loops"][:2] == [2, 0]


def test_figures_that_are_rounding_in_both_do_not_differ() -> None:
    one, other = ({"readout": [{"absolute": value}]} for value in (3e-8, 5e-8))
    assert differences(one, other) == {"readout": [1, 0, 0.0]}


def test_verdicts_are_the_model_s_its_loops_and_its_remedies() -> None:
    assert said_of(REPORT) == ["blind", ["blind"], [("add a penalty", "visible")]]
    changed = {**REPORT, "remedies": [{"change": "add a penalty", "verdict": "blind", "cost": 0.0}]}
    assert said_of(changed) != said_of(REPORT)


def test_ratios_are_medians_of_pairs() -> None:
    assert ratio({"one": [1.0, 9.0, 2.0], "other": [2.0, 1.0, 5.0]}, "one", "other") == 0.5
    assert added({"peak": 30, "before": 10}) == 20


def test_the_looped_llama_is_its_stack_as_often_as_it_says() -> None:
    torch.manual_seed(0)
    module = LoopedLlama(loops=2, layers=1, dim=16, heads=2, vocabulary=24)
    ids = torch.arange(6)[None]
    hidden = module.embed_tokens(ids)
    places = module.rotary(hidden, torch.arange(6)[None])
    for _ in range(2):
        hidden = module.layers[0](hidden, position_embeddings=places)
    torch.testing.assert_close(module(ids), module.norm(hidden) @ module.embed_tokens.weight.T)
