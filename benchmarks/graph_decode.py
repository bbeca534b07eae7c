"""An experiment for `benchmarks.gpu`: one decode step of fixed shape, recorded once as a CUDA graph and replayed.

A token of a looped model is K × L layers of small kernels, and what a GPU waits for is their launches. A CUDA graph
launches all of them at once, and asks for shapes and addresses that never change: a cache as long as the text may
become, a mask in the place of its length, and the newest token and its place kept on the device. So there are no exits
here, every row has the same length, and it is greedy. It decodes the weights of `baseline.BaselineLooped`; the package
itself generates by `loopscope.generation`, which knows all of that.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.baseline import BaselineLayer, BaselineLooped
from loopscope.guards import wait


class StaticDecoder:
    """Decodes a batch greedily, a token a step, in memory that is there from the beginning.

    Args:
        capacity: longest text, in tokens. Memory: 2 × loops × layers × batch × capacity × dim numbers.
    """

    def __init__(self, model: BaselineLooped, batch: int, capacity: int) -> None:
        weight = model.tokens.weight
        self.model, self.capacity = model, capacity
        first = model.layers[0]
        assert isinstance(first, BaselineLayer)
        shape = (
            model.loops * len(model.layers),
            batch,
            first.heads,
            capacity,
            weight.shape[1] // first.heads,
        )
        self.keys, self.values = (weight.new_zeros(shape) for _ in range(2))
        self.token = torch.zeros(batch, 1, dtype=torch.long, device=weight.device)
        self.place = torch.zeros(1, dtype=torch.long, device=weight.device)
        self.columns = torch.arange(capacity, device=weight.device)

    @torch.no_grad()
    def step(self) -> None:
        """Read the newest token, and put the likeliest next one in its place."""
        model = self.model
        x = model.tokens(self.token) + model.positions.weight.index_select(0, self.place)
        seen = (self.columns <= self.place).view(1, 1, 1, -1)
        for loop in range(model.loops):
            for number, layer in enumerate(model.layers):
                x = self._layer(layer, x, loop * len(model.layers) + number, seen)  # type: ignore[arg-type]
        logits = F.linear(model.norm(x), model.tokens.weight)
        self.token.copy_(logits.argmax(dim=-1))
        self.place.add_(1)

    def _layer(self, layer: BaselineLayer, x: Tensor, slot: int, seen: Tensor) -> Tensor:
        batch, _, dim = x.shape
        qkv = layer.qkv(layer.norm_1(x)).view(batch, 1, 3, layer.heads, dim // layer.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        self.keys[slot].index_copy_(2, self.place, key)
        self.values[slot].index_copy_(2, self.place, value)
        mixed = F.scaled_dot_product_attention(query, self.keys[slot], self.values[slot], attn_mask=seen)
        x = x + layer.out(mixed.transpose(1, 2).reshape(batch, 1, dim))
        normed = layer.norm_2(x)
        return x + layer.down(F.silu(layer.gate(normed)) * layer.up(normed))

    def text(self, prompt: Tensor, new_tokens: int, step: Callable[[], None]) -> Tensor:
        """Return what follows a prompt [batch seq], by a way to take `step`: this object's own, or its graph."""
        self.place.zero_()
        found = []
        for place in range(prompt.shape[1] + new_tokens - 1):
            if place < prompt.shape[1]:
                self.token.copy_(prompt[:, place : place + 1])
            step()
            if place >= prompt.shape[1] - 1:
                found.append(self.token.clone())
        return torch.cat(found, dim=1)

    def seconds(self, prompt: Tensor, new_tokens: int, step: Callable[[], None]) -> float:
        """Return the seconds of one new token."""
        self.text(prompt, 1, step)
        wait(prompt.device)
        began = time.perf_counter()
        for _ in range(new_tokens):
            step()
        wait(prompt.device)
        return (time.perf_counter() - began) / new_tokens

    def graph(self) -> Callable[[], None]:
        """Record a step on CUDA; what is returned replays it."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # lazily made handles are no part of a graph
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            self.step()
        return recorded.replay
