"""Let tokens leave early while a text is written, and see at which loop each was read.

    python examples/leave_early.py

A later token that goes deeper needs keys and values of loops that earlier ones left out: `missing="lazy"` computes them
when they are asked for, exactly.
"""

import torch

import loopscope
from loopscope.evaluation import build_rule, early_exit
from loopscope.model import LoopedTransformer, ModelConfig
from loopscope.objectives import Dense, Objective

torch.manual_seed(0)
model = LoopedTransformer(
    ModelConfig(dim=32, heads=2, layers=1, loops=4, vocabulary=64, sequence=32, initialisation="scaled")
)
objective = Objective(Dense())  # every loop is trained to answer
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for _ in range(60):
    start, step = torch.randint(64, (8, 1)), torch.randint(1, 4, (8, 1))
    tokens = (start + step * torch.arange(25)) % 64  # counting by ones, twos or threes
    objective(loopscope.unroll(model, tokens[:, :-1]), tokens[:, 1:]).total.backward()
    optimizer.step()
    optimizer.zero_grad()

model.eval()
prompt = (torch.tensor([[5], [20]]) + torch.tensor([[1], [3]]) * torch.arange(6)) % 64
whole = loopscope.generate(model, prompt, 10)
print("every loop:", *whole.tokens[0])
for threshold in (0.9, 0.5, 0.3):  # leave where the likeliest token is likelier than this
    made = loopscope.generate(
        model, prompt, 10, exit_rule="max-probability", threshold=threshold, missing="lazy"
    )
    print(f"above {threshold}: {made.mean_loops:.2f} loops a token; row 0 left at loops", *made.loops[0])

# The same rule over whole sequences, without generating: where does each leave?
left = early_exit(model, prompt, build_rule("max-probability"), threshold=0.5)
print("sequences leave at loops", left.loops.tolist())
