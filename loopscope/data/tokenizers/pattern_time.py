"""Whether a stranger's pattern ends: tried in a process of its own, which can be stopped.

A regular expression may take time that doubles with every character (`(a+)+$` on a run of a's), and once it runs no
thread of this process can stop it. So the patterns of a tokenizer that was not made here are tried on short texts of
the kinds that make such patterns slow, before any text is given to them. Costs a fifth of a second or so, once per
process and set of patterns; patterns of this package are known and cost nothing.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

SECONDS = 10.0
"""That all patterns of a tokenizer may take on the texts that are tried: 10,000 times what usual ones take."""

_PROGRAM = """
import json, re, sys
kind, patterns = json.load(sys.stdin)
runs = [sign * 2000 for sign in ("a", "A", "0", " ", "\\n", "-", "'", "\\u00e9", "ab", "a ", "a1", " \\n")]
texts = [run + end for run in runs for end in ("", "!", "\\n", "a", " ")]
if kind == "re":
    run = lambda pattern: [re.findall(pattern, text) for text in texts]
else:
    from tokenizers import Regex, pre_tokenizers
    def run(pattern):
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        for text in texts:
            split.pre_tokenize_str(text)
for pattern in patterns:
    (re.compile if kind == "re" else Regex)(pattern)
    print("begun", flush=True)
    run(pattern)
    print("ended", flush=True)
"""


def check_patterns(patterns: Sequence[str], kind: str = "tokenizers") -> None:
    """Refuse patterns of which one does not come to an end.

    Args:
        kind: whose regular expressions they are: `tokenizers` or Python's `re`.

    Raises:
        ValueError: which one, and what was tried.
    """
    if patterns and (slow := _slow(tuple(patterns), kind)) is not None:
        raise ValueError(
            f"its pattern {slow[:80]!r} did not come to an end on texts of 2,000 characters, in {SECONDS:g} s or in as "
            "many steps as its library takes: it would not on yours. Use a tokenizer without that pattern"
        )


@cache
def _slow(patterns: tuple[str, ...], kind: str) -> str | None:
    try:
        words = subprocess.run(
            [sys.executable, "-I", "-c", _PROGRAM],
            input=json.dumps([kind, patterns]).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
        ).stdout.split()
        # One that cannot be compiled has not begun: who uses it refuses it, in the words of its library.
        ended = len(words) % 2 == 0
    except subprocess.TimeoutExpired as error:  # while it ran, or while it was compiled
        words = (error.stdout or b"").split()
        ended = len(words) == 2 * len(patterns)
    return None if ended else patterns[len(words) // 2]


def patterns_in(value: Any) -> Iterator[str]:
    """Yield every regular expression in the JSON of a `tokenizers` file, wherever it stands."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            if isinstance(pattern := each.get("Regex"), str):
                yield pattern
            left += each.values()
        elif isinstance(each, list) and not (each and isinstance(each[0], str)):  # not a list of merges
            left += each


@contextmanager
def panics_in_words() -> Iterator[None]:
    """Raise ValueError where the `tokenizers` library panics, which is no Exception: a step limit of a pattern, say."""
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise ValueError(f"the tokenizer cannot take this text: {str(error)[:200]}") from None
