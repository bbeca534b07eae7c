"""The measured audit: which loops carry a scale that no loss sees. It speaks to the recurrence only.

The package is its own main function: `loopscope.audit(model, input_ids, labels, objective=None)`. In the order of one
audit, which `audit_report` puts together:

    input_checks    what is refused before anything is measured; fp32 copies of weights in half precision
    prepared_batch  what is measured: checked, in fp32 and evaluation mode
    padded_texts    padded batches without their padding: each text as it is alone
    head_readings   cross-entropy per token and its gradient, asked of the head once for the same features
    sameness        what is the same to rounding, and not computed again
    visibility      how much of the loss's gradient at H_k is radial, per loop and loss term
    total_visibility   the same through the rest of the unroll too, one loop back at a time
    model_end       the loop past which a model does not run, and what is said there
    carry           how much of a change of scale survives to the next loop
    verdict         blind, damped, visible or removed, per loop and for the model, and why
    fast_verdict    the verdict and no more, for about three forward passes
    interventions   what a changed scale costs in cross-entropy
    expansion       drift: how scale moves over loops, past the trained depth too
    dynamics        the loop map, linearised; arnoldi: its largest eigenvalue; widened_space: out of a part's products
    side_scales     the same of what goes from loop to loop beside H_k
    declared        what a readout and a carry declare of scale, against what they do
    rounding        the same weights in other number formats, against fp32
    rounding_reference, same_draws   the fp32 run, and the random numbers that every format draws
    number_formats  those formats, and a model's weights in one of them; kept_in_fp32: but for these
    format_at_use   weights that are not there in fp32, rounded as they are used
    rounding_errors, rounding_rate   how far every loop is off, and how fast that changes
    rounding_verdict, rounding_why   what becomes of it, and why
    tokens          how the state's size is spread over tokens and channels
    resting_scale   how firmly a scale is held: by what, and how hard penalties pull
    wanted_weight   the weight of a penalty for a size that is wanted
    patched_model, remedies   what would close a blind spot, tried on the model as it is
    judgement       a verdict with what is said beside it
    audit_report    `audit`: all of it as one record; `judge`: the verdict alone; `…_each`: under several objectives
"""

import sys
from types import ModuleType
from typing import Any

from loopscope.audit.audit_report import audit, audit_each, judge, judge_each
from loopscope.audit.carry import measure_carries
from loopscope.audit.dynamics import measure_dynamics
from loopscope.audit.expansion import measure_expansion
from loopscope.audit.input_checks import check_audit
from loopscope.audit.interventions import final_scale_sweep, radial_clamp, rescale_each_loop
from loopscope.audit.number_formats import FORMATS, check_formats
from loopscope.audit.patched_model import PatchedModel
from loopscope.audit.remedies import try_remedies
from loopscope.audit.resting_scale import measure_resting_scale
from loopscope.audit.rounding import measure_rounding
from loopscope.audit.tokens import token_norms
from loopscope.audit.total_visibility import measure_visibility
from loopscope.audit.verdict import loop_verdicts, model_verdict
from loopscope.audit.visibility import direct_visibility, readout_visibility
from loopscope.audit.wanted_weight import wanted_scale

__all__ = [
    "FORMATS",
    "PatchedModel",
    "audit",
    "audit_each",
    "check_audit",
    "check_formats",
    "direct_visibility",
    "final_scale_sweep",
    "judge",
    "judge_each",
    "loop_verdicts",
    "measure_carries",
    "measure_dynamics",
    "measure_expansion",
    "measure_resting_scale",
    "measure_rounding",
    "measure_visibility",
    "model_verdict",
    "radial_clamp",
    "readout_visibility",
    "rescale_each_loop",
    "token_norms",
    "try_remedies",
    "wanted_scale",
]


class _Callable(ModuleType):
    """A module that can be called, so that `loopscope.audit` is both the folder and the function."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """See `loopscope.audit.audit_report.audit`."""
        from loopscope.audit.audit_report import audit

        return audit(*arguments, **named)


sys.modules[__name__].__class__ = _Callable
