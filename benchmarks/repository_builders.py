"""What builds a small random model of a repository's own classes, from what imports its modules."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import loopscope
from benchmarks.repository_code import Importer, stirred
from tests.interop.foreign.families.models import IDS
from tests.interop.lookalikes import VOCABULARY


def looplm(postnorm: bool = False, experts: bool = False) -> Callable[[Importer], nn.Module]:
    """rkstgr's LoopLM: standard, post-norm, whole blocks as experts."""

    def build(importer: Importer) -> nn.Module:
        sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 2}
        config = importer("src.model.config").LoopLMConfig(
            **sizes, intermediate_size=48, max_seq_len=32, max_recurrent_steps=3
        )
        kind = importer("src.model.looplm").LoopLM
        return kind(config, use_postnorm=postnorm, use_moe_recurrence=experts)

    return build


def loopformer(name: str) -> Callable[[Importer], nn.Module]:
    """LoopFormer and its two baselines."""

    def build(importer: Importer) -> nn.Module:
        found = importer(f"models.{name}")
        sizes = {"block_size": 32, "vocab_size": VOCABULARY, "n_layer": 2, "n_head": 2, "n_embd": 32}
        return stirred(found.GPT(found.GPTConfig(**sizes, intermediate_dim=48)))

    return build


def nanochat(injection: str = "inject_init_prelude") -> Callable[[Importer], nn.Module]:
    """looped_nanochat."""

    def build(importer: Importer) -> nn.Module:
        found = importer("nanochat.gpt")
        sizes = {"sequence_len": 32, "vocab_size": VOCABULARY, "n_head": 2, "n_kv_head": 1, "n_embd": 32}
        layers = {"n_prelude": 1, "n_recur_block": 2, "n_coda": 1}
        module = found.GPT(found.GPTConfig(**sizes, **layers, input_injection=injection))
        module.init_weights()
        return stirred(module)

    return build


def blind_spot(**settings: Any) -> Callable[[Importer], nn.Module]:
    """The published class itself."""

    def build(importer: Importer) -> nn.Module:
        sizes = {"vocab_size": VOCABULARY, "d_model": 32, "num_heads": 2, "num_layers": 2, "ff_multiplier": 2}
        return importer("models.ar_looplm").AutoregressiveLoopLM(
            **{
                **sizes,
                "dropout": 0.0,
                "max_seq_len": 32,
                "num_loops": 4,
                "inter_loop_norm": False,
                **settings,
            }
        )

    return build


def mixture(router: str = "token_choice") -> Callable[[Importer], nn.Module]:
    """mixture_of_recursions."""

    def build(importer: Importer) -> nn.Module:
        found = importer("mor_model")
        sizes = {"vocab_size": VOCABULARY, "d_model": 32, "num_layers": 6, "n_head": 2, "n_kv_head": 1}
        more = {
            "d_head": 16,
            "d_inter": 48,
            "max_seq_len": 32,
            "num_recursion_steps": 3,
            "router_type": router,
        }
        return found.MoRModel(found.MoRConfig(**sizes, **more))

    return build


def reasoning(file: str, name: str, **settings: Any) -> Callable[[Importer], nn.Module]:
    """A model of TinyRecursiveModels: its own, or HRM as it lies there."""

    def build(importer: Importer) -> nn.Module:
        kind = getattr(importer(f"models.recursive_reasoning.{file}"), name)
        sizes = {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "expansion": 2.0,
            "num_heads": 2,
            "seq_len": IDS.shape[1],
        }
        cycles = {"H_cycles": 3, "L_cycles": 2, "H_layers": 1, "L_layers": 2, "pos_encodings": "rope"}
        puzzles = {"batch_size": 2, "num_puzzle_identifiers": 4, "puzzle_emb_ndim": 32}
        halting = {"halt_max_steps": 4, "halt_exploration_prob": 0.1, "forward_dtype": "float32"}
        module = kind({**sizes, **cycles, **puzzles, **halting, **settings})
        with torch.no_grad():
            module.inner.puzzle_emb.weights.normal_()
        return stirred(module)

    return build


def huginn(importer: Importer) -> nn.Module:
    """Huginn as its checkpoints have it."""
    config = importer("recpre.raven_config_minimal").RavenConfig(
        **{"n_embd": 32, "n_heads": 2, "block_size": 32, "vocab_size": VOCABULARY, "intermediate_size": 48},
        **{"n_layers": 3, "n_layers_in_prelude": 1, "n_layers_in_recurrent_block": 2, "n_layers_in_coda": 1},
        mean_recurrence=3,
        torch_dtype="float32",
    )
    return importer("recpre.raven_modeling_minimal").RavenForCausalLM(config)


def parcae(**settings: Any) -> Callable[[Importer], nn.Module]:
    """Parcae."""

    def build(importer: Importer) -> nn.Module:
        sizes = {
            "n_embd": 64,
            "recurrent_embedding_dimension": 64,
            "num_attention_heads": 2,
            "block_size": 32,
        }
        layers = {"n_layers_in_prelude": 1, "n_layers_in_recurrent_block": 2, "n_layers_in_coda": 1}
        vocabulary = {"vocab_size": VOCABULARY, "padded_vocab_size": VOCABULARY}
        kinds = {"norm_class_name": "RMSNorm", "nonlin_name": "ReLU2", "init_strategy": "scaled"}
        config = importer("parcae_lm.models.parcae.config").ParcaeConfig(
            **{**sizes, **layers, **vocabulary, **kinds, "mean_recurrence": 4, "mean_backprop_depth": 2},
            **{
                "intermediate_size": 96,
                "recurrent_intermediation_embedding_dimension": 96,
                "prelude_norm": True,
            },
            **{"qk_norm": True, "tie_embeddings": True, **settings},
        )
        return stirred(config.construct_model())

    return build


def ouro(importer: Importer) -> nn.Module:
    """Ouro, as the repository that trains it further has it."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = importer("ouro_rl.modeling.configuration_ouro").OuroConfig(
        **sizes, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, total_ut_steps=4
    )
    return importer("ouro_rl.modeling.modeling_ouro").OuroForCausalLM(config)


def elastic(importer: Importer) -> nn.Module:
    """The elastic looped transformer."""
    config = importer("elt_lm.config").ModelConfig(
        vocab_size=VOCABULARY, d_model=32, n_unique_layers=2, n_heads=2, d_ff=48, max_seq_len=32, L_max=4
    )
    return importer("elt_lm.model").ELTLanguageModel(config)


def open_elastic(module: Any) -> Any:
    """Open it as the docs say."""
    return loopscope.wrap(
        module,
        "composite",
        readout="final_norm",
        head=lambda x: x @ module.tok_embed.weight.T,
        set_loops="L",
        loops=4,
    )


def fixed_points(**settings: Any) -> Callable[[Importer], nn.Module]:
    """fixed-points' recursive GPT-2."""

    def build(importer: Importer) -> nn.Module:
        found = importer("nanogpt.recursive_model")
        sizes = {"block_size": 32, "vocab_size": VOCABULARY, "n_embd": 32, "n_head": 2}
        return found.RecursiveGPT2(found.RecursiveGPT2Config(**sizes, **settings))

    return build
