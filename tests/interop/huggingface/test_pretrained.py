"""Folders that transformers wrote, opened by path: the right verdict, the module's own exits, or a clear refusal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

import loopscope
from loopscope.recurrence import unroll
from tests.fixtures import run_command
from tests.interop.foreign.families import fixtures as families

SIZES: dict[str, Any] = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64}
IDS = torch.arange(20).view(2, 10) * 7 % 300


def dory() -> PreTrainedModel:
    if not hasattr(transformers, "DoryConfig"):
        pytest.skip(f"transformers {transformers.__version__} has no Dory")
    return transformers.DoryForCausalLM(
        transformers.DoryConfig(
            **SIZES,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            n_input_layers=1,
            n_output_layers=1,
            n_recurrent_loops=3,
            sliding_window=8,
            max_position_embeddings=64,
        )
    )


def hrm() -> PreTrainedModel:
    module: PreTrainedModel = families.hrm(vocab_size=SIZES["vocab_size"])
    return module


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            **SIZES,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )


def byte_tokenizer() -> Tokenizer:
    """Every byte a token, and no merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: index for index, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(make: Callable[[], PreTrainedModel], **how: Any) -> Path:
        torch.manual_seed(0)
        folder = tmp_path / make.__name__
        make().eval().save_pretrained(folder, **how)
        byte_tokenizer().save(str(folder / "tokenizer.json"))
        return folder

    return save


@pytest.mark.parametrize("how", [{}, {"max_shard_size": "30KB"}])
def test_a_saved_dory_is_opened_with_its_own_exits(saved: Callable[..., Path], how: dict[str, Any]) -> None:
    folder = saved(dory, **how)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == bool(how)
    model = loopscope.load(folder)
    own = transformers.DoryForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        for loops in range(1, 7):
            own.config.n_recurrent_loops = loops
            *_, last = unroll(model, IDS, loops)
            assert torch.allclose(last.logits(), own(IDS, use_cache=False).logits, atol=1e-5)


@pytest.mark.parametrize("make", [dory, hrm])
def test_commands_take_the_folder_alone(
    saved: Callable[..., Path],
    make: Any,
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = saved(make)
    assert call("audit", folder, "--sequences", 1, "--length", 16) == 0
    assert "removed" in capsys.readouterr().out
    assert call("evaluate", "depth", folder, "--windows", 2, "--length", 16, "--loops", 4) == 0
    assert "loop" in capsys.readouterr().out
    assert call("generate", folder, "--prompt", "def", "--new-tokens", 3) == 0


def test_a_folder_without_a_tokenizer_is_audited_on_bytes(
    saved: Callable[..., Path], call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(hrm)
    (folder / "tokenizer.json").unlink()
    assert call("audit", folder, "--sequences", 1, "--length", 16) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "as bytes, because the model has no tokenizer" in printed


def change(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def unlooped(folder: Path) -> None:
    """Nothing: a Llama is refused as it is."""


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def of_an_unknown_family(folder: Path) -> None:
    change(folder, model_type="loopy")


def of_an_old_family(folder: Path) -> None:
    change(folder, model_type="ouro")


def with_code(folder: Path) -> None:
    change(folder, model_type="loopy", auto_map={"AutoModelForCausalLM": "modeling_loopy.Loopy"})
    (folder / "modeling_loopy.py").write_text("raise SystemExit('it ran')")


def of_another_size(folder: Path) -> None:
    change(folder, vocab_size=310)


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            unlooped,
            "is no looped model as it stands: an audit of loops needs one that applies the same layers",
        ),
        (without_weights, "has config.json and not its weights: model.safetensors missing"),
        (cut, "model.safetensors is cut short or no safetensors file; download it again"),
        (of_an_unknown_family, "says model_type 'loopy', which transformers .* does not have"),
        (of_an_old_family, "code was written for transformers 4.56: use an environment with that one"),
        (
            with_code,
            r"needs the folder's own code \(modeling_loopy.py \([0-9a-f]{12}\)\). Read it, and add --trust",
        ),
        (of_another_size, "weights of DoryForCausalLM are not in the file or have another shape"),
        (no_json, "config.json is no JSON"),
    ],
)
def test_what_cannot_be_opened_is_refused_by_name(
    saved: Callable[..., Path], harm: Callable[[Path], None], message: str
) -> None:
    folder = saved(llama if harm is unlooped else dory)
    harm(folder)
    with pytest.raises(ValueError, match=message):
        loopscope.load(folder)


def test_too_large_a_model_is_refused_before_it_is_loaded(
    saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(dory)
    monkeypatch.setattr("loopscope.interop.huggingface.pretrained.free_bytes", lambda: 1000)
    with pytest.raises(ValueError, match=r"needs about 0.0 GiB of memory, and 0.0 GiB are free"):
        loopscope.load(folder)


def test_code_runs_with_the_users_word_and_is_named_first(
    saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def from_pretrained(folder: str, trust_remote_code: bool, **_: Any) -> Any:
        asked.append(trust_remote_code)
        raise RuntimeError("as far as a test goes")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr("loopscope.interop.huggingface.remote_code._allowed", [])
    folder = saved(llama)
    with_code(folder)
    with (
        pytest.warns(UserWarning, match="brings code that runs now: modeling_loopy.py"),
        pytest.raises(ValueError, match="as far as a test goes"),
    ):
        loopscope.load(folder, trust_remote_code=True)
    with pytest.raises(ValueError, match="Read it, and add --trust-remote-code"):
        loopscope.load(folder)
    run_command(monkeypatch, "--trust-remote-code", "audit", folder)
    run_command(monkeypatch, "audit", folder, "--trust-remote-code")
    assert asked == [True] * 3
