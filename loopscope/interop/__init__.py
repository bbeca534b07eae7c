"""Models of other formats, in and out of the recurrence: `load` a path, `adapt` or `wrap` a module.

What a path or a module passes:

    load           a path to a looped model: run folder, model folder, published last.pt, folder of transformers
    model_folder   Loopscope's own folder of weights, config and tokenizer: `save_model`, `load_model`
    published      the published code's checkpoints, as our models: `read_published`
    huggingface/   folders that transformers wrote
    onnx/          ONNX files, one per depth: `write_onnx`
    foreign/       modules of others: `adapt` (families that are known), `wrap` (any other)
    working_depth  a model at another depth than its trained one, where its forward runs at that
"""

from loopscope.interop.foreign import FamilyAdapter, adapt, wrap
from loopscope.interop.load import load
from loopscope.interop.model_folder import load_model, save_model
from loopscope.interop.onnx.onnx_files import OnnxFile, write_onnx
from loopscope.interop.published import PublishedCheckpoint, read_published

__all__ = [
    "FamilyAdapter",
    "OnnxFile",
    "PublishedCheckpoint",
    "adapt",
    "load",
    "load_model",
    "read_published",
    "save_model",
    "wrap",
    "write_onnx",
]
