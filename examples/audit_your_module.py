"""Ask of a PyTorch module of your own whether its loss sees how large its state is.

    python examples/audit_your_module.py

`wrap` follows the module's forward and compares logits with it before it hands anything over. No weight is copied.
"""

import torch
from torch import nn

import loopscope


class Yours(nn.Module):
    """A looped transformer as people write it: embed, one stack several times, norm, head."""

    def __init__(self, vocabulary: int = 100, dim: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.block = nn.TransformerEncoderLayer(dim, 2, 4 * dim, norm_first=True, batch_first=True)
        self.norm = nn.RMSNorm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor, loops: int = 4) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        state = self.embed(ids)
        for _ in range(loops):
            state = self.block(state, src_mask=mask)
        return self.head(self.norm(state))


torch.manual_seed(0)
model = loopscope.wrap(Yours(), block="block", head="head", set_loops="loops")
tokens = torch.randint(100, (4, 33))

report = loopscope.audit(model, tokens[:, :-1], tokens[:, 1:], objective="terminal")
print(report.verdict, "-", report.why)
for loop in report.loops:
    print(f"loop {loop.loop}: carry {loop.carry:.2f}, exposure {loop.exposure:.1e}, {loop.status}")
print("What would close it, tried on the model as it is:")
for remedy in report.remedies:
    print(f"- {remedy.change}: {remedy.verdict}")
