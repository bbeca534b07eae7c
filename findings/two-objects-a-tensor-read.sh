#!/usr/bin/env bash
# safetensors 0.8.0 with torch 2.13.0 (CPU build), Python 3.11, seen 2026-11-30.
# A file of 50 tensors is read 200 times, and what was read is let go of.
# Guess: Python holds as many objects afterwards as before.
# Behaviour: two more for every tensor of every reading (ints of 28 bytes, by tracemalloc), by safetensors.torch.load_file
# and by safe_open; none by safetensors.torch.load of the same bytes. A process that reads checkpoints on and on grows by
# 57 bytes a tensor: it looks like a leak of the reader's own.
# Output seen:
#   load_file: 2.0 objects a tensor and reading
#   safe_open: 2.0 objects a tensor and reading
#   load: 0.0 objects a tensor and reading
# Exits with 1 when this changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 numpy safetensors==0.8.0
cd "$place"
cat > read.py <<'PYTHON'
import gc
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file

TENSORS, TIMES = 50, 200
save_file({f"layer {n}": torch.zeros(300 + n, 7) for n in range(TENSORS)}, "weights.safetensors")
stored = Path("weights.safetensors").read_bytes()


def each():
    with safe_open("weights.safetensors", "pt") as opened:
        for name in opened.keys():
            opened.get_tensor(name)


for name, read in {
    "load_file": lambda: load_file("weights.safetensors"),
    "safe_open": each,
    "load": lambda: load(stored),
}.items():
    for _ in range(5):
        read()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(TIMES):
        read()
    gc.collect()
    more = (sys.getallocatedblocks() - before) / TENSORS / TIMES
    print(f"{name}: {abs(more):.1f} objects a tensor and reading")
PYTHON
"$place/venv/bin/python" read.py | tee seen.txt
[ "$(cat seen.txt)" = "load_file: 2.0 objects a tensor and reading
safe_open: 2.0 objects a tensor and reading
load: 0.0 objects a tensor and reading" ]
