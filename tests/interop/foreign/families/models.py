"""Small looped models of others: real code where a package has it, elsewhere structures, and what each gives by itself.

Shared by the tests of families and by `benchmarks.foreign_models`, which prints how Loopscope fares on each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

import loopscope
from loopscope.interop.foreign.families.named import equal_steps
from tests.interop import lookalikes

IDS = torch.arange(24).view(2, 12) * 7 % lookalikes.VOCABULARY
LABELS = (IDS * 3 + 1) % lookalikes.VOCABULARY


def with_setting(path: str) -> Callable[[Any, int], Tensor]:
    """Logits of the module's own forward, set to a depth by an attribute."""

    def own(module: Any, loops: int) -> Tensor:
        owner, _, name = path.rpartition(".")
        held = module if not owner else module.get_submodule(owner) if owner != "config" else module.config
        before = getattr(held, name)
        setattr(held, name, loops)
        try:
            output = module(IDS)
        finally:
            setattr(held, name, before)
        if isinstance(output, dict) and "final_logits" in output:
            return output["final_logits"]
        return getattr(output, "logits", output)

    return own


@dataclass(frozen=True)
class Named:
    """A small model of a family, its own logits at a depth, and the verdict that is right.

    `make` raises ImportError where the package that has it is not installed, or too old.
    """

    make: Callable[[], nn.Module]
    own: Callable[[Any, int], Tensor]
    verdict: str
    open: Callable[[Any], Any] = loopscope.adapt
    on_the_way: bool = True  # whether a long unroll's exits are those of as many loops
    code: str = "structure"  # or the package whose real code it is
    call: str = "adapt(m)"
    depths: Callable[[int], Sequence[int]] = lambda loops: range(1, 2 * loops + 1)  # which its forward runs
    masks: bool = True  # whether rows of a batch may be of several lengths


def dory(**settings: Any) -> nn.Module:
    from transformers import DoryConfig, DoryForCausalLM

    sizes = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "head_dim": 16,
    }
    loops = {"n_input_layers": 1, "n_output_layers": 1, "n_recurrent_loops": 3, "sliding_window": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32}
    return DoryForCausalLM(DoryConfig(**sizes, **loops, **heads, **settings))


def inkling() -> nn.Module:
    from transformers import Inkling2LoopForCausalLM, Inkling2LoopTextConfig

    sizes = {"vocab_size": 48, "unpadded_vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 6}
    heads = {
        f"{kind}{name}": count
        for kind in ("", "swa_")
        for name, count in (("num_attention_heads", 2), ("num_key_value_heads", 1), ("head_dim", 16))
    }
    windows = {"sliding_window_size": 8, "rel_extent": 16, "max_position_embeddings": 32, "d_rel": 4}
    experts = {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2}
    loops = {
        "n_layers_per_attn_res_block": 2,
        "loop_layer_index_start": 2,
        "loop_layer_index_end": 4,
        "loop_num_passes": 3,
        "loop_gate_rank": 4,
    }
    config = Inkling2LoopTextConfig(
        **sizes, **heads, **windows, **experts, **loops, eos_token_id=1, initializer_range=0.3
    )
    module = Inkling2LoopForCausalLM(config)
    with torch.no_grad():  # gates and queries start at zero: nothing would pass through them
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    return module


def albert() -> nn.Module:
    from transformers import AlbertConfig, AlbertForMaskedLM

    sizes = {"vocab_size": 40, "embedding_size": 16, "hidden_size": 32, "intermediate_size": 48}
    return AlbertForMaskedLM(
        AlbertConfig(**sizes, num_hidden_layers=3, num_attention_heads=2, initializer_range=0.3)
    )


def mythos() -> nn.Module:
    main: Any = import_module("open_mythos.main")
    sizes = {"vocab_size": 40, "dim": 32, "n_heads": 4, "n_kv_heads": 2, "max_seq_len": 32}
    parts = {"prelude_layers": 1, "coda_layers": 1, "n_experts": 4, "n_experts_per_tok": 2, "expert_dim": 16}
    module = main.OpenMythos(
        main.MythosConfig(**sizes, **parts, attn_type="gqa", max_loop_iters=4, n_shared_experts=1)
    )
    with torch.no_grad():
        module.recurrent.act.halt.bias.fill_(-1.5)  # so that four loops have a share
    return module


def spiral() -> nn.Module:
    package: Any = import_module("spiral")
    sizes = {"vocab_size": 40, "emb_factor": 16, "d_model": 32, "n_heads": 2, "d_ff": 48, "timestep_dim": 16}
    module = package.build_model(
        package.SpiralConfig(**sizes, mean_iters=4, max_seq_len=32, stability="none")
    )
    with torch.no_grad():  # gates start at zero: the blocks would be the identity
        module.mod.mlp[-1].bias.normal_(std=0.3)
    return module


def at_cycles(module: Any, loops: int) -> Tensor:
    """Logits of a model for puzzles after so many high cycles, of a fresh carry."""
    module.inner.config.H_cycles = loops
    batch = {"inputs": IDS, "labels": IDS, "puzzle_identifiers": torch.zeros_like(IDS[:, 0])}
    return module(module.initial_carry(batch), batch)[1]["logits"]


def wrapped(block: str, **named: Any) -> Callable[[Any], Any]:
    return lambda module: loopscope.wrap(module, block, **named)


def embedding_head(block: str, readout: str, loops: str) -> Callable[[Any], Any]:
    """A head that is a product with the embedding: a function of the features."""
    return lambda module: loopscope.wrap(
        module, block, readout=readout, head=lambda x: x @ module.embed.weight.T, set_loops=loops
    )


CASES = {
    "dory": Named(dory, with_setting("config.n_recurrent_loops"), "removed", code="transformers"),
    "dory, last_loop": Named(
        lambda: dory(recurrent_kv_cache_mode="last_loop"),
        with_setting("config.n_recurrent_loops"),
        "removed",
        code="transformers",
    ),
    "inkling-2 loop": Named(inkling, with_setting("config.loop_num_passes"), "removed", code="transformers"),
    "albert": Named(albert, with_setting("config.num_hidden_layers"), "removed", code="transformers"),
    "nanbeige": Named(lookalikes.NanbeigeForCausalLM, with_setting("config.num_loops"), "removed"),
    "nanbeige, norm skipped": Named(
        lambda: lookalikes.NanbeigeForCausalLM(True), with_setting("config.num_loops"), "blind"
    ),
    "loopcoder": Named(lookalikes.LoopCoderForCausalLM, with_setting("config.loop_num"), "blind"),
    "loopcoder, its cache asked for": Named(
        lambda: lookalikes.LoopCoderForCausalLM(3),
        with_setting("config.loop_num"),
        "blind",
        wrapped("model.layers", set_loops="loop_num", forward_kwargs={"use_cache": True}),
        call='wrap(m, "model.layers")',
    ),
    "openmythos": Named(mythos, lambda m, k: m(IDS, n_loops=k, kv_cache={}), "visible", code="open-mythos"),
    "published, rmsnorm": Named(lookalikes.ReadoutBlindSpot, with_setting("num_loops"), "blind"),
    "published, final-only": Named(
        lambda: lookalikes.ReadoutBlindSpot("final-only"),
        with_setting("num_loops"),
        "visible",
        on_the_way=False,
    ),
    "published, norm between": Named(
        lambda: lookalikes.ReadoutBlindSpot("raw", True), with_setting("num_loops"), "removed"
    ),
    "looplm, post-norm": Named(
        lambda: lookalikes.LoopLM("post-norm"), lambda m, k: m(IDS, num_steps=k).logits[-1], "removed"
    ),
    "looplm, experts": Named(
        lambda: lookalikes.LoopLM("experts"), lambda m, k: m(IDS, num_steps=k).logits[-1], "blind"
    ),
    "looplm, experts of whole blocks": Named(
        lambda: lookalikes.LoopLM("experts of whole blocks"),
        lambda m, k: m(IDS, num_steps=k).logits[-1],
        "blind",
    ),
    "loopformer": Named(
        lookalikes.LoopFormer,
        lambda m, k: m(IDS, targets=IDS, **equal_steps(k))[0],
        "blind",
        on_the_way=False,
    ),
    "looped_nanochat": Named(lookalikes.LoopedNanochat, lambda m, k: m(IDS, num_recur=k)[0], "removed"),
    "elastic": Named(
        lookalikes.ElasticLooped,
        lambda m, k: m(IDS, L=k),
        "blind",
        embedding_head("core", "readout", "L"),
        call='wrap(m, "core", head=...)',
    ),
    "fixed-points, raw": Named(
        lambda: lookalikes.FixedPoint(norm=False),
        lambda m, k: m(IDS, max_iters=k),
        "visible",
        wrapped("f", set_loops="max_iters"),
        call='wrap(m, "f")',
    ),
    "loopedgpt": Named(
        lookalikes.LoopedGPT,
        with_setting("config.n_loops"),
        "removed",
        wrapped("transformer.h", set_loops="n_loops"),
        call='wrap(m, "transformer.h")',
    ),
    "mixture of recursions": Named(
        lookalikes.MixtureOfRecursions,
        with_setting("num_recursions"),
        "blind",
        wrapped("shared_blocks", set_loops="num_recursions"),
        call='wrap(m, "shared_blocks")',
    ),
    "trm": Named(lookalikes.TinyRecursive, at_cycles, "removed", masks=False),
    "hrm for puzzles": Named(
        lambda: lookalikes.TinyRecursive(own_high=True), at_cycles, "removed", masks=False
    ),
    "spiral-lm": Named(
        spiral,
        lambda m, k: m(IDS, n_iters=k),
        "blind",
        wrapped("step", head="emb_out", set_loops="n_iters"),
        code="spiral-lm",
        call='wrap(m, "step", head="emb_out")',
    ),
}
