"""Audits: which loops carry a scale that no loss sees. They speak to the recurrence only.

The package is its own main function: `loopscope.audit(model, input_ids, labels, objective=None)`.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A module that can be called, so that `loopscope.audit` is both the folder and the function."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """See `loopscope.audit.report.audit`."""
        from loopscope.audit.report import audit

        return audit(*arguments, **named)


sys.modules[__name__].__class__ = _Callable
