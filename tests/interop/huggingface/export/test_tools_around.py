"""Exported models under PEFT, accelerate's device maps and torchao: shared layers called K times, a tied head."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Trainer

import loopscope
from loopscope.audit import judge
from loopscope.interop.huggingface.export.exported_model import LoopscopeForCausalLM, as_exported
from loopscope.monitor import ScaleMonitor, ScaleMonitorCallback
from loopscope.recurrence import unroll
from loopscope.training import TrainerLoss
from tests.model.fixtures import IDS, live_model
from tests.training.fixtures import trainer_arguments

DEPTHS = (1, 3, 6)


def made() -> LoopscopeForCausalLM:
    return as_exported(live_model("prelude and coda", dropout=0.0))


@torch.no_grad()
def logits(model: Any) -> list[Tensor]:
    # A tuple: accelerate makes outputs anew from a dict, which the checks of types under pytest do not take.
    return [model(IDS, num_loops=loops, return_dict=False)[0] for loops in DEPTHS]


@torch.no_grad()
def by_the_waist(model: Any) -> list[Tensor]:
    looped = loopscope.adapt(model)
    return [[*unroll(looped, IDS, loops)][-1].logits() for loops in DEPTHS]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    made().save_pretrained(folder)
    return folder


def with_lora(targets: str | list[str] = "all-linear") -> Any:
    peft = pytest.importorskip("peft", reason="extra `hf`")
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM")
    return peft.get_peft_model(made(), config)


def test_lora_on_shared_layers_is_trained_audited_merged_and_read_back(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="extra `hf`")
    model = with_lora()
    before = logits(model.eval())
    items = [{"input_ids": row, "labels": row} for row in IDS.repeat(8, 1)]
    arguments = trainer_arguments(tmp_path / "trainer", 4, per_device_train_batch_size=8)
    loss = TrainerLoss(model, "dense")
    trainer = Trainer(model=model, args=arguments, train_dataset=items, compute_loss_func=loss)
    monitor = ScaleMonitor(loopscope.adapt(model), "dense", every=1, budget=None)
    trainer.add_callback(ScaleMonitorCallback(trainer, monitor))
    trainer.train()
    assert len({check.rms for check in monitor.history}) == 4  # what the adapter does to the scale is seen
    trained = logits(model.eval())
    assert all((one - other).abs().max() > 1e-3 for one, other in zip(before, trained, strict=True))
    added = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    assert len(added) == 25  # 5 matrices in each layer of prelude, core and coda
    assert all(weight.abs().max() > 0 for weight in added)
    for one, other in zip(by_the_waist(model), trained, strict=True):
        assert torch.equal(one, other)
    judged = judge(loopscope.adapt(model), IDS[:, :-1], IDS[:, 1:], "dense")

    model.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(made(), tmp_path / "adapter").eval()
    for one, other in zip(logits(again), trained, strict=True):
        assert torch.equal(one, other)
    merged = again.merge_and_unload()
    for one, other in zip(logits(merged), trained, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    plain = judge(loopscope.adapt(merged), IDS[:, :-1], IDS[:, 1:], "dense")
    assert judged.verdict == plain.verdict
    for one, other in zip(judged.loops, plain.loops, strict=True):
        assert (one.carry, one.exposure) == pytest.approx((other.carry, other.exposure), rel=1e-2)
    merged.save_pretrained(tmp_path / "merged")
    with torch.no_grad():
        read = [*unroll(loopscope.load(tmp_path / "merged"), IDS, DEPTHS[-1])][-1].logits()
    torch.testing.assert_close(read, trained[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["unembedding", "token_embedding"])
def test_an_adapter_on_a_tied_head_is_refused_before_training(name: str) -> None:
    model = with_lora([name])
    with pytest.raises(ValueError, match=f"PEFT has put an adapter into {name}.*merging would"):
        TrainerLoss(model)
    for one, other in zip(by_the_waist(model.eval()), logits(model), strict=True):
        assert torch.equal(one, other)


PARTS = ("token_embedding", "position_embedding", "prelude", "layers", "coda", "reading", "unembedding")


@pytest.mark.parametrize("on_disk", [(), ("layers",), PARTS], ids=["none", "layers", "all"])
def test_every_device_map_has_the_same_logits(export: Path, tmp_path: Path, on_disk: tuple[str, ...]) -> None:
    """Shared layers on the disk are read in every loop, and a head there is the embedding still."""
    pytest.importorskip("accelerate", reason="extra `device-map`")
    parts: Any = {f"model.{part}": "disk" if part in on_disk else "cpu" for part in PARTS}
    placed = AutoModelForCausalLM.from_pretrained(
        export, device_map=parts if on_disk else "auto", offload_folder=tmp_path
    )
    assert any(parameter.is_meta for parameter in placed.parameters()) is bool(on_disk)
    plain = made()
    for one, other in zip(logits(placed), logits(plain), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(by_the_waist(placed), logits(plain), strict=True):
        assert torch.equal(one, other)


def apart(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and "unembedding" not in name


@pytest.mark.parametrize("tied", [True, False])
def test_int8_weights_by_torchao(tied: bool) -> None:
    """Its quantize_ takes the head from its embedding without a word; we say so."""
    quantization = pytest.importorskip("torchao.quantization", reason="extra `int8`")
    model = made()
    how = {"filter_fn": apart} if tied else {}
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig(), **how)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is tied
    if tied:
        own = by_the_waist(model)
    else:
        with pytest.warns(UserWarning, match="ties its head to its embedding, and they are two matrices"):
            own = by_the_waist(model)
    for loops, exact, rounded, ours in zip(DEPTHS, logits(made()), logits(model), own, strict=True):
        assert torch.equal(rounded, ours)
        error = (rounded - exact).norm() / exact.norm()
        assert 0.005 < error < 0.06, (loops, error)
