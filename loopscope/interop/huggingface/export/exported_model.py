"""An exported model: Loopscope's own layers behind the interface of transformers.

The layers are those of `loopscope.model`, not a copy: installed, this class builds them; in an export `assembly` writes
their source beside this one's. What is added here is what transformers asks of a model: caches with a slot for each
(loop, layer), masks and positions of padded and packed texts, its attention functions, its checkpointing, its outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from loopscope.interop.huggingface.export.auto_classes import register_model
from loopscope.interop.huggingface.export.exported_attention import ChosenAttention
from loopscope.interop.huggingface.export.exported_cache import CallCache
from loopscope.interop.huggingface.export.exported_config import LoopscopeConfig
from loopscope.model.attention import CausalSelfAttention
from loopscope.model.config import ModelConfig
from loopscope.model.loop_embedding import SinusoidalLoop, StepModulation
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence.looped_model import LoopContext, run_loops

CACHE_FIELD = "cache" if hasattr(CausalLMOutputWithPast, "cache") else "past_key_values"
"""What outputs call a cache: renamed in transformers 5.24."""

_PASSED_OVER = {"cache_position", "num_items_in_batch", "shift_labels"}
"""Further arguments that transformers gives: positions that are counted here anyway, and those of the loss."""


@dataclass
class LoopscopeOutput(CausalLMOutputWithPast):
    """Logits of the last loop that was run, and what was asked for beside.

    Attributes:
        hidden_states: the state that loop 1 starts from, then H_k of every loop k: entry k is loop k.
        loop_hidden_states: H_k of every loop k, before anything done between loops: entry k - 1 is loop k.
    """

    loop_hidden_states: tuple[torch.Tensor, ...] | None = None


class LoopscopeForCausalLM(PreTrainedModel, GenerationMixin):
    """A looped language model. `num_loops`, of `forward` and `generate`, says how many loops run: any from 1 up.

    Attributes:
        model: the looped transformer: embed, core, carry, readout, head.
    """

    config_class = LoopscopeConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Layer"]  # noqa: RUF012 (as transformers declares it)
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: LoopscopeConfig) -> None:
        super().__init__(config)
        looped = {**config.looped, "vocabulary": config.vocab_size, "tied": True}
        self._text_loops: int | None = None  # of the text that is being generated
        self.model = LoopedTransformer(ModelConfig(**looped))
        # The head is a matrix of its own in any case, so that whoever asks a model for it finds one.
        self.model.unembedding = nn.Linear(looped["dim"], config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.model.unembedding.weight = self.model.token_embedding.weight
        self._tied_weights_keys = tied_names(self)
        for module in self.model.modules():
            if isinstance(module, CausalSelfAttention):
                module.attend = ChosenAttention(module, config)
        for parameter in self.parameters():
            if not parameter.is_meta:  # drawn as the settings say: transformers has nothing to draw again
                parameter._is_hf_initialized = True  # type: ignore[attr-defined]
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        num_loops: int | None = None,
        output_hidden_states: bool | None = None,
        output_loop_hidden_states: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run `num_loops` loops and return a `LoopscopeOutput`.

        Args:
            attention_mask: [batch, all tokens], 0 at padding, on either side.
            position_ids: None: counted from each text's first token. Positions that start anew in a row, without a
                mask and a cache, are texts of their own: none sees another.
            cache: keys and values of the tokens before, with a slot for each layer of each loop.
            past_key_values: the same, by the name that it has before transformers 5.24.
            labels: [batch, seq], the tokens themselves: they are shifted here. -100 is left out.
            num_loops: from 1 up, also beyond the trained depth; None: `config.num_loops`.
            logits_to_keep: how many of the last tokens, or which, have logits; 0: all.

        Raises:
            ValueError: no loop, an unknown argument, more tokens than the model has positions for.
        """
        settings: Any = self.model.config
        loops = _checked_loops(self.config.num_loops if num_loops is None else num_loops)
        _refuse_unknown(kwargs)
        cache = past_key_values if cache is None else cache
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if input_ids is not None:
            ids: Tensor = input_ids
        else:
            assert inputs_embeds is not None
            ids = torch.zeros(inputs_embeds.shape[:2], dtype=torch.long, device=inputs_embeds.device)
        if input_ids is None and self.model.value_embeddings is not None:
            raise ValueError(
                "this model looks value embeddings up by token: give input_ids, not inputs_embeds"
            )
        if self._caches(use_cache) and cache is None:
            cache = DynamicCache()
        call = self._call_cache(settings, loops, cache, ids, attention_mask, position_ids)
        vectors = self.model.token_embedding(ids) if inputs_embeds is None else inputs_embeds
        embedded = self.model.embed_vectors(vectors, ids, call)
        context = LoopContext(ids, embedded, loops, call)
        wanted = self._wants(output_loop_hidden_states, "output_loop_hidden_states")
        layered = self._wants(output_hidden_states, "output_hidden_states")
        states = []
        for state in run_loops(self.model, embedded, 1, context):
            if wanted or layered:
                states.append(state.hidden)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.model.unembedding(state.features()[:, kept])
        loss = None
        if labels is not None:
            kwargs.pop("cache_position", None)
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        output = LoopscopeOutput(
            loss=loss,
            logits=logits,
            hidden_states=(embedded, *states) if layered else None,
            loop_hidden_states=tuple(states) if wanted else None,
            **{CACHE_FIELD: cache},
        )
        return output if self._wants(return_dict, "return_dict") else output.to_tuple()

    def _call_cache(
        self,
        settings: Any,
        loops: int,
        cache: Any,
        ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
    ) -> CallCache | None:
        """Return what the layers ask for tokens before and masks; None where there is nothing but the call's tokens."""
        if cache is None and attention_mask is None and position_ids is None:
            return None
        call = CallCache(
            settings, loops, cache, (ids.shape[0], ids.shape[1]), ids.device, attention_mask, position_ids
        )
        limit = self.model.positions_limit
        if limit is not None and int(call.positions.max()) >= limit:
            raise ValueError(
                f"a text has {int(call.positions.max()) + 1} tokens in all, and this model has {limit} learned "
                "positions: shorten the prompt, or lower max_new_tokens"
            )
        return call

    def _caches(self, use_cache: bool | None) -> bool:
        """Whether a cache is to be made: not where layers run again in the backward pass, which would fill it twice."""
        again = self.model.gradient_checkpointing != "none" and torch.is_grad_enabled()
        return self._wants(use_cache, "use_cache") and not again

    def _wants(self, given: bool | None, setting: str) -> bool:
        return bool(getattr(self.config, setting, False) if given is None else given)

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: Any = None,
        *args: Any,
        num_loops: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Do what transformers does, at `num_loops` loops; None: as a generation config says, else `config.num_loops`.

        Raises:
            ValueError: no loop.
        """
        for config in (generation_config, self.generation_config):
            num_loops = getattr(config, "num_loops", None) if num_loops is None else num_loops
        before = self._text_loops
        # Not passed on: transformers keeps an argument to itself whose name a generation config has.
        self._text_loops = None if num_loops is None else _checked_loops(num_loops)
        try:
            return super().generate(inputs, generation_config, *args, **kwargs)
        finally:
            self._text_loops = before

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        """Do what transformers does, and name the loops that `generate` was asked for."""
        prepared = super().prepare_inputs_for_generation(*args, **kwargs)
        return prepared if self._text_loops is None else {**prepared, "num_loops": self._text_loops}

    def get_input_embeddings(self) -> Any:
        return self.model.token_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.token_embedding = value

    def get_output_embeddings(self) -> Any:
        return self.model.unembedding

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.model.unembedding = value

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Do what transformers does, and give value embeddings as many rows."""
        resized = super().resize_token_embeddings(*args, **kwargs)
        if self.model.value_embeddings is not None:
            for name, table in self.model.value_embeddings.tables.items():
                self.model.value_embeddings.tables[name] = self._get_resized_embeddings(
                    table, resized.num_embeddings
                )
        return resized

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Do what transformers does, and write the code with which the folder loads without loopscope."""
        from loopscope.interop.huggingface.export.assembly import AUTO_MAP, exported_sources

        self.config.auto_map = dict(AUTO_MAP)
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        for name, text in exported_sources().items():
            (Path(save_directory) / name).write_text(text, encoding="utf-8")
        super().save_pretrained(save_directory, *args, **kwargs)

    @staticmethod
    def create_masks_for_generate(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        """Leave the mask as it is, for any cache: what each token sees is worked out in `CallCache`."""
        return attention_mask

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("every_n_layers", 1) != 1:
            raise ValueError(
                f"every_n_layers is {kwargs['every_n_layers']}; this model's layers all run again"
            )
        # Never re-entrant: a shared layer runs once a loop, and DDP takes its gradient for ready after the first.
        self.model.gradient_checkpointing = "layer" if enable else "none"

    @property
    def is_activation_checkpointing(self) -> bool:
        return bool(self.model.gradient_checkpointing != "none")

    is_gradient_checkpointing = is_activation_checkpointing

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, SinusoidalLoop | StepModulation):  # no file has these
            with torch.no_grad():
                module.frequencies.copy_(module.made_frequencies())


def as_exported(
    model: LoopedTransformer,
    loops: int | None = None,
    trained: Mapping[str, Any] | None = None,
    token_ids: Mapping[str, int | None] | None = None,
) -> LoopscopeForCausalLM:
    """Return a model behind transformers' interface: copies of its weights, and a head that is tied where its own is.

    Args:
        loops, trained, token_ids: as `write_export` takes them.
    """
    head, embedding = model.unembedding, model.token_embedding.weight
    tied = head is None or head.weight is embedding
    ids: dict[str, Any] = dict(token_ids or {})
    config = LoopscopeConfig(
        looped=model.config.model_dump(mode="json"),
        num_loops=_checked_loops(model.loops if loops is None else loops),
        trained=dict(trained or {}),
        tie_word_embeddings=tied,
        dtype=str(embedding.dtype).removeprefix("torch."),
        **ids,
    )
    exported = LoopscopeForCausalLM(config)
    nn.Module.to(exported, embedding.dtype)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if tied:
        state["model.unembedding.weight"] = state["model.token_embedding.weight"]
    exported.load_state_dict(state)
    exported.generation_config = GenerationConfig(**ids)
    exported.eval()  # type: ignore[no-untyped-call]
    return exported


def tied_names(module: nn.Module) -> dict[str, str]:
    """Return the names that share another's tensor: {name: the name that it is saved under}."""
    first: dict[int, str] = {}
    tied = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        known = first.setdefault(id(parameter), name)
        if known != name:
            tied[name] = known
    return tied


def _checked_loops(loops: Any) -> int:
    if isinstance(loops, bool) or not isinstance(loops, int) or loops < 1:
        raise ValueError(
            f"num_loops is {loops!r}; it must be a whole number from 1 up, also beyond the trained depth"
        )
    return loops


def _refuse_unknown(given: dict[str, Any]) -> None:
    if given.pop("output_attentions", None):
        raise ValueError(
            "output_attentions is on; this model does not return attention weights: leave it out"
        )
    unknown = sorted(name for name, value in given.items() if name not in _PASSED_OVER and value is not None)
    if unknown:
        raise ValueError(
            f"forward was given {', '.join(unknown)}, which this model does not know; leave it out"
        )


register_model()
