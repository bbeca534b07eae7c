"""Put the scale monitor into a training loop that you already have.

    python examples/monitor_your_training.py

One line builds it, one line a step asks it. It says what nothing holds, and warns when that grows.
"""

import torch
from torch import nn

import loopscope
from loopscope.monitor import ScaleMonitor


class Yours(nn.Module):
    """A recurrent block that adds to its state, and a norm before the head that hides how much."""

    def __init__(self, vocabulary: int = 64, dim: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.block = nn.Sequential(
            nn.RMSNorm(dim), nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim)
        )
        self.step = Residual(self.block)
        self.norm = nn.RMSNorm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor, loops: int = 4) -> torch.Tensor:
        state = self.embed(ids)
        for _ in range(loops):
            state = self.step(state)
        return self.head(self.norm(state))


class Residual(nn.Module):
    """h + f(h)."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return state + self.block(state)


torch.manual_seed(0)
model = Yours()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
monitor = ScaleMonitor(  # the view shares the module's weights; the objective is what you train on
    loopscope.wrap(model, block="step", head="head", set_loops="loops"),
    "terminal",
    budget=None,  # a run of a second: check at every turn. Leave it out in a real one
)

for step in range(1, 101):
    tokens = (torch.randint(64, (8, 1)) + torch.arange(17)) % 64  # counting
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    loss = nn.functional.cross_entropy(model(inputs).flatten(0, 1), labels.flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    monitor.step(step, inputs, labels)

for check in monitor.history:
    print(f"step {check.step}: RMS by loop {[round(rms, 1) for rms in check.rms]}, {check.verdict}")
