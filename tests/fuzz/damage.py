"""What can happen to a file: bits flip, stretches go, two change places, others come in, and it ends early."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

ALL_CASES = int(os.environ.get("LOOPSCOPE_FUZZ_CASES", "300"))
"""Of the files here together; `python -m tests.fuzz --cases 2000` sets it."""
FILES = 4


def cases(share: float = 1.0) -> settings:
    """How many cases a test of a file takes: a fourth of all, or a share of that."""
    count = max(1, round(ALL_CASES / FILES * share))
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        derandomize="LOOPSCOPE_FUZZ_CASES" not in os.environ,  # CI tries the same cases every time
    )


@dataclass(frozen=True)
class Damage:
    """One thing that happens to bytes, at places between 0 and 1 of their length."""

    kind: str
    at: float
    to: float
    put: bytes

    def of(self, data: bytes) -> bytes:
        """The bytes after it."""
        start, end = sorted((int(self.at * len(data)), int(self.to * len(data))))
        match self.kind:
            case "flip" if start < len(data):
                return data[:start] + bytes([data[start] ^ (1 << len(self.put) % 8)]) + data[start + 1 :]
            case "cut":
                return data[:start]
            case "lose":
                return data[:start] + data[end:]
            case "swap":
                length = min(16, end - start, len(data) - end)
                first, second = data[start : start + length], data[end : end + length]
                return data[:start] + second + data[start + length : end] + first + data[end + length :]
            case "zero":
                return data[:start] + bytes(end - start) + data[end:]
        return data[:start] + self.put + data[start:]


DAMAGE = st.lists(
    st.builds(
        Damage,
        st.sampled_from(["flip", "flip", "cut", "lose", "swap", "zero", "put"]),
        st.floats(0, 1),
        st.floats(0, 1),
        st.binary(max_size=9),
    ),
    min_size=1,
    max_size=3,
)


def damaged(data: bytes, damage: list[Damage]) -> bytes:
    """The bytes after all of it, in turn."""
    for each in damage:
        data = each.of(data)
    return data


def said_of(work: Callable[[], object], *names: Path | str) -> str | None:
    """What was said where something was refused, in which one of `names` stands; None where nothing was.

    Anything but a ValueError in a sentence or two is a failure.
    """
    try:
        work()
    except ValueError as error:
        said = str(error)
        assert any(str(name) in said for name in names), said
        assert len(said) < 2000, said[:200]
        assert len(said.splitlines()) <= 3, said
        return said
    return None
