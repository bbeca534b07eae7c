#!/usr/bin/env bash
# torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0; Python 3.11, CPU. Seen on 2026-11-29.
#
# A forward that branches on the length of its input (a sliding window that needs no mask where the text is shorter than
# it) is exported by torch.onnx.export(dynamo=True) with a dynamic length. Guessed: refused, as torch.export.export
# refuses the same module and the same shapes, or at least a file that fails at lengths past the branch, as the module of
# a torch.export program does (its guard raises). Seen: no error and no warning; the file has the branch of the
# example's length alone, and onnxruntime runs longer texts through it and gives other numbers:
#
#     torch.export.export: UserError: Constraints violated (seq)!
#     torch.onnx.export, 3 tokens: off by 1e-07
#     torch.onnx.export, 9 tokens: off by 0.5 or so
#
# So an export is to be traced with the longest branch, and run at lengths on both sides of every branch.
# Fails if that changes. TORCH names another build, such as torch==2.13.0+cpu.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "${TORCH:-torch==2.13.0}" numpy onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import warnings

logging.disable(logging.WARNING)
warnings.filterwarnings("ignore")

import onnxruntime
import torch

WINDOW = 4


class Windowed(torch.nn.Module):
    """Causal attention in which a token sees itself and the three before it."""

    def forward(self, x):
        seq, mask = x.shape[2], None
        if seq > WINDOW:
            distance = torch.arange(seq)[:, None] - torch.arange(seq)[None, :]
            mask = (distance >= 0) & (distance < WINDOW)
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask, is_causal=mask is None)


torch.manual_seed(0)
module = Windowed().eval()
short, long = torch.randn(2, 1, 3, 8), torch.randn(2, 1, 9, 8)
shapes = {"x": {0: torch.export.Dim("batch"), 2: torch.export.Dim("seq")}}

refused = ""
try:
    torch.export.export(module, (short,), dynamic_shapes=shapes)
except Exception as error:
    refused = f"{type(error).__name__}: {str(error).splitlines()[0]}"
print("torch.export.export:", refused)
assert "Constraints violated (seq)" in refused

program = torch.onnx.export(
    module, (short,), dynamo=True, dynamic_shapes=shapes, input_names=["x"], output_names=["y"], verbose=False
)
program.save("windowed.onnx")
session = onnxruntime.InferenceSession("windowed.onnx")
off = {}
for x in (short, long):
    (found,) = session.run(None, {"x": x.numpy()})
    off[x.shape[2]] = float((torch.from_numpy(found) - module(x)).abs().max())
    print(f"torch.onnx.export, {x.shape[2]} tokens: off by {off[x.shape[2]]:.2g}")
assert off[3] < 1e-5
assert off[9] > 0.1
PYTHON
