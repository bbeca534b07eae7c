"""A depth module as an ONNX graph.

torch traces every loop, and its converter then computes what is constant: the transpose of a matrix that `K` loops use,
`K` times over. Here equal nodes are one node before that, so that a matrix is stored once, whatever its size.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from loopscope.interop.onnx.depth_module import DepthModule

OPSET = 20
INPUT, OUTPUT = "input_ids", "logits"


def build_graph(module: DepthModule) -> Any:
    """Return the graph (an `onnx_ir.Model`) of a model at one depth, for any batch and any length up to its limit.

    Raises:
        ValueError: torch cannot trace it.
    """
    import onnx_ir.passes.common as passes
    import onnxscript.optimizer

    example = torch.zeros(2, module.traced_length, dtype=torch.long)
    with module.traced(), _in_silence():
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: "batch", 1: "seq"}},
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # of many kinds, of torch's own and of a part that cannot be traced
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            first = (str(cause).strip().splitlines() or [""])[0]
            raise ValueError(
                f"torch cannot trace this model for ONNX ({type(cause).__name__}: {first}); a part of your own must "
                "not branch on values, nor draw random numbers"
            ) from error
        assert program is not None
        graph = program.model
        for each in (passes.InlinePass(), passes.CommonSubexpressionEliminationPass()):
            each(graph)
        onnxscript.optimizer.optimize(graph)
        passes.ClearMetadataAndDocStringPass()(graph)
    return graph


@contextmanager
def _in_silence() -> Iterator[None]:
    """Keep back what torch's exporter says of other packages, and of its own insides."""
    loggers = {name: logging.getLogger(name) for name in ("torch.onnx", "onnxscript")}
    before = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(before[name])
