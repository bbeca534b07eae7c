"""What attention may add (value embeddings, biases) against formulas written out; how deep a start counts."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.model.rotary import RotaryTurns, rotate
from loopscope.recurrence import unroll
from loopscope.training.muon import layer_matrices
from tests.model.fixtures import TINY, build

IDS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(7))


def made(attention: dict[str, Any], **changes: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    model = LoopedTransformer(ModelConfig(**{**TINY, "attention": attention, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention by hand, [batch heads seq head] to [batch seq dim]."""
    seq = query.shape[-2]
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    scores = scores.masked_fill(~torch.ones(seq, seq, dtype=torch.bool).tril(), -math.inf)
    return (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("kind", ["added", "gated"])
@torch.no_grad()
def test_values_gain_the_tokens_embedding(kind: str) -> None:
    model = made({"value_embeddings": kind, "key_value_heads": 2})
    attention, table = model.layers[1].attention, model.value_embeddings.tables["1"].weight
    assert list(model.value_embeddings.tables) == ["1"]  # of two layers, the last
    x = torch.randn(2, 9, 32)
    query, key, value = attention.qkv(x).split([32, 16, 16], dim=-1)
    added = table[IDS].view(2, 9, 2, 8)
    if kind == "gated":
        gate = 2 / (1 + torch.exp(-x @ attention.value_gate.weight.T))
        added = gate[..., None] * added
    value = value + added.flatten(2)
    heads = [part.view(2, 9, -1, 8).transpose(1, 2) for part in (query, key, value)]
    mixed = attended(heads[0], *(part.repeat_interleave(2, dim=1) for part in heads[1:]))
    assert torch.allclose(attention(x, 1, value_embeddings=table[IDS]), attention.out(mixed), atol=1e-5)


@torch.no_grad()
def test_biases_come_before_positions() -> None:
    attention = made({"qk_bias": True}, positions="rotary").layers[0].attention
    x = torch.randn(2, 9, 32)
    heads = [part.view(2, 9, 4, 8).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=-1)]
    bias = attention.qk_bias.view(2, 4, 1, 8)
    cos, sin = RotaryTurns(8).angles(torch.arange(9))
    query, key = (rotate(part + own, cos, sin) for part, own in zip(heads[:2], bias, strict=True))
    assert torch.allclose(attention(x), attention.out(attended(query, key, heads[2])), atol=1e-5)


def test_gates_and_biases_start_without_effect() -> None:
    torch.manual_seed(0)
    gated = LoopedTransformer(build("gated values"))
    plain = LoopedTransformer(
        build("gated values", attention={"value_embeddings": "added", "key_value_heads": 2, "qk_bias": True})
    )
    plain.load_state_dict(
        {name: tensor for name, tensor in gated.state_dict().items() if "value_gate" not in name},
        strict=False,
    )
    assert torch.equal(gated(IDS), plain(IDS))


@pytest.mark.parametrize("kind", ["added", "gated"])
def test_no_scale_goes_through_value_embeddings(kind: str) -> None:
    """A pre-norm layer's branch is the same for a state of any size, embeddings and gates included."""
    model = made({"value_embeddings": kind}, norm_eps=1e-12)
    layer, rows = model.layers[1], model.value_embeddings(1, IDS)
    hidden = torch.randn(2, 9, 32)
    small, large = (layer(c * hidden, 1, value_embeddings=rows) - c * hidden for c in (1.0, 8.0))
    # The feed-forward sees the sum of state and attention; attention's own part is compared.
    attention = [
        layer.attention(layer.attention_norm(c * hidden), 1, value_embeddings=rows) for c in (1.0, 8.0)
    ]
    assert torch.allclose(*attention, atol=1e-4)
    assert not torch.allclose(small, large, atol=1e-3)


def test_every_loop_and_no_other_token_reads_a_shared_layers_table() -> None:
    model = made({"value_embeddings": "added"})
    sum(state.logits().square().mean() for state in unroll(model, IDS)).backward()
    gradient = model.value_embeddings.tables["1"].weight.grad
    used = torch.zeros(61, dtype=torch.bool)
    used[IDS.flatten()] = True
    assert torch.equal(gradient.abs().sum(dim=1) > 0, used)


def test_tables_are_not_muons() -> None:
    model = made({"value_embeddings": "gated"})
    taken = {id(parameter) for parameter in layer_matrices(model)}
    assert not any(id(table.weight) in taken for table in model.value_embeddings.tables.values())


def test_residual_outputs_start_as_deep_as_the_initialisation_counts() -> None:
    for name, additions in (("scaled", 2 * (1 + 2 * 5)), ("scaled-stack", 2 * (1 + 2))):
        torch.manual_seed(0)
        wide = build("plain", dim=256, prelude=1, loops=5, initialisation=name)
        out = LoopedTransformer(wide).layers[0].attention.out.weight
        assert float(out.detach().std()) == pytest.approx(0.02 / additions**0.5, rel=0.02)
