"""ONNX files against the models they were made of, by onnxruntime: logits, sizes, metadata, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loopscope.interop.onnx import onnx_files
from loopscope.interop.onnx.depth_module import DepthModule
from loopscope.interop.onnx.onnx_files import OnnxFile, run_difference, write_onnx
from loopscope.jobs import add_onnx
from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import variants_of
from loopscope.model.config.variants import CARRIES, INJECTIONS, READOUTS, STARTS
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import unroll

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TINY: dict[str, Any] = {"dim": 32, "layers": 1, "heads": 4, "loops": 2, "vocabulary": 61, "sequence": 16}

MIXTURES: dict[str, dict[str, Any]] = {
    "published, of a size at which matrices are not folded": {
        **{"dim": 96, "vocabulary": 256, "readout": "final-only", "carry": ["layernorm"]},
    },
    "noise at the start, sandwiched": {
        **{"start": "random", "positions": "rotary", "tied": False, "adapters": {"rank": 2}},
        **{"injection": {"kind": "write", "norm": True}, "carry": ["readout-norm", "decay"]},
        "attention": {"qk_norm": True},
        "block": {"placement": "sandwich", "activation": "relu2", "scaling": "1/sqrt(N)"},
    },
    "a window, post-norm": {
        **{"readout": "alpha", "carry": ["damping"], "injection": "gated", "start": "zero"},
        **{"loop_embedding": "learned", "exit_gate": True},
        "attention": {"window": 3, "bias": True, "qk_bias": True},
        "block": {"placement": "post", "scaling": "deeploop", "norm": "layernorm", "activation": "gelu-new"},
    },
    "modulated, attention alone looped": {
        **{"loop_embedding": "modulation", "looped": "attention", "readout": "raw", "injection": "concat"},
        **{"carry": ["rmsnorm"], "positions": "rotary"},
        "attention": {"head_dim": 12, "rotary_bands": (1.0, 4.0, 16), "rotary_scaling": 8.0},
        "block": {"bias": True, "activation": "gelu-tanh"},
    },
    "one loop, a coda": {
        **{"readout": "layernorm", "injection": "add", "loop_embedding": "sinusoidal", "loops": 1},
        **{"coda": 1, "coda_norm": True, "coda_matrix": True, "embedding_gain": "sqrt-dim"},
        "attention": {"value_embeddings": "gated", "key_value_heads": 2},
        "block": {"placement": "sandwich-sum", "activation": "gelu"},
    },
}
"""Few configs, since to trace one takes seconds, that between them have every variant."""
OFTEN = ("published, of a size at which matrices are not folded", "a window, post-norm")
"""Those that `make test` holds too, not `make slow` alone."""


def model_of(name: str, **changes: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    model = LoopedTransformer(ModelConfig(**{**TINY, **MIXTURES[name], **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # what starts at zero too
    return model


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in OFTEN else pytest.mark.slow) for name in MIXTURES],
)
def written(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[LoopedTransformer, OnnxFile]:
    """A model and a file of it, of the first at a depth past the trained one."""
    model = model_of(request.param)
    depth = model.loops + (request.param == next(iter(MIXTURES)))
    facts = {"eos_token_id": 0, "pad_token_id": None}
    (file,) = write_onnx(model, tmp_path_factory.mktemp("onnx") / "files", [depth], facts)
    return model, file


def test_every_variant_is_in_one_of_the_mixtures() -> None:
    chosen = {
        (variant.noun, variant.name)
        for name in MIXTURES
        for variant in variants_of(ModelConfig(**{**TINY, **MIXTURES[name]}))
    }
    kinds = CARRIES, INJECTIONS, READOUTS, STARTS
    assert chosen == {(names.noun, name) for names in kinds for name in names.shipped}


def test_logits_are_the_models_own_at_any_length(written: tuple[LoopedTransformer, OnnxFile]) -> None:
    model, file = written
    session = onnxruntime.InferenceSession(file.path)
    for batch, seq in ((1, 1), (2, 5), (1, 16)):
        ids = torch.randint(61, (batch, seq), generator=torch.Generator().manual_seed(seq))
        (found,) = session.run(None, {"input_ids": ids.numpy()})
        with torch.no_grad():
            *_, last = unroll(model, ids, file.loops)
        assert np.abs(found - last.logits().detach().numpy()).max() < 1e-4
    assert file.difference < 1e-4


def test_shared_matrices_are_stored_once(written: tuple[LoopedTransformer, OnnxFile]) -> None:
    """Whatever their size: the tied embedding alone may be there twice, as a table and as the head's matrix."""
    model, file = written
    noise = model.config.sequence * model.config.dim if model.config.start == "random" else 0
    numbers = model.parameter_count() + noise + model.token_embedding.weight.numel()
    assert file.bytes == file.path.stat().st_size
    assert file.bytes < 4 * numbers + 120_000  # of which the graph itself, some hundred nodes


def test_metadata_says_what_a_file_is(written: tuple[LoopedTransformer, OnnxFile]) -> None:
    model, file = written
    session = onnxruntime.InferenceSession(file.path)
    said = session.get_modelmeta().custom_metadata_map
    assert said["loops"] == str(file.loops)
    assert said["trained_loops"] == str(model.loops)
    assert said["eos_token_id"] == "0"
    assert "pad_token_id" not in said
    assert session.get_inputs()[0].shape == ["batch", "seq"]
    assert session.get_outputs()[0].shape == ["batch", "seq", model.config.vocabulary]
    assert file.path.name == f"loops-{file.loops}.onnx"


def test_a_text_that_is_too_long_fails_instead_of_being_wrong(
    written: tuple[LoopedTransformer, OnnxFile],
) -> None:
    model, file = written
    session = onnxruntime.InferenceSession(file.path)
    most = session.get_modelmeta().custom_metadata_map.get("most_tokens")
    longer = np.zeros((1, 17), dtype=np.int64)
    if model.config.positions == "learned" or model.config.start == "random":
        assert most == "16"
        with pytest.raises(Exception, match="Non-zero status code"):
            session.run(None, {"input_ids": longer})
    else:
        assert most is None
        assert session.run(None, {"input_ids": longer})[0].shape[1] == 17


def test_ids_that_there_are_not(written: tuple[LoopedTransformer, OnnxFile]) -> None:
    """As docs/onnx.md says: past the vocabulary an error; negative ones count from its end."""
    model, file = written
    session = onnxruntime.InferenceSession(file.path)
    last = model.config.vocabulary - 1
    negative, same = (session.run(None, {"input_ids": np.array([[1, id_, 2]])})[0] for id_ in (-1, last))
    assert np.array_equal(negative, same)
    with pytest.raises(Exception, match="indices element out of data bounds"):
        session.run(None, {"input_ids": np.array([[1, last + 1, 2]])})


@pytest.mark.parametrize(
    ("depths", "positions", "message"),
    [
        ([], None, "depths is empty; name one at least"),
        ([True], None, "loops"),
        ([1], 0, "positions is 0; give the tokens of the longest text, 3 or more"),
        ([1], -4, "positions is -4"),
    ],
)
def test_depths_and_positions_that_are_none(
    depths: list[int], positions: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_onnx(model_of(next(iter(MIXTURES))), tmp_path / "new", depths, positions=positions)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_other_weights_is_refused(written: tuple[LoopedTransformer, OnnxFile]) -> None:
    model, file = written
    other = LoopedTransformer(model.config).eval()
    with pytest.raises(ValueError, match=r"logits differ by .* from the model's"):
        run_difference(file.path, other, DepthModule(other, file.loops, 16))


def test_weights_that_one_file_cannot_hold_lie_beside_it(
    written: tuple[LoopedTransformer, OnnxFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir

    model, file = written
    monkeypatch.setattr(onnx_files, "MOST_BYTES", 1000)
    onnx_files.save_graph(onnx_ir.load(file.path), tmp_path / "large.onnx", {"loops": "7"})
    assert (tmp_path / "large.onnx.data").stat().st_size > (tmp_path / "large.onnx").stat().st_size
    assert run_difference(tmp_path / "large.onnx", model, DepthModule(model, file.loops, 16)) < 1e-4


def with_nan(model: LoopedTransformer) -> LoopedTransformer:
    with torch.no_grad():
        model.token_embedding.weight[3, 1] = float("nan")
    return model


@pytest.mark.parametrize(
    ("model", "depths", "message"),
    [
        (torch.nn.Linear(2, 2), [1], "model is a Linear; ONNX files are written of Loopscope's own"),
        (lambda: model_of(next(iter(MIXTURES))).bfloat16(), [1], "weights are torch.bfloat16 on cpu"),
        (lambda: model_of(next(iter(MIXTURES)), sequence=2), [1], "the model has 2 positions"),
        (lambda: model_of(next(iter(MIXTURES))), [0], "loops"),
        (lambda: with_nan(model_of(next(iter(MIXTURES)))), [1], "has 1 of .* numbers that are not finite"),
    ],
)
def test_what_no_file_can_hold_is_refused_before_anything_is_written(
    model: Any, depths: list[int], message: str, tmp_path: Path
) -> None:
    made = model if isinstance(model, torch.nn.Module) else model()
    with pytest.raises(ValueError, match=message):
        write_onnx(made, tmp_path / "new", depths)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        write_onnx(model_of(next(iter(MIXTURES))), tmp_path, [1])
    with pytest.raises(ValueError, match="is no export of Loopscope"):
        add_onnx(tmp_path, [1])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_part_that_cannot_be_traced_is_told_with_its_cause(tmp_path: Path) -> None:
    model = model_of(next(iter(MIXTURES)))

    class Branching(torch.nn.Module):
        def forward(self, hidden: torch.Tensor, loop: int) -> torch.Tensor:
            return hidden if float(hidden.mean()) > 0 else 2 * hidden

    model.carries["layernorm"] = Branching()
    with pytest.raises(ValueError, match=r"torch cannot trace this model for ONNX \(.*data-dependent"):
        write_onnx(model, tmp_path / "new", [2])
    assert list(tmp_path.iterdir()) == []
