"""How fast text becomes token files, and how long steps wait for batches.

    python -m benchmarks.data                 # 24 MB of this Python's own sources: under a minute

Ingestion is measured in three parts, in one process with one core: `encode` (the tokenizer alone, on parts as
ingestion cuts them), `ingest` (all of `write_tokens`: cutting, encoding, counting bytes, writing) and `prepare` (the
whole command: the vocabulary counted in a pass of its own, both splits written and synced). The baseline is the plain
way to encode, `re.findall` and a dict; beside it stands a tokenizer of the `tokenizers` library with the same
vocabulary and splitting rule. All encode the same parts, in turn. Rates of text are by the processor's time, which is
what a core can do whoever else it works for. Loading is the time of one batch, cold from the file and by the thread
that reads ahead of a step.
"""

import argparse
import re
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from benchmarks.environment import environment, finish, table
from loopscope.data import DataConfig, Windows, build_corpus, open_tokens, prepare, write_tokens
from loopscope.data.corpora import cap_bytes
from loopscope.data.tokenizers import WordTokenizer
from loopscope.data.tokenizers.word import UNKNOWN_ID
from loopscope.training import Prefetcher

MEGA = 1e6


def main() -> None:
    """Measure, print a table, and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=24.0)
    parser.add_argument("--vocabulary", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--sequence", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = DataConfig(
        corpus="stdlib",
        max_bytes=int(options.megabytes * MEGA),
        max_validation_bytes=300_000,
        tokenizer={"kind": "word", "vocabulary": options.vocabulary},  # type: ignore[arg-type]
    )
    pieces = list(cap_bytes(build_corpus(data).train(), data.max_bytes))
    size = sum(len(piece.encode("utf-8", errors="replace")) for piece in pieces)
    tokenizer = WordTokenizer.train(pieces, options.vocabulary)
    parts = list(tokenizer.parts(pieces))
    library = _library(tokenizer)
    find, ids = re.compile(tokenizer.pattern).findall, {word: i for i, word in enumerate(tokenizer.itos)}
    names = ("encode", "ingest", "prepare", "findall and a dict", "tokenizers library")
    rates: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.tokens"

        def ingest() -> None:
            encoded = (
                (tokenizer.encode(part), len(part.encode("utf-8"))) for part in tokenizer.parts(pieces)
            )
            write_tokens(path, encoded, tokenizer.vocabulary_size, tokenizer.hash)

        def whole() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as cache:
                prepare(data.model_copy(update={"cache": cache}), progress=False)

        def plain() -> None:
            for part in parts:
                np.array([ids.get(word, UNKNOWN_ID) for word in find(part)], dtype=np.uint32)

        ways = {
            "encode": lambda: [tokenizer.encode(part) for part in parts],
            "ingest": ingest,
            "prepare": whole,
            "findall and a dict": plain,
            "tokenizers library": lambda: [library.encode(part) for part in parts],
        }
        ways["encode"]()  # makes the table of words
        for _ in range(options.pairs):
            for name in names:
                rates[name].append(size / _seconds(ways[name]))
        written = open_tokens(path)
        windows = Windows(written, options.sequence)
        cold = statistics.median(
            _seconds(lambda step=step: windows.batch(0, step, 0, options.batch), time.perf_counter)
            for step in range(50)
        )
        ahead = _waited(windows, options.batch)
    rows = [[name, f"{statistics.median(found) / MEGA:.1f}"] for name, found in rates.items()]
    table(["text", "MB/s"], rows)
    print()
    table(
        [f"batch of {options.batch} × {options.sequence}", "milliseconds"],
        [
            ["read when it is needed", f"{cold * 1e3:.3f}"],
            ["read ahead of a 20 ms step", f"{ahead * 1e3:.3f}"],
        ],
    )
    print()
    finish(
        {
            "benchmark": "data",
            "megabytes": round(size / MEGA, 1),
            "vocabulary": options.vocabulary,
            "pairs": options.pairs,
            **{
                f"{name.replace(' ', '_')}_mb_per_s": round(statistics.median(found) / MEGA, 2)
                for name, found in rates.items()
            },
            "speedup_vs_baseline": _ratio(rates["encode"], rates["findall and a dict"]),
            "ingest_over_library_encode": _ratio(rates["ingest"], rates["tokenizers library"]),
            "batch_ms": round(cold * 1e3, 4),
            "batch_ahead_ms": round(ahead * 1e3, 4),
        },
        environment(dtype=written.tokens.dtype.name),
    )


def _ratio(ours: list[float], baseline: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(ours, baseline, strict=True)), 2)


def _library(tokenizer: WordTokenizer) -> Tokenizer:
    """The library's word-level model with the same vocabulary and the published rule."""
    model = WordLevel({word: index for index, word in enumerate(tokenizer.itos)}, unk_token="<unk>")
    library = Tokenizer(model)
    library.pre_tokenizer = Split(Regex(tokenizer.pattern), "removed", invert=True)
    return library


def _waited(windows: Windows, batch: int, steps: int = 50) -> float:
    """Mean seconds that a step of 20 ms waits for its batch."""
    with Prefetcher(windows, 0, batch, steps, torch.device("cpu")) as batches:
        batches.get(0)
        before = batches.waited
        for step in range(1, steps):
            time.sleep(0.02)
            inputs, _ = batches.get(step)
            assert np.asarray(inputs).shape[0] == batch
    return (batches.waited - before) / (steps - 1)


def _seconds(work, clock=time.process_time) -> float:  # type: ignore[no-untyped-def]
    began = clock()
    work()
    return clock() - began


if __name__ == "__main__":
    main()
