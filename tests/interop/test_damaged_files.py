"""Model folders and published files that are cut, changed or of other types: a model, or a sentence that names them.

100 cases of each here; `pytest --hypothesis-profile=full` draws 1,500.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loopscope.data.tokenizers import ByteTokenizer
from loopscope.interop.model_folder import save_model
from loopscope.interop.published import rename_state
from loopscope.jobs.opened import open_model
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from tests.fixtures import refusal

CASES = settings(max_examples=max(100, settings.default.max_examples if settings.default else 0))
CUTS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 60), st.binary(max_size=8)), min_size=1, max_size=3)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**60)
    | st.floats()
    | st.text(max_size=4)
    | st.lists(st.integers(0, 3), max_size=3)
    | st.dictionaries(st.sampled_from(["mode", "itos", "x"]), st.integers(0, 2), max_size=2)
    | st.sampled_from(
        [torch.zeros(()), torch.zeros(3), torch.zeros(2, 2), torch.ones(8, 8, dtype=torch.int64)]
    )
)


class Everything(dict[str, torch.Tensor]):
    """A state dict that has whatever it is asked for."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> torch.Tensor:
        self[key] = torch.zeros(())
        return self[key]


def published() -> dict[str, Any]:
    """What a small published last.pt holds."""
    config = ModelConfig(
        dim=8, layers=1, heads=2, loops=2, vocabulary=40, sequence=8, feed_forward=1, exit_gate=True
    )
    model = LoopedTransformer(config)
    ours, asked = model.state_dict(), Everything()
    names = {id(value): mine for mine, value in rename_state(asked, model).items()}
    settings = {"num_layers": 1, "num_heads": 2, "num_loops": 2, "ff_multiplier": 1, "inter_loop_norm": False}
    return {
        "model_state": {
            name: ours[names[id(value)]] for name, value in asked.items() if names[id(value)] in ours
        },
        "config": {"model": settings, "supervision": {"mode": "per-step"}},
        "tokenizer": {"itos": ["<pad>", "<bos>", "<eos>", "<unk>", "a"]},
        "global_step": 3,
    }


PLACES = [
    ("model_state",),
    ("config",),
    ("tokenizer",),
    ("global_step",),
    ("config", "model"),
    ("config", "supervision"),
    ("config", "alpha_readout"),
    ("config", "supervision", "mode"),
    ("config", "supervision", "norm_penalty_weight"),
    *(
        ("config", "model", name)
        for name in ("num_layers", "num_heads", "num_loops", "ff_multiplier", "dropout")
    ),
    *(("config", "model", name) for name in ("decode_norm_type", "use_decode_norm", "tie_weights")),
    *(("model_state", name) for name in ("token_embedding.weight", "position_embedding.weight", "more")),
    ("tokenizer", "itos"),
    ("tokenizer", "pattern"),
]


def opens_or_says(path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = refusal(lambda: open_model(path))
    assert said is None or name in said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without hashes: every reader sees what is in its file."""
    path = tmp_path_factory.mktemp("damaged") / "model"
    model = LoopedTransformer(ModelConfig(dim=8, layers=1, heads=2, loops=2, vocabulary=256, sequence=8))
    save_model(
        model, path, {"objective": {"placement": "dense"}}, {"tokenizer.json": ByteTokenizer().to_text()}
    )
    (path / "manifest.json").unlink(missing_ok=True)
    return path


def test_the_whole_ones_open(folder: Path, tmp_path: Path) -> None:
    assert open_model(folder).tokenizer is not None
    torch.save(published(), tmp_path / "last.pt")
    assert open_model(tmp_path / "last.pt").tokenizer is not None


@given(name=st.sampled_from(["config.yaml", "model.safetensors", "tokenizer.json"]), cuts=CUTS)
@CASES
def test_a_damaged_file_of_a_folder(folder: Path, name: str, cuts: list[tuple[float, int, bytes]]) -> None:
    path = folder.parent / "copy"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(folder, path)
    damage(path / name, cuts)
    opens_or_says(path, str(path))


@given(place=st.sampled_from(PLACES), value=VALUES)
@CASES
def test_a_published_file_with_a_value_of_another_type(
    folder: Path, place: tuple[str, ...], value: Any
) -> None:
    data = published()
    section = data
    for part in place[:-1]:
        section = section.setdefault(part, {})
    section[place[-1]] = value
    path = folder.parent / "other.pt"
    torch.save(data, path)
    opens_or_says(path, str(path))


@given(cuts=CUTS)
@example(
    cuts=[(0.875, 6, bytes(4)), (0.875, 6, b"\x80" + bytes(7))]
)  # a name in the archive that is no UTF-8
@CASES
def test_a_damaged_published_file(folder: Path, cuts: list[tuple[float, int, bytes]]) -> None:
    path = folder.parent / "cut.pt"
    torch.save(published(), path)
    damage(path, cuts)
    opens_or_says(path, str(path))


def damage(path: Path, cuts: list[tuple[float, int, bytes]]) -> None:
    """Take some bytes of a file away, and put others in their place."""
    whole = path.read_bytes()
    for share, length, put in cuts:
        start = int(share * len(whole))
        whole = whole[:start] + put + whole[start + length :]
    path.write_bytes(whole)
