"""An exported model where Loopscope is not: loads, and makes the text that Loopscope makes, with every cache and none.

Usage: exported.py EXPORT GENERATED, where GENERATED is what `loopscope generate RUN --json` printed.
"""

import importlib.util
import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

assert importlib.util.find_spec("loopscope") is None, "this is to run where loopscope cannot be imported"
folder, generated = sys.argv[1:]
with open(generated, encoding="utf-8") as file:
    wanted = json.load(file)

model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer(wanted["prompt"], return_tensors="pt")
length, depth = inputs["input_ids"].shape[1], model.config.num_loops
settings = {
    **{"max_new_tokens": len(wanted["tokens"]), "do_sample": False, "pad_token_id": 0},
    **{"output_logits": True, "return_dict_in_generate": True},
}
for loops in (1, depth, depth + 2):
    plain = model.generate(**inputs, num_loops=loops, use_cache=False, **settings)
    if loops == depth:
        made = plain.sequences[0, length:].tolist()
        assert made == wanted["tokens"], f"{made} is not what Loopscope makes, {wanted['tokens']}"
    for how in ({}, {"cache_implementation": "static"}):
        cached = model.generate(**inputs, num_loops=loops, **how, **settings)
        assert torch.equal(cached.sequences, plain.sequences), (loops, how)
        for one, other in zip(cached.logits, plain.logits, strict=True):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
assert "loopscope" not in sys.modules
print(
    f"an export runs without Loopscope: transformers {transformers.__version__}, torch {torch.__version__}, "
    f"{len(wanted['tokens'])} tokens as Loopscope makes them, cached and not, at {depth} loops and others"
)
