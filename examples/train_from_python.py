"""Train a small looped model, read its record, and run it deeper than it was trained.

    python examples/train_from_python.py

Seconds on a laptop: the sizes are tiny. Take them out of `recipe`, and it is the size that they shrink.
"""

import tempfile
from pathlib import Path

import torch

import loopscope
from loopscope.config import recipe
from loopscope.jobs import execute

config = recipe(
    "small",
    "dense/raw",  # a loss at every loop, through a readout that shows the state's scale
    {
        "model": {"dim": 32, "layers": 1, "heads": 2, "loops": 4, "vocabulary": 400, "sequence": 48},
        "data": {"max_bytes": 60_000, "max_validation_bytes": 6_000, "tokenizer": {"vocabulary": 400}},
        "training": {"steps": 20, "batch": 8},
    },
)

with tempfile.TemporaryDirectory() as folder:
    run = Path(folder) / "raw"
    result = execute(config, run, quiet=True)
    print(result)  # a table: loss, perplexity, bits per byte and scale, loop by loop

    model = loopscope.load(run)
    tokens = torch.arange(24)[None]
    for state in loopscope.unroll(model, tokens, loops=8):  # twice the trained depth
        print(f"loop {state.loop}: RMS {state.hidden.pow(2).mean().sqrt().item():.2f}")
