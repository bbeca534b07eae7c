"""Looped models of unlooped ones, against transformers' own forward with the same layers, repeated or left out."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForSequenceClassification, PreTrainedModel

from loopscope.interop.huggingface import retrofit_source
from loopscope.interop.huggingface.export.exported_folder import write_export
from loopscope.interop.huggingface.retrofit_plan import LayerPlaces, RetrofitPlan
from loopscope.interop.huggingface.retrofit_source import find_source, load_source
from loopscope.interop.huggingface.retrofitted import Retrofitted, loop_source
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import unroll
from tests.interop.huggingface.sources import FOUND, LAYERS, SIZES, VOCABULARY, save_source

IDS = torch.randint(VOCABULARY, (3, 80), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder per source, by its name."""
    root = tmp_path_factory.mktemp("sources")
    for name, (family, changes) in FOUND.items():
        save_source(root / name, family, **changes)
    save_source(root / "bf16", "llama", torch.bfloat16)
    return root


def looped(folder: Path, *plan: Any, **recipe: Any) -> Retrofitted:
    return loop_source(load_source(find_source(folder)), RetrofitPlan(*plan), recipe)


def read(folder: Path, **how: Any) -> PreTrainedModel:
    module: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how)
    return module.eval()


@torch.no_grad()
def own_logits(module: Any, ids: Tensor, layers: Sequence[int]) -> Tensor:
    """What transformers' forward answers with these layers in place of its own."""
    body, name = (module.transformer, "h") if hasattr(module, "transformer") else (module.model, "layers")
    whole = getattr(body, name)
    setattr(body, name, nn.ModuleList(whole[layer] for layer in layers))
    module.config.num_hidden_layers = len(layers)
    if types := getattr(module.config, "layer_types", None):
        module.config.layer_types = types[:1] * len(layers)  # all alike
    found: Tensor = module(input_ids=ids, use_cache=False).logits
    setattr(body, name, whole)
    module.config.num_hidden_layers = len(whole)
    if types:
        module.config.layer_types = types
    return found


@torch.no_grad()
def logits(model: LoopedTransformer, ids: Tensor, loops: int) -> Tensor:
    *_, last = unroll(model, ids, loops)
    return last.logits()


@pytest.mark.parametrize("name", FOUND)
def test_logits_are_the_sources_bit_for_bit(folders: Path, name: str) -> None:
    """At one loop, and at two, where the source runs the same layers twice. Also of fewer layers."""
    module = read(folders / name)
    made = looped(folders / name, 1, None, 2)
    assert (made.exact, made.own_difference, made.new, made.places.dropped) == (True, 0, (), ())
    assert torch.equal(logits(made.model, IDS, 1), own_logits(module, IDS, range(LAYERS)))
    assert torch.equal(logits(made.model, IDS, 2), own_logits(module, IDS, [0, 1, 2, 3, 1, 2, 3, 4, 5]))
    short = looped(folders / name, 1, 2, 0, loops=2)
    assert (short.exact, short.places.dropped) == (True, (1, 2, 3))
    assert torch.equal(logits(short.model, IDS, 2), own_logits(module, IDS, [0, 4, 5, 4, 5]))


def test_bf16_weights_are_read_whole(folders: Path) -> None:
    """All that 16 bits say is in fp32: the logits are those of the source loaded in fp32."""
    made = looped(folders / "bf16", 1, None, 1)
    assert {tensor.dtype for tensor in load_file(folders / "bf16" / "model.safetensors").values()} == {
        torch.bfloat16
    }
    assert torch.equal(logits(made.model, IDS, 1), own_logits(read(folders / "bf16"), IDS, range(LAYERS)))


@pytest.mark.parametrize(
    ("recipe", "same", "new"),
    [
        ({"injection": "concat"}, True, ("injection.mix.weight",)),
        ({"loop_embedding": "learned"}, True, ("loop_embedding.table.weight",)),
        ({"carry": ["rmsnorm", "damping"]}, True, ("carries.rmsnorm.norm.weight", "carries.damping.logit")),
        ({"readout": "final-only", "exit_gate": True}, True, ("gate.weight", "gate.bias")),
        ({"adapters": 2}, True, None),
        ({"readout": "raw"}, False, ()),
        ({"injection": "add"}, False, ()),
        ({"injection": "concat", "start": "random"}, False, ("injection.mix.weight",)),
    ],
)
def test_what_is_around_the_layers_may_change_one_loop(
    folders: Path, recipe: dict[str, Any], same: bool, new: tuple[str, ...] | None
) -> None:
    """It is measured, and the layers stay the source's in any case."""
    made = looped(folders / "llama", 1, None, 1, **recipe)
    assert made.exact
    assert (made.own_difference == 0) == same
    theirs = own_logits(read(folders / "llama"), IDS, range(LAYERS))
    assert torch.equal(logits(made.model, IDS, 1), theirs) == same
    assert new is None or made.new == new


def test_the_same_source_gives_the_same_model(folders: Path) -> None:
    """Also its new parts, whatever the generator stands at, which is left where it was."""
    torch.manual_seed(5)
    one = looped(folders / "llama", injection="gated", exit_gate=True)
    drawn = torch.rand(1)
    other = looped(folders / "llama", injection="gated", exit_gate=True)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    first, second = one.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_window_keeps_the_first_learned_positions(folders: Path) -> None:
    made = looped(folders / "gpt2", sequence=40)
    theirs = own_logits(read(folders / "gpt2"), IDS[:, :40], range(LAYERS))
    assert torch.equal(logits(made.model, IDS[:, :40], 1), theirs)
    with pytest.raises(ValueError, match="sequence is 97, and the source has 96 positions"):
        looped(folders / "gpt2", sequence=97)


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_it_goes_back_to_transformers_as_a_loop(folders: Path, tmp_path: Path, name: str) -> None:
    """Exported as any other model of ours: the same logits in transformers, at the trained depth and another."""
    made = looped(folders / name, 1, None, 1, loops=2)
    module = read(write_export(made.model, tmp_path / "export"), trust_remote_code=True)
    for loops in (2, 3):
        with torch.no_grad():
            assert torch.equal(module(IDS, num_loops=loops).logits, logits(made.model, IDS, loops))


@pytest.mark.parametrize(
    ("name", "flag", "tied"),
    [
        ("llama 3", None, True),  # a config of transformers 4: without the flag, which is then off
        ("llama 3", False, True),
        ("llama", None, False),
        ("llama", True, False),
    ],
)
def test_the_tensors_say_whether_the_head_is_tied(
    folders: Path, tmp_path: Path, name: str, flag: bool | None, tied: bool
) -> None:
    folder = shutil.copytree(folders / name, tmp_path / "source")
    config = json.loads((folder / "config.json").read_text())
    config.pop("tie_word_embeddings")
    (folder / "config.json").write_text(
        json.dumps(config if flag is None else {**config, "tie_word_embeddings": flag})
    )
    found = find_source(folder)
    assert (found.tied, bool(found.notes)) == (tied, flag is not None)
    made = loop_source(load_source(found), RetrofitPlan())
    assert (made.exact, made.model.config.tied) == (True, tied)
    assert torch.equal(logits(made.model, IDS, 1), own_logits(read(folders / name), IDS, range(LAYERS)))


def test_a_head_that_was_saved_beside_an_equal_embedding_is_tied(folders: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(folders / "llama 3", tmp_path / "source")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert find_source(folder).tied


@pytest.mark.parametrize(
    ("plan", "prelude", "loop", "coda", "dropped"),
    [
        ((2, 4, 2), (0, 1), (4, 5, 6, 7), (8, 9), (2, 3)),
        ((2, None, 2), (0, 1), (2, 3, 4, 5, 6, 7), (8, 9), ()),
        ((0, 1, 0), (), (9,), (), tuple(range(9))),
        ((1, 2, 1, 3), (0,), (3, 4), (9,), (1, 2, 5, 6, 7, 8)),
    ],
)
def test_which_layers_go_where(
    plan: tuple[int, ...],
    prelude: tuple[int, ...],
    loop: tuple[int, ...],
    coda: tuple[int, ...],
    dropped: tuple[int, ...],
) -> None:
    assert RetrofitPlan(*plan).places(10) == LayerPlaces(prelude, loop, coda, dropped)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ((4, 4, 4), "prelude 4 [+] loop 4 [+] coda 4 is 12 layers, and the source has 10"),
        ((6, None, 4), "prelude 6 [+] loop 1 [+] coda 4 is 11 layers"),
        (
            (2, 4, 2, 1),
            "loop_from is 1; with prelude 2, loop 4 and coda 2 of 10 layers it must be from 2 to 4",
        ),
        ((2, 4, 2, 5), "it must be from 2 to 4"),
        ((-1,), "prelude is -1"),
        ((2, 0), "loop is 0"),
    ],
)
def test_layers_that_there_are_not(plan: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RetrofitPlan(*plan).places(10)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "mamba"}, "of family 'mamba', .* it knows llama, qwen3, gpt2"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', which our layers do not have"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
            "rope_type is 'yarn'",
        ),
        ({"hidden_size": 64}, "have another shape, and would be random"),
        ({"num_hidden_layers": 7}, "9 weights of LlamaForCausalLM are not in the file"),
        ({"rms_norm_eps": "small"}, "could not be loaded by transformers"),
    ],
)
def test_configs_that_are_refused(
    folders: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(folders / "llama", tmp_path / "source")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))
    with pytest.raises(ValueError, match=message):
        looped(folder)


def test_another_model_of_the_family_is_refused(tmp_path: Path) -> None:
    LlamaForSequenceClassification(LlamaConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="score.weight.*another kind of model"):
        looped(tmp_path)


def test_weights_that_are_missing_damaged_or_too_large(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(folders / "qwen3", tmp_path / "sharded")
    next(folder.glob("model-00002-*")).unlink()
    with pytest.raises(ValueError, match="not its weights: model-00002-of-"):
        looped(folder)
    folder = shutil.copytree(folders / "llama", tmp_path / "broken")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][VOCABULARY - 1, 3] = float(
        "-inf"
    )  # a token that no random text may have
    tensors["model.norm.weight"][3:5] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError,
        match=r"embed_tokens.weight has 1 of 9,600 numbers that are not finite \(the first, -inf, at \[299, 3\]\); "
        "another weight has such, too; nothing can be trained from there. Restore",
    ):
        looped(folder)
    with pytest.raises(ValueError, match="has no config.json"):
        looped(tmp_path)
    monkeypatch.setattr(retrofit_source, "free_bytes", lambda: 2**16)
    with pytest.raises(ValueError, match="to be looped .its weights in fp32, 2 times., and 0.0 GiB are free"):
        looped(folders / "llama")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"dim": 64}, "model.dim is the source's own"),
        ({"loop_embedding": "modulation"}, "gains of the layers' norms"),
        ({"carry": ["rmnsorm"]}, "rmnsorm"),
        ({"carry": ["decay"]}, "without an injection"),
    ],
)
def test_settings_that_do_not_go_with_a_source(folders: Path, recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        looped(folders / "llama", **recipe)
