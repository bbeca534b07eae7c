"""An export is a folder that transformers loads, and that Loopscope reads back exactly."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import loopscope
from loopscope.interop.huggingface.export.exported_folder import write_export
from loopscope.model.looped import LoopedTransformer
from tests.interop.huggingface.export.fixtures import standalone
from tests.model.fixtures import IDS, live_model


def alike(one: LoopedTransformer, other: LoopedTransformer) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return one.config == other.config and a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", ["plain", "ouro", "parcae", "sinusoidal loops", "loopformer"])
def test_an_export_is_read_back_exactly_and_loads_in_transformers(name: str, tmp_path: Path) -> None:
    model = live_model(name)
    folder = write_export(model, tmp_path / "exported")
    assert alike(loopscope.load(folder), model)
    loaded = AutoModelForCausalLM.from_pretrained(
        folder
    )  # no code of the folder's own: loopscope is imported
    assert type(loaded).__module__.startswith("loopscope.")
    assert torch.equal(loaded(IDS).logits, model(IDS))
    assert loopscope.adapt(loaded) is loaded.model
    loaded.save_pretrained(tmp_path / "again", max_shard_size="40KB")
    assert (tmp_path / "again" / "model.safetensors.index.json").is_file()
    assert alike(loopscope.load(tmp_path / "again"), model)
    assert {path.name for path in folder.glob("*.py")} == {
        path.name for path in (tmp_path / "again").glob("*.py")
    }


def test_a_resized_vocabulary_keeps_its_logits_and_is_read_back(tmp_path: Path) -> None:
    model = live_model("parcae")  # with value embeddings
    loaded = AutoModelForCausalLM.from_pretrained(write_export(model, tmp_path / "exported"))
    loaded.resize_token_embeddings(64)
    ids = torch.full_like(IDS, 63)
    assert torch.equal(loaded(IDS).logits[..., :61], model(IDS))
    loaded.save_pretrained(tmp_path / "wider")
    again = loopscope.load(tmp_path / "wider")
    assert again.config.vocabulary == 64
    assert torch.equal(again(ids), loaded(ids).logits)


def test_a_module_of_an_exports_own_code_is_audited_with_its_own_weights() -> None:
    model = live_model("ouro")
    module = standalone(model)
    view = loopscope.adapt(module)
    assert isinstance(view, LoopedTransformer)
    assert torch.equal(view(IDS), model(IDS))
    assert view.layers[0].attention.qkv.weight is module.model.layers[0].attention.qkv.weight
    report = loopscope.audit(view, IDS, IDS.roll(-1, 1), objective="dense")
    assert report.verdict == loopscope.audit(model, IDS, IDS.roll(-1, 1), "dense").verdict


def test_depth_and_type_are_those_asked_for(tmp_path: Path) -> None:
    folder = write_export(live_model("plain"), tmp_path / "exported", loops=5)
    assert loopscope.load(folder).loops == live_model("plain").loops == 3  # what it was trained at
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(loaded(IDS).logits, loaded(IDS, num_loops=5).logits)
    assert loaded.config.num_hidden_layers == 10
    assert AutoModelForCausalLM.from_pretrained(folder, num_loops=2).config.num_hidden_layers == 4
    half = loopscope.load(folder, dtype="bfloat16")
    assert half.token_embedding.weight.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="loaded whole"):
        loopscope.load(folder, device_map="auto")


def test_what_no_export_holds_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty"):
        write_export(live_model("plain"), tmp_path / "full")
    with pytest.raises(ValueError, match="num_loops is 0"):
        write_export(live_model("plain"), tmp_path / "new", loops=0)

    class Changed(LoopedTransformer):
        """A model that computes something else."""

    with pytest.raises(ValueError, match="model is a Changed; an export holds"):
        write_export(Changed(live_model("plain").config), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_export_is_refused_by_file(tmp_path: Path) -> None:
    folder = write_export(live_model("plain"), tmp_path / "exported")
    settings = json.loads((folder / "config.json").read_text())
    for change, said in (
        ({"looped": {**settings["looped"], "layers": 3}}, "does not fit its config"),
        ({"looped": {"dim": 32, "depth": 3}}, "no `looped` section that this version reads"),
        ({"hidden_size": 64, "looped": 1}, "no `looped` section"),
    ):
        (folder / "config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(ValueError, match=said):
            loopscope.load(folder)
    (folder / "config.json").write_text(json.dumps({**settings, "hidden_size": 64}))
    with pytest.raises(ValueError, match="hidden_size is 64 in this config, and 32 by its `looped`"):
        AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors missing"):
        loopscope.load(folder)


@pytest.mark.slow
def test_loopscope_may_be_imported_after_transformers() -> None:
    program = """
import sys, warnings
warnings.simplefilter("error", UserWarning)
import transformers.models.auto.modeling_auto
import loopscope
from transformers import AutoConfig, AutoModelForCausalLM
config = AutoConfig.for_model("loopscope")
print(type(config).__module__, AutoModelForCausalLM._model_mapping[type(config)].__module__)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    home = "loopscope.interop.huggingface.export"
    assert said.stdout.split() == [f"{home}.exported_config", f"{home}.exported_model"]
