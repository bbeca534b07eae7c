"""Small random models of the classes of repositories that no package index has: import paths and small configs.

Only what builds them is here; the code itself is read from a folder of checkouts, one a repository, `OWNER+NAME`. Each
class is imported with its own repository first on the path, and what was imported is forgotten afterwards: several
have a package called `models`.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import loopscope
from loopscope.interop.foreign.families.named import equal_steps
from tests.interop.foreign.families.models import IDS, Named, at_cycles, wrapped
from tests.interop.lookalikes import VOCABULARY

Importer = Callable[[str], Any]
OLDER = "4.56"
"""The transformers that some were written for."""


@dataclass(frozen=True)
class Repository:
    """A model of a repository's own class.

    Attributes:
        folder: the checkout's, `OWNER+NAME`.
        variant: which of its models.
        build: makes the module, from what imports a module of the repository.
        own: logits of its own forward at a depth.
        verdict: the right one, under dense cross-entropy.
        open: what makes a looped model of it, and `call`, how that is written.
        depths: those at which its forward runs and gives logits, of the trained depth.
        on_the_way: whether a long unroll's exits are those of as many loops.
        masks: whether a row may be shorter than the others.
        root: the folder on the path, in the checkout.
        bare: packages whose `__init__` is left out: it imports what the model does not use.
        transformers: the release that it was written for, where today's does not do.
    """

    folder: str
    variant: str
    build: Callable[[Importer], nn.Module]
    own: Callable[[Any, int], Tensor]
    verdict: str
    open: Callable[[Any], Any] = loopscope.adapt
    call: str = "adapt(m)"
    depths: Callable[[int], Sequence[int]] = lambda loops: range(1, 2 * loops + 1)
    on_the_way: bool = True
    masks: bool = True
    root: str = "."
    bare: tuple[str, ...] = ()
    transformers: str | None = None

    @property
    def name(self) -> str:
        """What its row is called."""
        return (
            f"{self.folder.replace('+', '/')}, {self.variant}"
            if self.variant
            else self.folder.replace("+", "/")
        )

    def case(self, checkout: Path) -> Named:
        """Return it as the models of other tables are, with its code in `checkout`."""

        def make() -> nn.Module:
            with imports_from(checkout / self.root, self.bare) as importer:
                return self.build(importer)

        return Named(
            make,
            self.own,
            self.verdict,
            self.open,
            self.on_the_way,
            "repository",
            self.call,
            self.depths,
            self.masks,
        )


@contextmanager
def imports_from(root: Path, bare: Sequence[str] = ()) -> Iterator[Importer]:
    """Import from a folder for a while; what was imported of it is forgotten, and lives on in what was made."""
    before = set(sys.modules)
    sys.path.insert(0, str(root))
    try:
        for name in bare:
            package = ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")))]
            sys.modules[name] = package
        importlib.invalidate_caches()
        yield importlib.import_module
    finally:
        sys.path.remove(str(root))
        new = {name: sys.modules[name] for name in set(sys.modules) - before}
        places = {
            name: [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", ()))]
            for name, module in new.items()
        }
        for name in new:
            if any(place.startswith(str(root)) for place in places[name]):
                del sys.modules[name]


@torch.no_grad()
def stirred(module: nn.Module) -> nn.Module:
    """Draw weights that start at zero: nothing would pass through them."""
    for parameter in module.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1)
    return module


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


def targets(ids: Tensor) -> dict[str, Tensor]:
    """Without these, some forwards give the last position alone."""
    return {"targets": ids}


def at_steps(name: str) -> Callable[[Any, int], Tensor]:
    """Logits of a forward that takes its depth under this name, and targets to give all logits."""
    return lambda module, loops: module(IDS, targets=IDS, **{name: loops})[0]


def at_attribute(name: str) -> Callable[[Any, int], Tensor]:
    """Last logits of the published class, set to a depth."""

    def own(module: Any, loops: int) -> Tensor:
        setattr(module, name, loops)
        return module(IDS)["final_logits"]

    return own


def huginn_at(module: Any, loops: int) -> Tensor:
    """Logits from a start state of zero."""
    start = torch.zeros(*IDS.shape, 32, dtype=module.lm_head.weight.dtype)
    return module(IDS, input_states=start, num_steps=torch.tensor([loops, 0])).logits


def pair_at(module: Any, loops: int) -> Tensor:
    """Logits of a training class, from a start state of zero."""
    module.initialize_state = lambda embedded: torch.zeros_like(embedded)
    return module(IDS, return_logits=True, num_steps_pair=torch.tensor([loops, 0]))["logits"]


def ouro_at(module: Any, loops: int) -> Tensor:
    """Logits after so many loops."""
    module.model.total_ut_steps = module.config.total_ut_steps = loops
    return module(IDS, use_cache=False).logits


def trained(loops: int) -> Sequence[int]:
    """No depth can be set."""
    return (loops,)


def no_deeper(loops: int) -> Sequence[int]:
    """Not beyond the trained depth."""
    return range(1, loops + 1)


def from_two(loops: int) -> Sequence[int]:
    """One loop alone does not run."""
    return range(2, 2 * loops + 1)


def recursed(**more: Any) -> dict[str, Any]:
    """How fixed-points is opened."""
    call = 'wrap(m, "transformer.rec_block", set_loops="rec_steps", loops=4, forward_kwargs=...)'
    opened = wrapped("transformer.rec_block", set_loops="rec_steps", loops=4, forward_kwargs=targets)
    return {"open": opened, "call": call, "depths": from_two, **more}


_LOOPLM, _FORMER, _SPOT = "rkstgr+LoopLM", "armenjeddi+loopformer", "Rituraj003+readout-blind-spot"
_TINY, _POINTS, _PARCAE = (
    "SamsungSAILMontreal+TinyRecursiveModels",
    "jaisidhsingh+fixed-points",
    "sandyresearch+parcae",
)
_NANO, _MIXTURE, _HUGINN = (
    "kschwethelm+looped_nanochat",
    "mingo-wu1+mixture_of_recursions",
    "seal-rg+recurrent-pretraining",
)


def looplm_at(module: Any, loops: int) -> Tensor:
    """Logits after so many steps."""
    return module(IDS, num_steps=loops).logits[-1]


def spot(
    variant: str, verdict: str, depths: Any = None, on_the_way: bool = True, **settings: Any
) -> Repository:
    """A variant of the published class."""
    found = {"depths": depths} if depths else {}
    return Repository(
        _SPOT,
        variant,
        blind_spot(**settings),
        at_attribute("num_loops"),
        verdict,
        on_the_way=on_the_way,
        root="src",
        **found,
    )


def tiny(variant: str, file: str, name: str, **settings: Any) -> Repository:
    """A variant of TinyRecursiveModels."""
    return Repository(_TINY, variant, reasoning(file, name, **settings), at_cycles, "removed", masks=False)


REPOSITORIES = (
    Repository(_LOOPLM, "standard", looplm(), looplm_at, "blind"),
    Repository(_LOOPLM, "post-norm", looplm(postnorm=True), looplm_at, "removed"),
    Repository(_LOOPLM, "experts", looplm(experts=True), looplm_at, "blind"),
    Repository(
        _FORMER,
        "loopformer",
        loopformer("loopformer"),
        lambda m, k: m(IDS, targets=IDS, **equal_steps(k))[0],
        "blind",
        on_the_way=False,
    ),
    *(
        Repository(
            _FORMER,
            name,
            loopformer(name),
            at_steps("steps"),
            "blind",
            wrapped("transformer.h", set_loops="steps", forward_kwargs=targets),
            'wrap(m, "transformer.h", set_loops="steps", forward_kwargs=...)',
        )
        for name in ("tmlt", "base_loop")
    ),
    Repository(_NANO, "", nanochat(), lambda m, k: m(IDS, num_recur=k)[0], "removed"),
    Repository(_NANO, "passthrough", nanochat("passthrough"), lambda m, k: m(IDS, num_recur=k)[0], "removed"),
    spot("rmsnorm", "blind"),
    spot("final-only", "visible", on_the_way=False, decode_norm_final_only=True),
    spot("norm between", "removed", inter_loop_norm=True),
    spot("raw", "visible", use_decode_norm=False),
    spot("alpha", "visible", decode_norm_type="alpha_readout"),
    spot(
        "alpha per loop",
        "visible",
        no_deeper,
        decode_norm_type="alpha_readout",
        per_loop_alpha=True,
    ),
    spot("damped", "damped", use_spectral_damping=True),
    Repository(
        _MIXTURE,
        "token choice",
        mixture(),
        lambda m, k: m(IDS)[0],
        "blind",
        wrapped("shared_blocks"),
        'wrap(m, "shared_blocks")',
        trained,
    ),
    tiny("trm", "trm", "TinyRecursiveReasoningModel_ACTV1"),
    tiny(
        "trm, mixer over tokens", "trm", "TinyRecursiveReasoningModel_ACTV1", mlp_t=True, pos_encodings="none"
    ),
    tiny("trm, states in bf16", "trm", "TinyRecursiveReasoningModel_ACTV1", forward_dtype="bfloat16"),
    tiny("hrm", "hrm", "HierarchicalReasoningModel_ACTV1", H_layers=2),
    Repository(_HUGINN, "", huginn, huginn_at, "removed", bare=("recpre",), transformers=OLDER),
    Repository(_PARCAE, "diagonal", parcae(), pair_at, "visible"),
    Repository(
        _PARCAE, "linear, softcap", parcae(injection_type="linear", logit_softcap=15.0), pair_at, "visible"
    ),
    Repository("LoopedLMs+ouro_rl", "", ouro, ouro_at, "removed", transformers=OLDER),
    Repository(
        "zapabob+elastic-looped-transformer",
        "",
        elastic,
        lambda m, k: m(IDS, L=k).logits,
        "blind",
        open_elastic,
        'wrap(m, "composite", readout="final_norm", head=..., set_loops="L", loops=4)',
        root="src",
    ),
    Repository(_POINTS, "pre-norm", fixed_points(), at_steps("rec_steps"), "visible", **recursed()),
    Repository(
        _POINTS, "post-norm", fixed_points(ln_type="post"), at_steps("rec_steps"), "removed", **recursed()
    ),
    Repository(
        _POINTS,
        "norm behind",
        fixed_points(only_rec_out_norm=True),
        at_steps("rec_steps"),
        "blind",
        **recursed(),
    ),
)
"""Every model that is built, in the order of the table."""
