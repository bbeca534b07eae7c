"""Initialisation of the weights. Which one is used decides how fast a blind scale grows (docs/results)."""

import torch
from torch import nn

from loopscope.model.config import ModelConfig
from loopscope.model.layer import Layer, initial_beta

STANDARD_DEVIATION = 0.02


def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Set the weights in place, drawing from torch's global generator.

    `published` leaves PyTorch's defaults: embeddings N(0, 1), matrices uniform within 1/sqrt(fan-in).
    `scaled` draws every matrix and embedding from N(0, 0.02) and divides what feeds the residual stream
    (attention's `out`, the feed-forward's `down`) by sqrt(2·depth), the number of residual additions of
    the unrolled model (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019). `scaled-stack`
    counts the shared layers once, as code that takes GPT-2's start over does (LoopFormer's, for one).

    With either, DeepNorm and DeepLoop draw their layers as their papers say, the gates of a modulated layer start at
    zero, and those of value embeddings at zero too, which is a factor of one.
    """
    if config.initialisation != "published":
        _scaled(model, config)
    for module in model.modules():
        if isinstance(module, Layer):
            if config.block.scaling in ("deepnorm", "deeploop"):
                _deep_norm(module, initial_beta(config))
            if module.attention.value_gate is not None:
                nn.init.zeros_(module.attention.value_gate.weight)
            if module.modulation is not None:
                nn.init.zeros_(module.modulation.weight)
                nn.init.zeros_(module.modulation.bias)


def _scaled(model: nn.Module, config: ModelConfig) -> None:
    once = config.prelude + config.layers + config.coda
    residual = (
        STANDARD_DEVIATION / (2 * (once if config.initialisation == "scaled-stack" else config.depth)) ** 0.5
    )
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        deviation = STANDARD_DEVIATION
        if name.endswith(("attention.out", "feed_forward.down")):
            deviation = residual
        elif name == "injection.mix":
            # The state goes through this matrix at every loop: at 0.02 next to nothing of it would arrive.
            # Huginn's start (arXiv 2502.05171), after Takase et al. (arXiv 2312.16903).
            deviation = (2 / (5 * config.dim)) ** 0.5
        nn.init.normal_(module.weight, std=deviation)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def _deep_norm(layer: Layer, beta: float) -> None:
    """Xavier's normal draw, times β for values, outputs and feed-forward (Wang et al., arXiv 2203.00555).

    Queries, keys and values share a matrix here; each keeps the spread it would have in one of its own.
    """
    attention = layer.attention
    inputs = attention.qkv.in_features
    head = attention.out.in_features // attention.heads
    shared = attention.key_value_heads * head
    sizes = [attention.heads * head, shared, shared]
    for part, gain in zip(attention.qkv.weight.split(sizes), (1.0, 1.0, beta), strict=True):
        part.normal_(std=gain * (2 / (inputs + len(part))) ** 0.5)
    for module in (attention.out, *layer.feed_forward.children()):
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight, gain=beta)
