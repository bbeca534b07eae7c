"""The whole audit: its record, its remedies and refusals, and that it leaves a model as it was."""

import json

import pytest
import torch

import loopscope
from loopscope.audit import audit_report
from loopscope.monitor import ScaleMonitor
from loopscope.objectives import ObjectiveConfig, build_objective
from loopscope.results import to_json
from tests.audit.fixtures import IDS, LABELS, LOOPS, audit, make


def test_the_report_is_a_record_that_json_can_hold() -> None:
    report = audit(make())
    data = json.loads(to_json(report))
    assert data["verdict"] == "blind"
    assert len(data["loops"]) == LOOPS
    assert len(data["expansion"]["rms"]) == 4 * LOOPS
    assert set(data["rescaled"]) == {"1", "2", "3"}


@pytest.mark.smoke
def test_an_audit_leaves_the_model_as_it_was() -> None:
    model = make(dropout=0.1).train()
    model.layers[0].eval()  # a frozen part stays in its mode
    before = {name: value.clone() for name, value in model.state_dict().items()}
    audit(model)
    assert model.training
    assert not model.layers[0].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_in_half_precision_is_audited_in_fp32() -> None:
    model = make().bfloat16()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = audit(model)
    assert report.notes == ("The model's weights are bfloat16; fp32 copies of them were audited.",)
    assert report.verdict == "blind"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert report.cross_entropy == audit(make().bfloat16().float()).cross_entropy
    assert audit(make()).notes == ()


def test_rescaling_a_blind_readout_leaves_its_own_exit_as_it_was() -> None:
    report = audit(make())
    for loop in range(1, LOOPS + 1):
        after = report.rescaled[str(loop)]
        assert after.rms[loop - 1] == pytest.approx(2 * report.expansion.rms[loop - 1], rel=1e-4)
        assert after.cross_entropy[:loop] == pytest.approx(report.cross_entropy[:loop], rel=1e-4)
        if loop < LOOPS:
            assert after.cross_entropy[loop] != report.cross_entropy[loop]


def test_remedies_are_measured() -> None:
    """What helps depends on the objective: a raw readout before the last loop is never read by a terminal loss."""
    dense = {remedy.change.split("(")[-1]: remedy for remedy in audit(make()).remedies}
    terminal = {
        remedy.change.split("(")[-1]: remedy for remedy in audit(make(), placement="terminal").remedies
    }
    assert dense["readout final-only)"].verdict == "visible"
    assert terminal["readout final-only)"].verdict == "blind"
    assert dense["readout raw)"].verdict == terminal["readout raw)"].verdict == "visible"
    assert dense["add a norm penalty of weight 0.01"].cost == 0
    assert dense["put an RMSNorm between loops"].verdict == "removed"
    raw = make(readout="raw")
    raw.load_state_dict({k: v for k, v in make().state_dict().items() if not k.startswith("reading")})
    assert dense["readout raw)"].cross_entropy == pytest.approx(sum(audit(raw).cross_entropy) / LOOPS)


def test_labels_that_are_the_inputs_are_noted() -> None:
    assert "every cross-entropy is of the token that was read" in loopscope.audit(make(), IDS, IDS).notes[0]
    some = IDS.clone()
    some[:, ::3] = -100  # labels that do not count say nothing: the rest repeat the input all the same
    assert "every cross-entropy is of the token that was read" in loopscope.audit(make(), IDS, some).notes[0]


def test_bad_input_is_refused() -> None:
    model = make()
    for labels, message in (
        (LABELS[:1], "one label per token"),
        (LABELS + 40, "this model has ids 0 to 39"),
        (torch.full_like(LABELS, -100), "no token to measure"),
    ):
        with pytest.raises(ValueError, match=message):
            loopscope.audit(model, IDS, labels)
    with pytest.raises(ValueError, match="12 learned positions"):
        loopscope.audit(model, IDS.view(1, 24), LABELS.view(1, 24))
    with pytest.raises(ValueError, match=r"loopscope.adapt\(model\)"):
        loopscope.audit(torch.nn.Linear(2, 2), IDS, LABELS)
    with pytest.raises(ValueError, match="objective is 3; pass an Objective"):
        loopscope.audit(model, IDS, LABELS, 3)
    with pytest.raises(ValueError, match="input_ids is a list; give a tensor"):
        loopscope.audit(model, IDS.tolist(), LABELS)
    with pytest.raises(ValueError, match="dtype torch.float32"):
        loopscope.audit(model, IDS, LABELS.float())
    with torch.no_grad():
        model.layers[1].attention.out.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not all finite: layers.1.attention.out.weight has"):
        loopscope.audit(model, IDS, LABELS)


def test_an_objective_may_be_its_word() -> None:
    model = make()
    for word, config in (
        ("terminal", ObjectiveConfig(placement="terminal")),
        ("dense+norm_penalty=0.01", ObjectiveConfig(norm_penalty={"weight": 0.01})),  # type: ignore[arg-type]
    ):
        by_word = loopscope.audit(model, IDS, LABELS, objective=word)
        assert by_word.objective == build_objective(config).name
        for given in (config, build_objective(config)):
            again = loopscope.audit(model, IDS, LABELS, objective=given)
            assert (again.verdict, again.loops) == (by_word.verdict, by_word.loops)
    for word, message in (
        ("dens", "objective 'dens' .*did you mean dense"),
        ("dense+penalty", "'penalty' is not a penalty; write norm_penalty=WEIGHT"),
    ):
        with pytest.raises(ValueError, match=message):
            loopscope.audit(model, IDS, LABELS, word)
    assert ScaleMonitor(model, "terminal").objective.name == "terminal"


def test_a_loss_of_exactly_0_is_an_outcome_of_its_own_and_no_blindness() -> None:
    """A raw readout shows the scale; a model that is certain to the last bit has no gradient to show that with."""
    model = make(readout={"kind": "raw"})
    assert audit(model, placement="terminal").verdict == "visible"
    with torch.no_grad():
        model.token_embedding.weight.mul_(100)
        *_, last = loopscope.unroll(model, IDS)
        certain = last.logits().argmax(dim=-1)
    with pytest.raises(ValueError, match="cross-entropy is exactly 0 at loop 3, all that the loss reads"):
        loopscope.audit(model, IDS, certain, build_objective(ObjectiveConfig(placement="terminal")))


def test_several_objectives_share_what_does_not_depend_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model, words = make(), ["terminal", "dense", "terminal+norm_penalty=0.1"]
    alone = [loopscope.audit(model, IDS, LABELS, word) for word in words]
    counted: list[int] = []
    own = audit_report.measure_dynamics
    monkeypatch.setattr(audit_report, "measure_dynamics", lambda *given: counted.append(1) or own(*given))
    assert loopscope.audit.audit_each(model, IDS, LABELS, words) == alone
    assert len(counted) == 1
