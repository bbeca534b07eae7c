"""From a path and a prompt to a logit lens: what every exit of the model says after every token."""

from dataclasses import replace
from pathlib import Path

import torch

from loopscope.evaluation.lens.exit_guesses import logit_lens
from loopscope.evaluation.lens.model_lens import lens
from loopscope.interop.working_depth import check_depth
from loopscope.jobs.generate import encode, tokenizer_of
from loopscope.jobs.opened import OpenedModel, open_model, parameter_count
from loopscope.results import provenance
from loopscope.results.logit_lens import LogitLens

MOST_TOKENS = 1024
"""Of a prompt: a page has a row for every token."""


def lens_prompt(path: str | Path, prompt: str, loops: int | None = None, top: int = 3) -> LogitLens:
    """Return what every exit of a model says after every token of a prompt.

    Args:
        path: run folder, model folder, published file or folder of transformers.
        loops: how deep; None: the trained depth.
        top: likeliest tokens to keep per token and loop.

    Raises:
        ValueError: no model there, an empty prompt, one longer than the model's positions or `MOST_TOKENS`, a
            depth that the model cannot run at; before anything is measured.
    """
    opened = open_model(path)
    tokenizer = tokenizer_of(opened)
    ids = encode(tokenizer, prompt)
    _check_length(opened, len(ids))
    if loops is not None:
        check_depth(opened.model, loops)
    seen = lens(opened.model, torch.tensor([ids]), loops)
    made = logit_lens(seen, tokenizer.decode, opened.name, prompt, parameter_count(opened.model), top)
    return replace(made, provenance=provenance("cpu", torch.get_num_threads()))


def _check_length(opened: OpenedModel, count: int) -> None:
    config = getattr(getattr(opened.model, "module", None), "config", None)
    theirs = getattr(config, "max_position_embeddings", None)
    limits = [
        limit for limit in (opened.model.positions_limit, theirs) if isinstance(limit, int) and limit > 0
    ]
    if limits and count > min(limits):
        raise ValueError(
            f"the prompt has {count} tokens, and this model has {min(limits)} positions: shorten it"
        )
    if count > MOST_TOKENS:
        raise ValueError(
            f"the prompt has {count:,} tokens; a lens has a row for each, at most {MOST_TOKENS:,}: shorten it"
        )
