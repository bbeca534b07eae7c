"""What a `TrainerLoss` refuses: models, objectives, arguments, labels and ids that it would train wrongly."""

from typing import Any

from torch import Tensor

from loopscope.objectives.objective import Objective
from loopscope.recurrence import AbstractLoopedLM

_READ = {"input_ids", "attention_mask", "position_ids", "labels", "num_items_in_batch", "num_loops"}
_OF_NO_EFFECT = {
    *("use_cache", "return_dict", "cache_position", "logits_to_keep", "output_attentions"),
    *("output_hidden_states", "output_loop_hidden_states"),
}
"""Arguments of the exported forward that a loss does not depend on."""


def exported_in(model: Any) -> Any:
    """Return the exported model that a Trainer's model is, or that PEFT has put adapters into.

    Raises:
        ValueError: it is none, or adapters are where merging them would change two weights.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if isinstance(getattr(inner, "model", None), AbstractLoopedLM) and hasattr(inner, "_call_cache"):
        _check_adapters(inner)
        return inner
    name = type(inner).__name__
    if getattr(getattr(inner, "config", None), "model_type", None) == "loopscope":
        raise ValueError(
            f"this {name} is of the export's own code; load it without trust_remote_code: after `import loopscope`, "
            "AutoModelForCausalLM.from_pretrained(folder) builds the class that can be trained on objectives"
        )
    raise ValueError(
        f"model is a {name}, not an exported model of Loopscope: write one with `loopscope export RUN DIR`, and load "
        "it with AutoModelForCausalLM.from_pretrained(DIR) after `import loopscope`"
    )


def _check_adapters(exported: Any) -> None:
    """Refuse what PEFT would merge wrongly without a word: it knows tied heads by the names that others give them."""
    for name, module in (
        ("token_embedding", exported.get_input_embeddings()),
        ("unembedding", exported.get_output_embeddings()),
    ):
        if exported.config.tie_word_embeddings and hasattr(module, "base_layer"):
            raise ValueError(
                f"PEFT has put an adapter into {name}, whose weight is the embedding's and the head's: merging would "
                'change both. Leave it out: target_modules="all-linear", or names of matrices in the layers'
            )


def check_trainable(objective: Any, looped: Any) -> None:
    """Raise ValueError for an objective that a Trainer cannot train this model on."""
    if not isinstance(objective, Objective):
        raise ValueError(
            f"objective is {objective!r}; pass an Objective or an ObjectiveConfig of loopscope.objectives, or its word "
            "('dense', 'terminal+norm_penalty=0.01')"
        )
    gate = objective.placement.declaration.gate
    if gate == "alone":
        raise ValueError(
            f"placement {objective.placement.name!r} trains the gate alone, without dropout and with all else held "
            "fixed, which a Trainer does not: train that stage with `loopscope train`"
        )
    if gate == "weighs" and looped.gate is None:
        raise ValueError(
            f"placement {objective.placement.name!r} needs a model with an exit gate, and this one has none; export a "
            "run that was trained with model.exit_gate: true, or take dense or terminal"
        )
    if looped.depth_conditioned and any(extra.name == "shortcut" for extra in objective.extras):
        raise ValueError(
            "the term shortcut runs this depth-conditioned model once more, without the batch's padding mask; train it "
            "with `loopscope train`"
        )


def arguments_read(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a forward that a loss reads.

    Raises:
        ValueError: one that changes what is computed and is not read, or no ids.
    """
    unread = sorted(set(given) - _READ - _OF_NO_EFFECT)
    if unread:
        raise ValueError(
            f"the model was given {', '.join(unread)} in training, which a TrainerLoss does not read; give input_ids, "
            "attention_mask, position_ids and labels (soft prompts give inputs_embeds: use LoRA instead)"
        )
    if "input_ids" not in given:
        raise ValueError("the batches have no input_ids")
    return {name: value for name, value in given.items() if name in _READ}


def text_mask(attention_mask: Tensor | None, counted: Tensor) -> Tensor | None:
    """Return the mask of the tokens that are read; None where none of them is padding.

    Raises:
        ValueError: a label counts at padding.
    """
    if attention_mask is None or attention_mask.ndim != 2:
        return None if attention_mask is None else attention_mask[..., :-1, :-1]
    text = attention_mask[:, :-1].bool()
    if bool(text.all()):
        return None
    lost = counted & ~text
    if bool(lost.any()):
        row, place = lost.nonzero()[0].tolist()
        raise ValueError(
            f"row {row} has a label that counts behind padding (place {place + 1}): pad on the right "
            "(tokenizer.padding_side = 'right'), and give padding the label -100"
        )
    return text


def name_unknown(vocabulary: int, cause: Exception, **tensors: Tensor) -> None:
    """Raise ValueError for ids that the vocabulary has not, where a CPU has met one: torch does not say whose."""
    for name, ids in tensors.items():
        outside = ids[(ids < 0) | (ids >= vocabulary)] if ids.device.type == "cpu" else ids[:0]
        if outside.numel():
            raise ValueError(
                f"{name} have {int(outside[0])}, and the model knows ids from 0 to {vocabulary - 1}: the tokenizer is "
                "another model's, or was extended without model.resize_token_embeddings"
            ) from cause
