#!/usr/bin/env bash
# torch 2.13.0 (CPU build), seen 2026-11-29.
# A program that never compiles: one gradient, one gradient with grad_outputs, one call of torch.utils.checkpoint.
# Guess: none of them loads the compiler; checkpoint runs the function twice and nothing else.
# Behaviour: a gradient with its own grad_outputs imports sympy (torch.fx.experimental.symbolic_shapes), and the first
# checkpoint imports torch._dynamo, FSDP with it. For a command that answers in seconds that is about half of it.
# Output seen (modules loaded so far):
#   plain gradient: nothing
#   grad_outputs: sympy
#   checkpoint: sympy torch._dynamo torch.distributed.fsdp
# Exits with 1 when this changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 numpy
cd "$place"
"$place/venv/bin/python" - <<'PYTHON' | tee seen.txt
import sys

import torch
from torch.utils.checkpoint import checkpoint

WATCHED = ("sympy", "torch._dynamo", "torch.distributed.fsdp")


def say(what):
    print(f"{what}:", " ".join(name for name in WATCHED if name in sys.modules) or "nothing")


x = torch.ones(3, requires_grad=True)
torch.autograd.grad((x * x).sum(), x)
say("plain gradient")
y = (x * x).sum()
torch.autograd.grad(y, x, torch.full_like(y, 2.0))
say("grad_outputs")
checkpoint(torch.sin, x, use_reentrant=False)
say("checkpoint")
PYTHON
grep -qxF "plain gradient: nothing" seen.txt
grep -qxF "grad_outputs: sympy" seen.txt
grep -qxF "checkpoint: sympy torch._dynamo torch.distributed.fsdp" seen.txt
