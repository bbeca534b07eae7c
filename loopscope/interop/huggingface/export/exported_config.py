"""The config of an exported model: Loopscope's own settings under `looped`, and what transformers asks for.

`looped` builds the model. The other names are made of it, for tools that read a config; one that contradicts it is
refused. Three may be changed: `vocab_size` (resize_token_embeddings does), `num_loops`, and `tie_word_embeddings`.

This file is part of every export (see `assembly`): it imports transformers and the standard library alone.
"""

from typing import Any

from transformers import PretrainedConfig

MODEL_TYPE = "loopscope"


class LoopscopeConfig(PretrainedConfig):
    """Settings of an exported looped model.

    Attributes:
        looped: the `model` section of a Loopscope config.
        num_loops: how many loops run where no other number is asked for; the trained depth by default.
        vocab_size: rows of the embedding.
        num_hidden_layers: calls of a layer at `num_loops`, each with its own slot of a cache: prelude and coda once,
            the shared layers once a loop. The stack has `looped["layers"]` layers.
        output_loop_hidden_states: whether forward returns every loop's state.
        trained: what the run was that the weights come from, as far as it is known.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ["cache", "past_key_values"]  # noqa: RUF012 (Trainer adds a list to it)

    def __init__(
        self,
        looped: dict[str, Any] | None = None,
        vocab_size: int | None = None,
        num_loops: int | None = None,
        use_cache: bool = True,
        output_loop_hidden_states: bool = False,
        trained: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Raises:
            ValueError: a name of transformers whose value is not what `looped` says.
        """
        # transformers builds a config without arguments to see what differs from it: one loop of one channel.
        looped = dict(
            looped or {"dim": 1, "layers": 1, "heads": 1, "loops": 1, "vocabulary": 2, "sequence": 1}
        )
        self.looped = looped
        self.vocab_size = looped["vocabulary"] if vocab_size is None else vocab_size
        self.num_loops = looped["loops"] if num_loops is None else num_loops
        self.use_cache = use_cache
        self.output_loop_hidden_states = output_loop_hidden_states
        self.trained = trained or {}
        for name, value in _named_by_transformers(looped).items():
            given = kwargs.pop(name, value)
            if given != value:
                raise ValueError(
                    f"{name} is {given} in this config, and {value} by its `looped` section, which builds the model; "
                    f"change `looped`, and leave {name} out"
                )
            setattr(self, name, value)
        kwargs.pop("num_hidden_layers", None)  # follows num_loops
        kwargs.setdefault("tie_word_embeddings", looped.get("tied", True))
        super().__init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        """Calls of a layer at `num_loops`: the slots of a cache."""
        return cache_slots(self.looped, self.num_loops)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole config, with `num_hidden_layers`, for tools that read the file."""
        return {**super().to_dict(), "num_hidden_layers": self.num_hidden_layers}


def cache_slots(looped: dict[str, Any], loops: int) -> int:
    """Return how many layers are called, and so how many slots a cache has, in a run of so many loops."""
    return int(looped.get("prelude", 0) + looped.get("coda", 0) + looped.get("layers", 1) * loops)


def _named_by_transformers(looped: dict[str, Any]) -> dict[str, Any]:
    """What of the settings has a name in transformers, and its value."""
    attention, block = looped.get("attention") or {}, looped.get("block") or {}
    dim, heads = looped["dim"], looped["heads"]
    learned = looped.get("positions", "learned") == "learned"
    return {
        "hidden_size": dim,
        "num_attention_heads": heads,
        "num_key_value_heads": attention.get("key_value_heads") or heads,
        "head_dim": attention.get("head_dim") or dim // heads,
        "intermediate_size": block.get("width") or looped.get("feed_forward", 4) * dim,
        # None: positions have no end. What it was trained on is looped["sequence"].
        "max_position_embeddings": looped["sequence"] if learned else None,
    }
