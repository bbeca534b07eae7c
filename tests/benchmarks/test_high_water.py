"""The memory that work takes, read from the kernel's high-water mark."""

import sys

import pytest

from benchmarks.high_water import peak_of

MEBI = 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the mark is Linux's")
def test_the_peak_is_what_work_adds_whatever_came_before() -> None:
    assert peak_of(lambda: bytearray(b"x" * 300 * MEBI)) > 200 * MEBI
    assert 60 * MEBI < peak_of(lambda: bytearray(b"x" * 64 * MEBI)) < 200 * MEBI
