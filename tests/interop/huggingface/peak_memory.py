"""What an audit of a folder takes: `python -m tests.interop.huggingface.peak_memory FOLDER copies|at-use|float32`.

Prints one JSON line: peak resident memory since the imports, in MB, what of it was taken when the model was loaded and
checked, the seconds, and what the verdict rests on.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers

import loopscope
from loopscope import wide_weights
from loopscope.audit.audit_report import judge
from loopscope.interop.huggingface import pretrained


def middling() -> Any:
    """A random Dory of 18 million numbers."""
    return transformers.DoryForCausalLM(
        transformers.DoryConfig(
            vocab_size=4000,
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=128,
            n_input_layers=1,
            n_output_layers=1,
            n_recurrent_loops=2,
            sliding_window=64,
            max_position_embeddings=256,
        )
    )


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MB."""
    # Not `ru_maxrss`: that begins with what the process held that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def main(folder: str, way: str) -> None:
    """Load and judge a folder in one of the three ways, and print what it took."""
    wide_weights.free_bytes = lambda: 1 if way == "at-use" else None  # type: ignore[assignment]
    pretrained.free_bytes = lambda: None  # type: ignore[assignment]
    ids = torch.arange(17)[None] % 300
    before, began = peak_mb(), time.perf_counter()
    model = loopscope.load(folder, dtype="float32" if way == "float32" else "auto")
    loaded = peak_mb() - before
    loops = judge(model, ids[:, :-1], ids[:, 1:]).loops
    print(
        json.dumps(
            {
                "peak": peak_mb() - before,
                "loaded": loaded,
                "seconds": time.perf_counter() - began,
                "millions": sum(parameter.numel() for parameter in model.parameters()) / 1e6,
                "judged": [(each.status, each.direct, each.carry, each.exposure) for each in loops],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
