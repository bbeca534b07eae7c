"""What one word of a command may say where several commands ask for it: names, depths, counts."""

from typing import Any

DEEPEST = 10_000
"""That a command unrolls: as deep as a model may be trained."""


def split_names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def depths_of(text: str, name: str = "loops") -> tuple[int, ...]:
    """Return depths from one word, such as 1,2,4,8: each once, shallow first.

    Raises:
        ValueError: one that is no whole number from 1 to `DEEPEST`.
    """
    names = split_names(text)
    for each in names:
        if not each.isdecimal() or not 1 <= int(each) <= DEEPEST:
            raise ValueError(
                f"{name} is {text!r}, {each!r} is no depth: give whole numbers from 1 to {DEEPEST:,}, such as 1,2,4,8"
            )
    if not names:
        raise ValueError(f"{name} is empty; give depths such as 1,2,4,8")
    return tuple(sorted({int(each) for each in names}))


def check_counts(command: Any, *names: str, most: int = 10**9) -> None:
    """Raise ValueError for one of a command's options that is given and not from 1 to `most`."""
    for name in names:
        value = getattr(command, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be a whole number from 1 up")
        if value is not None and value > most:
            raise ValueError(f"{name} is {value}; it must be a whole number from 1 to {most:,}")
