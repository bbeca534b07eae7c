"""ONNX files of a looped model, one per depth, written whole or not at all.

Every file is run by onnxruntime before the folder has its name, at several lengths, and its logits are held to the
model's. What a file is, and of what model, stands in its metadata.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import loopscope
from loopscope.guards import evaluating
from loopscope.interop.onnx.depth_module import SHORTEST, DepthModule
from loopscope.interop.onnx.onnx_graph import INPUT, OUTPUT, build_graph
from loopscope.model.looped import LoopedTransformer
from loopscope.numerics import not_finite
from loopscope.optional_packages import require
from loopscope.recurrence import check_loops, unroll
from loopscope.results.whole_folder import whole_folder

TOLERANCE = 1e-4
"""Of a file's logits, against the model's: relative to the largest of them where that is above 1."""
MOST_BYTES = 1_900_000_000
"""Of weights within one file: protobuf ends at 2 GiB. More go into a file of their own beside it."""


@dataclass(frozen=True)
class OnnxFile:
    """A file that was written and has been run.

    Attributes:
        loops: the depth it runs.
        bytes: of the file, and of its weights where they lie beside it.
        difference: the largest of a logit from the model's, over the lengths it was run at.
    """

    path: Path
    loops: int
    bytes: int
    difference: float


def write_onnx(
    model: Any,
    directory: str | Path,
    depths: Sequence[int],
    facts: Mapping[str, str | int | None] | None = None,
    positions: int | None = None,
) -> list[OnnxFile]:
    """Write one ONNX file per depth: `loops-4.onnx` takes `input_ids` [batch seq] and gives `logits` of loop 4.

    Args:
        directory: new, or empty.
        facts: what else the metadata says, the tokenizer's ids, say; None is left out.
        positions: the longest text of a model that starts from noise and has no learned positions; None: those it
            was trained at.

    Raises:
        ValueError: a model that no ONNX file can hold, no depth or one below 1, positions that are none, a folder that
            is not empty, onnx not installed; nothing is written.
        OSError: it cannot be written; nothing of it is left.
    """
    check_onnx()
    looped = check_convertible(model)
    depths = [check_loops(depth) for depth in dict.fromkeys(depths)]
    if not depths:
        raise ValueError("depths is empty; name one at least, from 1 up")
    _check_positions(positions)
    directory, written = Path(directory), []
    with whole_folder(directory) as writing:
        for depth in depths:
            module = DepthModule(looped, depth, positions or looped.config.sequence)
            file = writing / f"loops-{depth}.onnx"
            save_graph(build_graph(module), file, _metadata(looped, module, facts or {}))
            size = sum(each.stat().st_size for each in writing.glob(f"{file.name}*"))
            difference = run_difference(file, looped, module)
            written.append(OnnxFile(directory / file.name, depth, size, difference))
    return written


def _check_positions(positions: Any) -> None:
    """Refuse a number of positions that no table of noise can have."""
    whole = isinstance(positions, int) and not isinstance(positions, bool)
    if positions is not None and (not whole or positions < SHORTEST):
        raise ValueError(
            f"positions is {positions!r}; give the tokens of the longest text, {SHORTEST} or more"
        )


def check_onnx() -> None:
    """Refuse ONNX files where what makes them is not installed.

    Raises:
        ValueError: with the extra that brings it.
    """
    require("an ONNX file", "onnx", "onnxscript", "onnxruntime")


def check_convertible(model: Any) -> LoopedTransformer:
    """Return a model if ONNX files can hold it.

    Raises:
        ValueError: no model of Loopscope's own, weights of another type than fp32 or not finite, or too few positions.
    """
    if not isinstance(model, LoopedTransformer):
        raise ValueError(
            f"model is a {type(model).__name__}; ONNX files are written of Loopscope's own LoopedTransformer alone"
        )
    other = next((each for each in model.parameters() if each.dtype != torch.float32 or each.is_meta), None)
    if other is not None:
        raise ValueError(
            f"the model's weights are {other.dtype} on {other.device}; ONNX files hold fp32: model.float().cpu()"
        )
    if (unfit := not_finite(model.named_parameters())) is not None:
        raise ValueError(f"{unfit}; a file of them could not be held to the model. Export another checkpoint")
    limit = model.positions_limit
    if limit is not None and limit < SHORTEST:
        raise ValueError(f"the model has {limit} positions; an ONNX file of any length needs {SHORTEST}")
    return model


def run_difference(file: Path, model: LoopedTransformer, module: DepthModule) -> float:
    """Run a file by onnxruntime and return the largest difference of a logit from the model's own.

    Texts are shorter and longer than the one that was traced: a branch that was frozen at its length shows.

    Args:
        module: what the file was made of.

    Raises:
        ValueError: they differ by more than `TOLERANCE`, or are no numbers.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch, seq in ((1, 1), (3, 2), (2, module.traced_length + 4), (1, 33)):
        seq = min(seq, module.limit or seq)
        ids = torch.randint(
            model.config.vocabulary, (batch, seq), generator=torch.Generator().manual_seed(seq)
        )
        with evaluating(model), torch.no_grad():
            expected = deque(unroll(model, ids, module.loops), maxlen=1)[0].logits()
        found = torch.from_numpy(session.run([OUTPUT], {INPUT: ids.numpy()})[0])
        difference = float((found - expected).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise ValueError(
                f"at {module.loops} loops and {batch} × {seq} tokens the ONNX file's logits differ by {difference:g} "
                f"from the model's, whose largest is {float(expected.abs().max()):g}; nothing was written"
            )
        worst = max(worst, difference)
    return worst


def _metadata(
    model: LoopedTransformer, module: DepthModule, facts: Mapping[str, str | int | None]
) -> dict[str, str]:
    said = {
        "loopscope": loopscope.__version__,
        "loops": module.loops,
        "trained_loops": model.config.loops,
        "most_tokens": module.limit,
        "vocabulary": model.config.vocabulary,
        "parameters": model.parameter_count(),
        **facts,
    }
    return {name: str(value) for name, value in said.items() if value is not None}


def save_graph(graph: Any, file: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph with its metadata as one file, or as two where its weights are more than one can hold."""
    import onnx_ir

    graph.producer_name, graph.producer_version = "loopscope", loopscope.__version__
    graph.metadata_props.update(metadata)
    weights = sum(each.const_value.nbytes for each in graph.graph.initializers.values())
    beside = f"{file.name}.data" if weights > MOST_BYTES else None
    onnx_ir.save(graph, file, external_data=beside)
