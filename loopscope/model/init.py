"""Initialisation of the weights. Which one is used decides how fast a blind scale grows (docs/results)."""

from torch import nn

from loopscope.model.config import ModelConfig

STANDARD_DEVIATION = 0.02


def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Set the weights in place, drawing from torch's global generator.

    `published` leaves PyTorch's defaults: embeddings N(0, 1), matrices uniform within 1/sqrt(fan-in).
    `scaled` draws every matrix and embedding from N(0, 0.02) and divides what feeds the residual stream
    (attention's `out`, the SwiGLU's `down`) by sqrt(2·layers·loops), the number of residual additions of
    the unrolled model (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019).
    """
    if config.initialisation == "published":
        return
    residual = STANDARD_DEVIATION / (2 * config.layers * config.loops) ** 0.5
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        ends_branch = name.endswith(("attention.out", "feed_forward.down"))
        nn.init.normal_(module.weight, std=residual if ends_branch else STANDARD_DEVIATION)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
