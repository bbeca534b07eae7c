"""Put another text's state in the place of one token's, loop by loop, and see how far the last exit moves.

python examples/replace_a_state.py
"""

import torch

import loopscope
from loopscope.model import LoopedTransformer, ModelConfig

TOKEN = 8  # which token's state is replaced

torch.manual_seed(0)
model = LoopedTransformer(
    ModelConfig(dim=32, heads=2, layers=2, loops=4, vocabulary=80, sequence=32, initialisation="scaled")
).eval()
text, other = torch.randint(80, (2, 1, 16))

lens = loopscope.lens(model, text)
donor = loopscope.lens(model, other)
before = lens.last().logits().log_softmax(dim=-1)

for loop in range(1, model.loops + 1):
    for layer in range(len(lens.layers)):
        state = lens[loop, layer].after.clone()
        state[:, TOKEN] = donor[loop, layer].after[:, TOKEN]
        changed = lens.patch(loop=loop, layer=layer, with_=state)
        after = changed.last().logits().log_softmax(dim=-1)
        moved = (
            (before.exp() * (before - after)).sum(dim=-1)[:, TOKEN + 1 :].mean()
        )  # at the tokens behind it
        print(f"loop {loop}, layer {layer}: the last exit moves by {moved.item():.1e} nats (KL)")
