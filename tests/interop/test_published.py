"""The published code's numbers, to 1e-4 relative in fp32, and checkpoints that are refused."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import loopscope
from loopscope.interop.model_folder import load_model, save_model
from loopscope.interop.published import PublishedCheckpoint, read_published, rename_state
from loopscope.numerics import l2_norm, scale
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Loss, build_objective
from loopscope.objectives.placements import exit_probabilities
from loopscope.recurrence import unroll
from tests.fixtures import PUBLISHED

LOSSES = {
    "per-step": {"placement": "dense"},
    "terminal": {"placement": "terminal"},
    "adaptive": {"placement": "exit-weighted", "entropy_weight": 0.1},
    "per-step+0.01*mean_square": {"placement": "dense", "norm_penalty": 0.01},
}


class Case:
    """One fixture folder, loaded."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.pt"
        self.published: PublishedCheckpoint = read_published(self.path)
        self.model = self.published.model
        self.expected: Mapping[str, Any] = json.loads((folder / "expected.json").read_text())
        self.tensors = load_file(folder / "expected.safetensors")
        self.ids, self.labels = self.tensors["input_ids"], self.tensors["labels"]

    def loss(self, **config: Any) -> Loss:
        return build_objective(ObjectiveConfig(**config))(unroll(self.model, self.ids), self.labels)


@pytest.fixture(params=PUBLISHED)
def case(request: pytest.FixtureRequest, fixtures: Path) -> Case:
    return Case(fixtures / request.param)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(
        torch.as_tensor(found).double(), torch.as_tensor(expected).double(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.smoke
def test_logits_norms_and_mean_squares(case: Case) -> None:
    with torch.no_grad():
        states = list(unroll(case.model, case.ids))
        logits = torch.stack([state.logits()[:2] for state in states])
    torch.testing.assert_close(logits, case.tensors["logits_first_two_sequences"], rtol=1e-4, atol=1e-4)
    close([l2_norm(s.hidden).mean() for s in states], case.expected["mean_token_l2_norm_per_loop"])
    close([s.hidden.square().mean() for s in states], case.expected["mean_square_hidden_per_loop"])
    close(exit_probabilities([s.gate_logit() for s in states]), case.tensors["exit_pdf"])


def test_the_four_losses(case: Case) -> None:
    for name, config in LOSSES.items():
        close(case.loss(**config).total.detach(), case.expected["loss"][name])


def test_gradient_norms(case: Case) -> None:
    case.loss(**LOSSES["per-step+0.01*mean_square"]).total.backward()
    gradients = {name: p.grad.norm() for name, p in case.model.named_parameters() if p.grad is not None}
    theirs = {name: torch.tensor(norm) for name, norm in case.expected["grad_l2_norm"].items()}
    expected = rename_state(theirs, case.model)
    assert gradients.keys() == expected.keys()
    close([gradients[name] for name in expected], list(expected.values()))


def test_cross_entropy_at_every_depth_to_twice_the_trained_one(case: Case) -> None:
    found = []
    with torch.no_grad():
        for loops in range(1, 2 * case.model.loops + 1):
            *_, last = unroll(case.model, case.ids, loops)
            found.append(F.cross_entropy(last.logits().flatten(0, 1), case.labels.flatten()))
    close(found, list(case.expected["ce_when_run_at_depth"].values()))


def test_scale_is_the_rms_of_the_expansion(case: Case) -> None:
    with torch.no_grad():
        found = [scale(state.hidden).mean() for state in unroll(case.model, case.ids, 8)]
    close(found, case.expected["residual_expansion_8_loops"]["rms_scale"])


def test_the_objective_is_understood(case: Case) -> None:
    supervision = case.expected["config"]["supervision"]
    placement = {"per-step": "dense", "terminal": "terminal", "adaptive": "exit-weighted"}[
        supervision["mode"]
    ]
    assert ObjectiveConfig(**case.published.objective).placement == placement


@pytest.mark.smoke
def test_round_trip_through_our_own_folder(case: Case, tmp_path: Path) -> None:
    save_model(case.model, tmp_path / "model", {"objective": dict(case.published.objective)}, {})
    for path in (case.path, tmp_path / "model"):
        assert torch.equal(loopscope.load(path)(case.ids), case.model(case.ids))
    with pytest.raises(ValueError, match="is not empty"):
        save_model(case.model, tmp_path / "model", {}, {})


def synthetic(**changes: Any) -> dict[str, Any]:
    """A checkpoint in the published format, with alpha readouts that the fixtures do not cover."""
    torch.manual_seed(0)
    dim, vocab, loops = 16, 30, 3
    config: dict[str, Any] = {
        "data": {"seq_len": 8},
        "model": {
            "d_model": dim,
            "num_heads": 2,
            "num_layers": 1,
            "ff_multiplier": 4,
            "num_loops": loops,
            "inter_loop_norm": False,
            "decode_norm_type": "alpha_readout",
        },
        "supervision": {"mode": "terminal", "scale_anchor_weight": 0.5, "scale_anchor_target": 2.0},
        "alpha_readout": {"per_loop_alpha": True, "s_ref_mode": "learned"},
    }
    state = {
        "raw_alpha": torch.tensor(2.0),
        "token_embedding.weight": torch.randn(vocab, dim),
        "position_embedding.weight": torch.randn(8, dim),
        "layers.0.attn_norm.weight": torch.ones(dim),
        "layers.0.attn.qkv.weight": torch.randn(3 * dim, dim),
        "layers.0.attn.out_proj.weight": torch.randn(dim, dim),
        "layers.0.ffn_norm.weight": torch.ones(dim),
        "layers.0.ffn.w1.weight": torch.randn(4 * dim, dim),
        "layers.0.ffn.w3.weight": torch.randn(4 * dim, dim),
        "layers.0.ffn.w2.weight": torch.randn(dim, 4 * dim),
        "loop_norm.weight": torch.ones(dim),
        "exit_gate.weight": torch.randn(1, dim),
        "exit_gate.bias": torch.zeros(1),
    }
    for loop in range(loops):
        state[f"decode_norm.{loop}.alpha_logit"] = torch.tensor(0.3 * loop)
        state[f"decode_norm.{loop}.log_s_ref"] = torch.tensor(0.1 * loop)
        state[f"decode_norm.{loop}.ema_count"] = torch.tensor(0)
    config["model"] |= changes.pop("model", {})
    return {"model_state": state, "config": config | changes, "global_step": 7}


def test_learned_alpha_per_loop_follows_its_formula(tmp_path: Path) -> None:
    torch.save(synthetic(), tmp_path / "last.pt")
    published = read_published(tmp_path / "last.pt")
    assert published.objective["scale_anchor"] == {"weight": 0.5, "target": 2.0}
    for state in unroll(published.model, torch.arange(6)[None]):
        index = state.loop - 1
        alpha = torch.sigmoid(torch.tensor(0.3 * index))
        s = scale(state.hidden)[..., None]
        expected = torch.exp(torch.tensor(0.1 * index)) ** (1 - alpha) * s**alpha * state.hidden / s
        torch.testing.assert_close(state.features(), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"decode_norm_type": "tapernorm"}}, "decode_norm_type is 'tapernorm'"),
        ({"model": {"block_norm_type": "tapernorm"}}, "block_norm_type is 'tapernorm'"),
        ({"supervision": {"mode": "both"}}, "supervision mode is 'both'"),
        ({"model": {"num_layers": 2}}, "missing layers.1.attention.out.weight"),
    ],
)
def test_settings_that_are_not_understood_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    torch.save(synthetic(**changes), tmp_path / "last.pt")
    with pytest.raises(ValueError, match=message):
        read_published(tmp_path / "last.pt")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(Path(__file__).parent / "executed"), "w"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model_state": Evil(), "config": {}}, tmp_path / "torch.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("torch.pt", "plain.pt"):
        with pytest.raises(ValueError, match="never executes a pickle|cannot be read"):
            loopscope.load(tmp_path / name)
    assert not (Path(__file__).parent / "executed").exists()


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    torch.save(synthetic(), tmp_path / "last.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"cut\.pt"):
        loopscope.load(tmp_path / "cut.pt")
    with pytest.raises(ValueError, match="does not exist"):
        loopscope.load(tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match="holds no model"):
        loopscope.load(tmp_path)
    for name in ("two", "one"):
        (tmp_path / "both" / name).mkdir(parents=True)
        (tmp_path / "both" / name / "config.json").write_text("{}")
    said = r"nor a config.json .*It holds folders of models; name one of them: one, two\."
    with pytest.raises(ValueError, match=said):
        loopscope.load(tmp_path / "both")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list"):
        loopscope.load(tmp_path / "list.pt")


def test_a_folder_whose_weights_do_not_fit_or_are_cut_is_refused(tmp_path: Path) -> None:
    torch.save(synthetic(), tmp_path / "last.pt")
    folder = tmp_path / "model"
    save_model(read_published(tmp_path / "last.pt").model, folder, {}, {})
    whole = shutil.copytree(folder, tmp_path / "whole")
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("layers: 1", "layers: 2"))
    with pytest.raises(ValueError, match="config.yaml is cut short or was changed.* delete manifest.json"):
        load_model(folder)
    (folder / "manifest.json").unlink()  # as one that was put together by hand
    with pytest.raises(ValueError, match=r"does not fit its config \(7 differences\)"):
        load_model(folder)
    (folder / "config.yaml").write_text(config)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short or damaged"):
        load_model(folder)
    flipped = bytearray((whole / "model.safetensors").read_bytes())
    flipped[-1] ^= 1
    (whole / "model.safetensors").write_bytes(flipped)
    with pytest.raises(ValueError, match="model.safetensors is cut short or was changed"):
        load_model(whole)


def test_a_flipped_bit_of_a_tensor_is_found_by_its_checksum(tmp_path: Path) -> None:
    """torch reads such a file without a word."""
    path = tmp_path / "last.pt"
    torch.save(synthetic(), path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda each: each.file_size)
        place = content.find(archive.read(entry))
    content[place + 5] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)
    with pytest.raises(ValueError, match=r"last\.pt is damaged: .*(checksum|CRC)"):
        loopscope.load(path)
