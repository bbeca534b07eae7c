"""What a run must at least have in memory, from its config alone, compared with the machine before anything is written.

Only what is certain counts: weights, their gradients and the optimizer's moments in single precision, a batch, one
hidden state. More comes on top and hangs on kernels and chunks, so a run that passes here may still not fit; one that
does not can never start.
"""

from loopscope.config.run_config import RunConfig
from loopscope.objectives.placement_config import placement_of
from loopscope.plan.parameters import count_parameters

NUMBER = 4
"""Bytes of a number in single precision."""


def least_training_bytes(config: RunConfig) -> int:
    """Return bytes that a run holds at every step: weights, gradients, moments, a batch and one hidden state of it."""
    model, training = config.model, config.training
    weights = sum(count_parameters(model).values()) * NUMBER
    tokens = training.batch * model.sequence
    batch = (
        2 * 8 * tokens + tokens // training.accumulation * model.dim * 2
    )  # ids and labels; bf16 at the least
    if placement_of(config.objective).gate_only:  # all but the gate is held still
        return weights + batch
    moments = 1 if training.optimizer == "muon" else 2  # of Muon's matrices one, which are nearly all
    return weights * (2 + moments) + batch


def check_memory(config: RunConfig, available: int | None, where: str = "this machine") -> None:
    """Refuse a run whose weights, gradients and moments alone are more than there is.

    Args:
        available: bytes; None where that is not known, and then nothing is refused.

    Raises:
        ValueError: how much it needs, how much there is, and which settings it hangs on.
    """
    needed = least_training_bytes(config)
    if available is None or needed <= available:
        return
    model = config.model
    raise ValueError(
        f"a step of this run takes {_gigabytes(needed)} at the very least (weights, gradients, moments, one batch), "
        f"and {where} has {_gigabytes(available)}. Lower model.dim ({model.dim}), model.layers ({model.layers}), "
        f"model.vocabulary ({model.vocabulary}), or training.batch ({config.training.batch})"
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.3g} GB" if count < 1e12 else f"{count / 1e9:,.0f} GB"
