"""Every architecture setting against a loop written by hand, in plain tensor code."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loopscope.model.config import ModelConfig
from loopscope.model.layer import Layer
from loopscope.recurrence import unroll
from tests.model.fixtures import IDS, VARIANTS, live_model


def norm(module: nn.Module, x: Tensor) -> Tensor:
    """RMSNorm and LayerNorm by torch's own functions."""
    weight = module.weight
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x, x.shape[-1:], weight, module.bias, module.eps)
    return F.rms_norm(x, x.shape[-1:], weight, module.eps)


def layer_by_hand(
    layer: Layer,
    x: Tensor,
    loop: int,
    condition: Tensor | None,
    config: ModelConfig,
    values: Tensor | None = None,
) -> Tensor:
    """What `Layer` computes, from its two branches and the four formulas of its docstring."""
    gates = [1.0, 1.0]
    gains = [0.0, 0.0]
    if condition is not None:
        gate_a, gate_f, gain_a, gain_f = layer.modulation(condition).chunk(4)
        gates, gains = [gate_a, gate_f], [gain_a, gain_f]
    parts = [
        (layer.attention, layer.attention_norm, layer.attention_norm_after),
        (layer.feed_forward, layer.feed_forward_norm, layer.feed_forward_norm_after),
    ]
    if config.looped == "attention" and loop > 1:
        parts = parts[:1]
    for place, (branch, before, after) in enumerate(parts):

        def f(y: Tensor, branch: nn.Module = branch, place: int = place) -> Tensor:
            given = {} if values is None or branch is layer.feed_forward else {"value_embeddings": values}
            return gates[place] * branch(y * (1 + gains[place]), loop, **given)

        g = layer.gain
        match config.block.placement:
            case "pre":
                x = x + g * f(norm(before, x))
            case "sandwich":
                x = x + g * norm(after, f(norm(before, x)))
            case "sandwich-sum":
                x = norm(after, x + g * f(norm(before, x)))
            case "post":
                x = norm(before, layer.alpha * x + g * f(x))
    return x


@pytest.mark.parametrize("loops", [1, 3, 5])
@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_unroll_equals_a_loop_written_by_hand(name: str, loops: int) -> None:
    model = live_model(name)
    config = model.config
    entry = model.token_embedding(IDS)
    if config.embedding_gain == "sqrt-dim":
        entry = entry * 32**0.5
    if config.positions == "learned":
        entry = entry + model.position_embedding.weight[:9]
    count = config.prelude + config.layers + config.coda
    valued = range((count - 1) % 2, count, 2) if config.attention.value_embeddings != "none" else ()
    tables = {place: model.value_embeddings.tables[str(place)].weight for place in valued}
    rows = [tables[place][IDS] if place in tables else None for place in range(count)]
    for place, layer in enumerate(model.prelude):
        entry = layer_by_hand(layer, entry, 1, None, config, rows[place])
    if config.injection.norm:
        entry = norm(model.entry_norm, entry)
    hidden = {"embedding": entry, "zero": torch.zeros_like(entry)}.get(config.start)
    if hidden is None:
        noise = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))[:9]
        hidden = (0.4**0.5 * noise.clamp(-3, 3)).expand(2, 9, 32)
    if "decay" in config.carry:
        decay = model.carries["decay"]
        step = F.softplus(decay.raw_step)
        share = torch.exp(-step * torch.exp(decay.log_rate))
        hidden = hidden * share
    for state in unroll(model, IDS, loops):
        k = state.loop
        match config.injection.kind:
            case "add":
                hidden = hidden + entry
            case "gated":
                gate = torch.sigmoid(model.injection.gate(torch.cat([hidden, entry], dim=-1)))
                hidden = hidden + gate * entry
            case "concat":
                hidden = F.linear(torch.cat([hidden, entry], dim=-1), model.injection.mix.weight)
            case "write":
                hidden = hidden + step * F.linear(entry, model.injection.write)
        condition = None
        if config.loop_embedding == "learned":
            hidden = hidden + model.loop_embedding.table.weight[min(k, 3) - 1]
        elif config.loop_embedding == "sinusoidal":
            angle = k * 10_000.0 ** -(torch.arange(0, 32, 2) / 32)
            hidden = hidden + torch.cat([angle.sin(), angle.cos()])
        elif config.loop_embedding == "modulation":
            condition = model.loop_embedding(k, loops)
        for place, layer in enumerate(model.layers, start=config.prelude):
            hidden = layer_by_hand(layer, hidden, k, condition, config, rows[place])
        assert torch.equal(state.hidden, hidden), f"loop {k}"
        read = norm(model.reading.norm, hidden) if config.coda_norm else hidden
        if config.coda_matrix:
            read = F.linear(read, model.coda_matrix)
        for layer, values in zip(model.coda, rows[count - config.coda :], strict=True):
            read = layer_by_hand(layer, read, 1, None, config, values)
        head = model.token_embedding.weight if config.tied else model.unembedding.weight
        assert torch.equal(state.logits(), model.reading(read, k, loops) @ head.T)
        for carry in config.carry:
            if carry == "rmsnorm":
                hidden = norm(model.carries[carry].norm, hidden)
            elif carry == "readout-norm":
                hidden = norm(model.reading.norm, hidden)
            else:
                hidden = hidden * share
