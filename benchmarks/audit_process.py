"""One build's audit in a process of its own, for `benchmarks.audit --against`, with whichever `loopscope` it finds.

    python -P benchmarks/audit_process.py ROW --weights FILE [--memory]

A line `audit` or `fast` or `plain` or `forward` on its input runs one of that; a line of JSON comes back: seconds and
figures. `plain` is an audit without other number formats. With --memory it runs one audit and says what that took.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROWS = {"44m-2x256": ("published-44m", 2), "44m-8x256": ("published-44m", 8), "llama-1x128": ("llama", 1)}
"""What is audited, and sequences of the batch. Also `SIZE-NxS` for a size of the catalogue, for trying this out."""


class LoopedLlama(nn.Module):
    """A stack of a Llama's layers, run several times, with random weights; tied head."""

    def __init__(
        self, loops: int = 2, layers: int = 24, dim: int = 896, heads: int = 14, vocabulary: int = 151936
    ) -> None:
        from transformers import LlamaConfig
        from transformers.models.llama import modeling_llama as llama

        super().__init__()
        config = LlamaConfig(
            hidden_size=dim,
            intermediate_size=4864 * dim // 896,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=2,
            vocab_size=vocabulary,
            attn_implementation="sdpa",
        )
        self.loops = loops
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(llama.LlamaDecoderLayer(config, index) for index in range(layers))
        self.norm = llama.LlamaRMSNorm(config.hidden_size)
        self.rotary = llama.LlamaRotaryEmbedding(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
        self.lm_head.weight = self.embed_tokens.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits [batch seq vocab]."""
        hidden = self.embed_tokens(input_ids)
        places = self.rotary(hidden, torch.arange(input_ids.shape[1])[None])
        for _ in range(self.loops):
            for layer in self.layers:
                hidden = layer(hidden, position_embeddings=places)
        logits: Tensor = self.lm_head(self.norm(hidden))
        return logits


def built(row: str, weights: str | None) -> tuple[Any, Tensor, Tensor]:
    """The model, and a batch; weights from a file where one is given, so that both builds have the same."""
    import loopscope

    size, batch = (
        ROWS[row] if row in ROWS else (row.rsplit("-", 1)[0], int(row.rsplit("-", 1)[1].split("x")[0]))
    )
    torch.manual_seed(0)
    if size == "llama":
        module = LoopedLlama().eval()
        model, vocabulary, sequence = loopscope.wrap(module, "layers"), 151936, 128
    else:
        try:
            from loopscope.config import recipe
            from loopscope.model import LoopedTransformer
        except ImportError:  # the names of earlier builds
            from loopscope.recipes import recipe

            from loopscope.model.looped import LoopedTransformer
        config = recipe(size, "dense/rmsnorm").model
        model = module = LoopedTransformer(config)
        vocabulary, sequence = config.vocabulary, config.sequence
    if weights:
        module.load_state_dict(torch.load(weights, mmap=True))
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(vocabulary, (batch, sequence + 1), generator=generator)
    return model, tokens[:, :-1], tokens[:, 1:]


def main() -> None:
    """Answer line by line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("row")
    parser.add_argument("--weights")
    parser.add_argument("--save")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", choices=["audit", "plain", "fast"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, ids, labels = built(options.row, options.weights)
    if options.save:
        torch.save(getattr(model, "module", model).state_dict(), options.save)
        return
    if options.memory:
        here = str(Path(__file__).parent)
        sys.path.append(here)  # behind all else: `benchmarks` is not on this process's path
        from high_water import high_water, peak_of

        added = peak_of(lambda: run(options.memory, model, ids, labels))
        peak = high_water()
        print(json.dumps({"peak": peak, "before": peak - added}))
        return
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        report = run(line.strip(), model, ids, labels)
        seconds = time.perf_counter() - began
        figures = dataclasses.asdict(report) if report is not None else None
        print(json.dumps({"seconds": seconds, "report": figures}), flush=True)


def run(what: str, model: Any, ids: Tensor, labels: Tensor) -> Any:
    """One audit, or one forward pass to the trained depth with the last exit's logits."""
    import loopscope

    if what == "forward":
        model.eval()
        with torch.no_grad():
            for state in loopscope.unroll(model, ids):
                last = state
            last.logits()
        return None
    if what == "fast":
        from loopscope.audit import judge

        return judge(model, ids, labels)
    if what == "plain":
        from loopscope import results

        if hasattr(results, "ROUNDED_BY_DEFAULT"):  # a build that tries other formats unless told
            return loopscope.audit(model, ids, labels, rounding="none")
    return loopscope.audit(model, ids, labels)


if __name__ == "__main__":
    main()
