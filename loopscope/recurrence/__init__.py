"""The waist of Loopscope: what a looped language model is, and the one generator that unrolls it.

A looped model is five things: embed, core, carry, readout, head. Fill them (`AbstractLoopedLM`) and every
audit, curve, exit rule and report works on your model. Training, evaluation and foreign models all go
through `unroll`. Stopping early is a `break`.

    token_checks   what is refused before anything runs: ids, masks, numbers of loops
    looped_model   `AbstractLoopedLM`, `LoopContext`, `LoopState`, and the loop that runs them
    padded_rows    a looped model over texts of different lengths: each gets what it gets alone
    driver         `unroll`, and what goes on from one of its states
    scale_reading  whether a readout passes on the state's size
    model_errors   what a stranger's model raises, in one line
"""

from loopscope.recurrence.driver import (
    carried,
    check_model_and_ids,
    narrow,
    next_beside,
    next_hidden,
    unroll,
    unroll_from,
    vocabulary_size,
)
from loopscope.recurrence.looped_model import (
    AbstractLoopedLM,
    CarryStep,
    LoopContext,
    LoopState,
)
from loopscope.recurrence.padded_rows import PaddedRows, texts_by_length
from loopscope.recurrence.token_checks import check_attention_mask, check_input_ids, check_loops

__all__ = [
    "AbstractLoopedLM",
    "CarryStep",
    "LoopContext",
    "LoopState",
    "PaddedRows",
    "carried",
    "check_attention_mask",
    "check_input_ids",
    "check_loops",
    "check_model_and_ids",
    "narrow",
    "next_beside",
    "next_hidden",
    "texts_by_length",
    "unroll",
    "unroll_from",
    "vocabulary_size",
]
