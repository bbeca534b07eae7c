"""Exports of tiny models, and the classes of an export's own code, as one who has no loopscope loads them."""

import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from loopscope.interop.huggingface.export.assembly import CONFIG_MODULE, MODEL_MODULE, exported_sources
from loopscope.model.looped import LoopedTransformer


@cache
def exported_code() -> tuple[Any, Any]:
    """The modules of an export: config and model."""
    package = Path(mkdtemp()) / "exported_code_of_loopscope"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name, text in exported_sources().items():
        (package / name).write_text(text)
    sys.path.insert(0, str(package.parent))
    try:
        return tuple(import_module(f"{package.name}.{name}") for name in (CONFIG_MODULE, MODEL_MODULE))  # type: ignore[return-value]
    finally:
        sys.path.remove(str(package.parent))


def standalone(model: LoopedTransformer, **settings: Any) -> Any:
    """A model as its export's own code builds it, with the same weights."""
    config, code = exported_code()
    made = code.LoopscopeForCausalLM(
        config.LoopscopeConfig(
            looped=model.config.model_dump(mode="json"), tie_word_embeddings=model.config.tied, **settings
        )
    )
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if model.config.tied:
        state["model.unembedding.weight"] = state["model.token_embedding.weight"]
    made.load_state_dict(state)
    return made.eval()
