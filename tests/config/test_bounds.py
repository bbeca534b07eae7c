"""Every number of a config has bounds: what is beyond them is refused by name, before anything is built or written."""

import math
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel

from loopscope.config.run_config import RunConfig

ELSEWHERE = {"training.betas", "training.depth.spread"}
"""Bounded by their section, in words of their own: `test_run_config`, `test_depth_config`."""
NO_END = {"training.clip"}
"""Where infinity is a value: it cuts nothing."""


def numbers(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every setting that is a number or several, with its kind."""
    for name, info in section.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from numbers(annotation, f"{prefix}{name}.")
            continue
        parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
        parts = tuple(get_args(part)[0] if get_origin(part) is tuple else part for part in parts)
        if kinds := {int, float} & set(parts):
            yield f"{prefix}{name}", info, kinds.pop()


ALL = list(numbers(RunConfig))


def test_there_are_some() -> None:
    assert len(ALL) > 60


@pytest.mark.parametrize(("name", "info", "kind"), ALL, ids=[name for name, *_ in ALL])
def test_a_number_has_bounds(name: str, info: Any, kind: type) -> None:
    if name in ELSEWHERE:
        return
    several = get_origin(next((p for p in get_args(info.annotation) if get_origin(p)), None)) is tuple
    if (
        several
    ):  # loop weights: `check_loop_weights` bounds their sum; bands: `_check_positions` in their order
        assert name.endswith(("loop_weights", "rotary_bands"))
        return
    low = [mark for mark in info.metadata if isinstance(mark, annotated_types.Ge | annotated_types.Gt)]
    high = [mark for mark in info.metadata if isinstance(mark, annotated_types.Le | annotated_types.Lt)]
    assert low, name
    assert high or name in NO_END, name


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_float_takes_what_is_not_finite(value: float) -> None:
    for name, _, kind in ALL:
        if kind is float and name not in NO_END and not name.endswith(("loop_weights", "betas")):
            section, _, leaf = name.rpartition(".")
            model: Any = RunConfig
            for part in section.split("."):
                model = model.model_fields[part].annotation
            with pytest.raises(ValueError, match=leaf):
                model.model_validate({leaf: value})
