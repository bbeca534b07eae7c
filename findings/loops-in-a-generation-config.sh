#!/usr/bin/env bash
# transformers 5.24.0, torch 2.13.0, seen 2026-11-29.
# A model whose forward names an argument of its own (num_loops), as looped models do, and text from generate().
# Guess: a number in a generation config reaches forward like max_new_tokens reaches generate; and generate(num_loops=3)
# reaches forward whatever the config says.
# Behaviour: a number in a generation config is kept, saved to generation_config.json, and never reaches forward. And once
# the model's generation config has the name, generate(num_loops=3) does not reach forward either: the argument is taken
# for one of the config's. No warning, no error; the text is that of forward's default.
# Output seen:
#   argument alone {3}
#   in a generation config {None}
#   in the model's generation config {None}
#   argument, and in the model's generation config {None}
# Exits with 1 when this changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0
cd "$place"
"$place/venv/bin/python" - 2>/dev/null <<'PYTHON' | tee seen.txt
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

seen = []


class Looped(LlamaForCausalLM):
    """A forward that names a number of loops, and notes what it is called with."""

    def forward(self, *args, num_loops=None, **kwargs):
        seen.append(num_loops)
        return super().forward(*args, **kwargs)


torch.manual_seed(0)
sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
model = Looped(LlamaConfig(**sizes)).eval()
ids = torch.arange(1, 5)[None]


def loops(**asked):
    seen.clear()
    model.generate(ids, max_new_tokens=2, do_sample=False, **asked)
    return set(seen)


print("argument alone", loops(num_loops=3))
print("in a generation config", loops(generation_config=GenerationConfig(max_new_tokens=2, num_loops=5)))
model.generation_config.num_loops = 5
print("in the model's generation config", loops())
print("argument, and in the model's generation config", loops(num_loops=3))
PYTHON
grep -qxF "argument alone {3}" seen.txt
grep -qxF "in a generation config {None}" seen.txt
grep -qxF "in the model's generation config {None}" seen.txt
grep -qxF "argument, and in the model's generation config {None}" seen.txt
echo "as written above"
