"""The families of looped language models, as changes of a base config: structure, objective, depth per step.

A family is a condition (`loopscope train --condition huginn`): its architecture and training as its paper describes
them, at any size; sizes of its own are named in `FAMILY_SIZES`. `huginn:dense/raw` is its architecture under another
condition's loss and readout, at one fixed depth: a point of the grid. Each says what it leaves out of its paper.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loopscope.model.config.variants import CARRIES, READOUTS
from loopscope.objectives.placement_config import PLACEMENTS

Change = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """One family. Nothing here names a width or a number of loops: sizes do."""

    source: str
    departs: str  # what is not as published, or not known
    model: Change
    objective: Change
    depth: Change = field(default_factory=dict)
    parts: Change = field(default_factory=dict)  # prelude and coda at sizes that are not the family's own
    sizes: tuple[str, ...] = ("published-44m", "published-129m")
    initialisation: str = "scaled"  # under its own name; under a condition (`huginn:dense/raw`) the size's


FAMILIES: Mapping[str, Family] = {
    "universal": Family(
        source="Dehghani et al., Universal Transformers (arXiv 1807.03819), in the plain pre-norm form of Sharma "
        "and Vu (arXiv 2606.24898)",
        departs="no adaptive halting, no loop embedding: the plain recurrence",
        model={"readout": {"kind": "rmsnorm"}},
        objective={"placement": "terminal"},
    ),
    "ouro": Family(
        source="Zhu et al., Scaling Latent Reasoning via Looped Language Models (arXiv 2510.25741)",
        departs="stage I; stage II is objective.placement gate-improvement with training.weights",
        model={
            "readout": {"kind": "rmsnorm"},
            "carry": ["readout-norm"],
            "block": {"placement": "sandwich"},
            "positions": "rotary",
            "tied": False,
            "exit_gate": True,
            "gate_reads": "readout",
        },
        objective={"placement": "exit-weighted", "entropy_weight": 0.1},
        sizes=("ouro-1.4b", "ouro-2.6b"),
    ),
    "huginn": Family(
        source="Geiping et al., Scaling up Test-Time Compute with Latent Reasoning (arXiv 2502.05171)",
        departs="weights start as initialisation says",
        model={
            "readout": {"kind": "rmsnorm"},
            "coda_norm": True,
            "start": "random",
            "injection": {"kind": "concat"},
            "block": {"placement": "sandwich-sum"},
            "positions": "rotary",
            "attention": {"rotary_base": 50_000.0, "qk_bias": True},
            "embedding_gain": "sqrt-dim",
        },
        objective={"placement": "terminal"},
        depth={"distribution": "lognormal-poisson", "backprop": 8},
        parts={"prelude": 1, "coda": 1},
        sizes=("huginn-3.5b",),
    ),
    "parcae": Family(
        source="Prairie et al., Parcae: Scaling Laws For Stable Looped Language Models (arXiv 2604.12946)",
        departs="without the scaling and capping of logits of its code; whether that gates its value embeddings, and "
        "how they start, is not known here: added plainly, started as initialisation says",
        model={
            "readout": {"kind": "rmsnorm"},
            "carry": ["decay"],
            "decay": 0.447,  # sqrt(1/5): with a start of variance 2/5 as its code has it
            "start": "random",
            "injection": {"kind": "write", "norm": True},
            "block": {"activation": "relu2"},
            "positions": "rotary",
            "attention": {"rotary_base": 50_000.0, "qk_norm": True, "value_embeddings": "added"},
        },
        objective={"placement": "terminal"},
        depth={"distribution": "lognormal-poisson", "per_sequence": True, "backprop": 4},
        parts={"prelude": 1, "coda": 1, "coda_matrix": True},
        sizes=("parcae-140m",),
    ),
    "loopformer": Family(
        source="Jeddi et al., LoopFormer: Elastic-Depth Looped Transformers (ICLR 2026)",
        departs="steps are of equal size; its code also draws unequal ones for the short way, for which an unroll "
        "would have to carry a time for every loop",
        model={
            "readout": {"kind": "rmsnorm"},
            "loop_embedding": "modulation",
            "block": {"activation": "gelu"},
        },
        objective={"placement": "terminal", "shortcut": {"weight": 0.1, "loss_weight": 0.1}},
        initialisation="scaled-stack",
        sizes=("loopformer-3x8",),
    ),
    "deeploop": Family(
        source="DeepLoop (arXiv 2607.13491), on DeepNorm of Wang et al. (arXiv 2203.00555)",
        departs="its own sizes are not known here: those of the plain model",
        model={
            "readout": {"kind": "raw"},  # the last norm of the stack is the one the head reads
            "block": {"placement": "post", "scaling": "deeploop", "norm": "layernorm"},
        },
        objective={"placement": "terminal"},
    ),
    "hybrid": Family(
        source="this project's, for want of a published one: attention loops, each feed-forward runs in loop 1",
        departs="nothing to depart from",
        model={"readout": {"kind": "rmsnorm"}, "looped": "attention"},
        objective={"placement": "terminal"},
    ),
}
"""Architectures of the literature by name, each with what it changes."""


def family_change(name: str, size: str, condition: Change | None = None) -> dict[str, Any]:
    """Return what a family changes in a size; with a condition, that one's loss and readout on its architecture.

    A readout that keeps the scale has no norm to share, so `coda_norm` and a `readout-norm` carry go: the carry
    becomes an RMSNorm of its own, the coda reads the raw state. A gate that no loss trains goes too.
    """
    family = FAMILIES[name]
    model: dict[str, Any] = {"carry": [], **family.model}
    if size not in family.sizes or size.startswith("published"):
        model |= family.parts
    if condition is None:
        model["initialisation"] = family.initialisation
        change: dict[str, Any] = {"model": model, "objective": dict(family.objective)}
        if family.depth:
            change["training"] = {"depth": dict(family.depth)}
        return change
    model["readout"] = dict(condition["model"]["readout"])
    if not READOUTS.declaration(model["readout"]["kind"]).norm:
        model["coda_norm"] = False
        model["carry"] = [
            "rmsnorm" if CARRIES.declaration(step).readout_norm else step for step in model["carry"]
        ]
    model["carry"] = [
        *model["carry"],
        *(step for step in condition["model"]["carry"] if step not in model["carry"]),
    ]
    if PLACEMENTS.declaration(condition["objective"]["placement"]).gate == "unused":
        model |= {"exit_gate": False, "gate_reads": "hidden"}
    return {"model": model, "objective": dict(condition["objective"])}


def _size(
    dim: int,
    layers: int,
    heads: int,
    loops: int,
    vocabulary: int,
    sequence: int,
    width: int,
    model: Change | None = None,
) -> Callable[[], Change]:
    """A published shape, on WikiText-103 with a byte-level BPE of its vocabulary; schedules are the reader's to set."""
    return lambda: {
        "model": {
            "dim": dim,
            "layers": layers,
            "heads": heads,
            "loops": loops,
            "vocabulary": vocabulary,
            "sequence": sequence,
            "block": {"width": width},
            **(model or {}),
        },
        "data": {"corpus": "wikitext-103", "tokenizer": {"kind": "bpe", "vocabulary": vocabulary}},
        "training": {
            "steps": None,
            "epochs": 1,
            "batch": 32,
            "learning_rate": 3e-4,
            "schedule": "cosine",
            "warmup": 500,
            "weight_decay": 0.1,
            "betas": [0.9, 0.95],
            "precision": "bf16",
            "gradient_checkpointing": True,
            "log_every": 50,
            "evaluate_every": 1000,
            "evaluate_windows": 512,
            "checkpoint_every": 1000,
        },
    }


FAMILY_SIZES: Mapping[str, Callable[[], Change]] = {
    "ouro-1.4b": _size(2048, 24, 16, 4, 49_152, 4096, 5632, {"positions": "rotary", "tied": False}),
    "ouro-2.6b": _size(2048, 48, 16, 4, 49_152, 4096, 5632, {"positions": "rotary", "tied": False}),
    "huginn-3.5b": _size(
        5280, 4, 55, 32, 65_536, 4096, 17_920, {"positions": "rotary", "prelude": 2, "coda": 2}
    ),
    # 69M parameters and 75M of value embeddings: what its paper calls 140M.
    "parcae-140m": _size(
        768,
        2,
        6,
        8,
        32_768,
        2048,
        3072,
        {"positions": "rotary", "prelude": 2, "coda": 2, "coda_matrix": True},
    ),
    "loopformer-3x8": _size(2048, 3, 32, 8, 50_304, 1024, 5120),
}
