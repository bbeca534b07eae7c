"""What a stranger's model raises, in one line."""

import pytest

from loopscope.recurrence.model_errors import SIGNS, first_line, in_one_line


@pytest.mark.parametrize(
    ("error", "line", "named"),
    [
        (
            IndexError("index 3 is out of bounds"),
            "index 3 is out of bounds",
            "IndexError: index 3 is out of bounds",
        ),
        (RuntimeError("\n  first\nsecond\n"), "first", "RuntimeError: first"),
        (TypeError(), "TypeError", "TypeError"),
        (ValueError("  \n "), "ValueError", "ValueError"),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str, named: str) -> None:
    assert first_line(error) == line
    assert in_one_line(error) == named


def test_a_long_line_is_cut() -> None:
    assert first_line(ValueError("x" * 1000)) == "x" * SIGNS
