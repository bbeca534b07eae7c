"""What the suite's checks of types and shapes refuse: what jaxtyping's own decorator does, case by case."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import make_dataclass
from functools import partial
from typing import Any

import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics import scale
from tests import shape_checks

A, B = torch.zeros(2, 3), torch.zeros(3, 4)


def product(
    one: Float[Tensor, "rows inner"], other: Float[Tensor, "inner columns"]
) -> Float[Tensor, "rows columns"]:
    return one @ other if float(one.sum()) == 0 else other


def optional(value: Int[Tensor, " n"] | None, named: dict[str, Float[Tensor, "n n"]] | None = None) -> int:
    return 1


def grown(value: Float[Tensor, " n"]) -> Float[Tensor, "n+1"]:
    return torch.zeros(len(value) + int(value.sum()))


def plain(count: int, *words: str, flag: bool = False) -> str:
    return "".join(words) * count if not flag else None  # type: ignore[return-value]


def stream(value: Float[Tensor, " n"]) -> Iterator[Float[Tensor, " n"]]:
    yield value


def pair() -> type:
    """A record of its own every time: what checks it changes it."""
    return make_dataclass("Pair", [(name, Float[Tensor, " n"]) for name in ("one", "other")])


CASES: dict[str, tuple[Any, Callable[[Any], Any], bool]] = {
    "sizes that agree": (product, lambda f: f(A, B), True),
    "an axis of two sizes": (product, lambda f: f(A, A), False),
    "a result of another size": (product, lambda f: f(A + 1, B), False),
    "another dtype": (product, lambda f: f(A, B.long()), False),
    "another number of axes": (product, lambda f: f(A, B[0]), False),
    "no tensor": (product, lambda f: f(A.tolist(), B), False),
    "by name": (product, lambda f: f(other=B, one=A), True),
    "by name, two sizes": (product, lambda f: f(other=A, one=A), False),
    "optional, absent": (optional, lambda f: f(None), True),
    "optional, wrong": (optional, lambda f: f(A), False),
    "within a container": (optional, lambda f: f(None, {"a": A}), False),
    "computed": (grown, lambda f: f(torch.tensor([0.0, 1.0])), True),
    "computed, wrong": (grown, lambda f: f(torch.tensor([2.0, 1.0])), False),
    "plain types": (plain, lambda f: f(2, "a", "b"), True),
    "a plain type, wrong": (plain, lambda f: f("2", "a"), False),
    "one of many words": (plain, lambda f: f(2, 3), False),
    "a plain result, wrong": (plain, lambda f: f(2, flag=True), False),
    "a generator": (stream, lambda f: next(f(A[0])), True),
    "a generator's argument": (stream, lambda f: next(f(A)), False),
    "a record": (pair, lambda f: f(A[0], A[1]), True),
    "a record of two sizes": (pair, lambda f: f(A[0], B[0]), False),
}


REFUSALS = "hint|Type-check"
"""Words of beartype's errors, and of jaxtyping's."""


@pytest.mark.parametrize("name", CASES)
def test_what_is_refused_is_what_jaxtyping_refuses(name: str) -> None:
    subject, call, fits = CASES[name]
    for decorate in (partial(shape_checks.jaxtyped, typechecker=beartype), shape_checks.checked):
        function = decorate(pair() if subject is pair else subject)
        with nullcontext() if fits else pytest.raises(Exception, match=REFUSALS):
            call(function)


def test_calls_do_not_see_each_others_sizes() -> None:
    check = shape_checks.checked(product)
    assert check(A, B).shape == (2, 4)
    assert check(B, torch.zeros(4, 2)).shape == (3, 2)
    with pytest.raises(Exception, match=REFUSALS):
        check(A, A)
    assert check(A, B).shape == (2, 4)


def test_the_package_is_checked() -> None:
    with pytest.raises(Exception, match="dtype"):
        scale(torch.zeros(2, 3, 4, dtype=torch.int64))


def test_a_function_is_checked_anew_in_every_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all calls of one test are, which is what it saves: the first two here, then the fourth and the eighth."""
    monkeypatch.setattr(shape_checks, "CALLS", 2)

    @shape_checks.checked
    def same(x: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
        return x

    wrong = torch.zeros(2, 2)
    for _ in range(2):
        with pytest.raises(BeartypeCallHintParamViolation):
            same(wrong)
    assert same(wrong) is wrong
    with pytest.raises(BeartypeCallHintParamViolation):
        same(wrong)
    assert [same(wrong) is wrong for _ in range(5, 8)] == [True] * 3
    with pytest.raises(BeartypeCallHintParamViolation):
        same(wrong)
    shape_checks.begin_test()
    with pytest.raises(BeartypeCallHintParamViolation):
        same(wrong)


def test_a_function_within_another_is_checked_at_its_first_definitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every call of the outer one makes a new inner one, and wrapping it costs more than most calls."""
    monkeypatch.setattr(shape_checks, "DEFINITIONS", 2)

    def define() -> Callable[..., Any]:
        @shape_checks.checked
        def same(x: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
            return x

        return same

    wrong = torch.zeros(2, 2)
    for _ in range(2):
        with pytest.raises(BeartypeCallHintParamViolation):
            define()(wrong)
    assert define()(wrong) is wrong
    shape_checks.begin_test()
    with pytest.raises(BeartypeCallHintParamViolation):
        define()(wrong)


def test_properties_and_records_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_checks, "CALLS", 1)

    class Held:
        @shape_checks.checked
        @property
        def words(self) -> int:
            return "none"  # type: ignore[return-value]

        @shape_checks.checked
        @classmethod
        def size(cls, x: Float[Tensor, " dim"]) -> int:
            return len(x)

    with pytest.raises(Exception, match=REFUSALS):
        _ = Held().words
    with pytest.raises(BeartypeCallHintParamViolation):
        Held.size(A)
    record = shape_checks.checked(pair())
    for _ in range(2):
        with pytest.raises(Exception, match=REFUSALS):
            record(A[0], B[0])
    assert record(A[0], B[0]).other is not None  # a later one of this test
