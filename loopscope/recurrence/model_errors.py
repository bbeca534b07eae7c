"""What a stranger's model raises: in one line, and which errors say nothing of the model."""

import torch

OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
"""Errors of the machine: no model is judged by them."""
NOT_FINITE = "is not finite in fp32 (its state, the square of that, or its loss)"
"""What is said of a model whose numbers fp32 does not hold."""
SIGNS = 200
"""Longest part of a stranger's message that is repeated."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, its first 200 signs; its type's name where it says nothing."""
    said = str(error).strip().splitlines()
    return said[0][:SIGNS] if said else type(error).__name__


def in_one_line(error: BaseException) -> str:
    """Return an error's type and the first line of what it says, as Python's own last line of a traceback."""
    name = type(error).__name__
    return name if (said := first_line(error)) == name else f"{name}: {said}"
