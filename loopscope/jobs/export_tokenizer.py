"""Our tokenizers as fast ones of transformers: the same ids for every text, with tokens that begin, end and pad one."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from loopscope.data.tokenizers import (
    AbstractTokenizer,
    BPETokenizer,
    ByteTokenizer,
    FileTokenizer,
    SymbolTokenizer,
    WordTokenizer,
)
from loopscope.data.tokenizers.word_table import PATTERN

END = "<|endoftext|>"
"""What an end token is called that has no name yet."""
_NEVER_IN_UTF8 = {0xFF: END, 0xFE: "<|pad|>"}
_ENDS = (END, "</s>", "<eos>", "<|end_of_text|>", "<|eos|>", "[EOS]", "<|im_end|>")
_STARTS = ("<s>", "<bos>", "<|begin_of_text|>", "<|bos|>", "[BOS]")
_PADS = ("<pad>", "<|pad|>", "[PAD]")
_PROBES = (
    "The quick brown fox 42 jumps\n\nover 2\tlazy dogs  and more",
    "def f(a): return a_1 ** 2  # élève, 中文, \u0130\u00aa \u1680\u2028 ½ 🙂",
    "<s> </s> <pad> <|endoftext|> <unk>",
)


@dataclass(frozen=True)
class FastTokenizer:
    """A tokenizer of transformers, and the ids of its tokens for begin, end and padding."""

    tokenizer: Any
    token_ids: dict[str, int | None]


def fast_tokenizer(
    own: AbstractTokenizer, rows: int, length: int | None, end_token: str | None = None, endless: bool = False
) -> FastTokenizer:
    """Return a tokenizer as transformers has it.

    Texts that spell a special token are text, as in training (`split_special_tokens`), and nothing is added to a text.

    Args:
        rows: of the model's embedding: an end token that the vocabulary has not takes the first that is free.
        length: tokens that a text may have; None: no limit.
        end_token: the token that ends a text, by name.
        endless: there is none.

    Raises:
        ValueError: no end token and none free, a name that is no token, or a tokenizer that transformers cannot have.
    """
    from transformers import PreTrainedTokenizerFast

    made = _tokenizer(own)
    vocabulary = made.get_vocab(with_added_tokens=True)
    if end_token is not None and end_token not in vocabulary:
        spelled = own.encode(end_token).tolist()
        if len(spelled) != 1 or spelled[0] == own.unknown_id:
            raise ValueError(
                f"end-token is {end_token!r}, which is no token of this model's tokenizer, nor the text of one; give "
                f"one that is, such as {made.id_to_token(0)!r}"
            )
        end_token = made.id_to_token(spelled[0])
    end = None if endless else end_token or _first(_ENDS, vocabulary)
    if end is None and not endless:
        free = max(vocabulary.values()) + 1
        if free >= rows or made.get_vocab_size() != free:
            raise ValueError(
                f"this model's tokenizer ({own.kind}) has no token that ends a text, and its {rows} rows are all "
                "taken: say which of its tokens does (--end-token '.'), or export it without one (--no-end-token): "
                "texts then end by length alone, and tools that ask for one refuse the model"
            )
        made.add_special_tokens([END])
        end = END
    start, pad = _first(_STARTS, vocabulary) or end, _first(_PADS, vocabulary) or end
    names = {"bos_token": start, "eos_token": end, "pad_token": pad, "unk_token": _unknown(made, own)}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=length or 10**9,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
        model_input_names=["input_ids", "attention_mask"],
        **{name: token for name, token in names.items() if token is not None},
    )
    _check_alike(own, fast)
    ids = {f"{name}_id": None if token is None else made.token_to_id(token) for name, token in names.items()}
    ids.pop("unk_token_id")
    return FastTokenizer(fast, ids)


def _tokenizer(own: AbstractTokenizer) -> Tokenizer:
    match own:
        case WordTokenizer(pattern=pattern):
            if pattern != PATTERN:
                raise ValueError(
                    f"this model's word tokenizer has the pattern {pattern[:60]!r}, which transformers' library may "
                    f"read otherwise than Python does; only the published {PATTERN!r} is exported"
                )
            made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(own.itos)}, "<unk>"))
            # What none of the three kinds matches is skipped: Python's own classes, which the library's are not.
            made.pre_tokenizer = pre_tokenizers.Split(Regex(_published_pattern()), "removed", invert=True)
            made.decoder = decoders.Fuse()
            return made
        case BPETokenizer(tokenizer=tokenizer):
            return Tokenizer.from_str(tokenizer.to_str())
        case ByteTokenizer():
            signs = _byte_signs()
            vocabulary = {_NEVER_IN_UTF8.get(byte, sign): byte for byte, sign in signs.items()}
            made = Tokenizer(models.BPE(vocabulary, []))
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            made.decoder = decoders.ByteLevel()
            return made
        case SymbolTokenizer(symbols=symbols):
            made = Tokenizer(models.WordLevel({symbol: place for place, symbol in enumerate(symbols)}))
            made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
            return made
        case FileTokenizer():
            settings = {
                **own.to_json()["tokenizer"],
                "post_processor": None,
                "truncation": None,
                "padding": None,
            }
            return Tokenizer.from_str(json.dumps(settings, ensure_ascii=False))
    raise ValueError(f"tokenizer {type(own).__name__} has no form in transformers")


def _unknown(made: Tokenizer, own: AbstractTokenizer) -> str | None:
    return None if own.unknown_id is None else made.id_to_token(own.unknown_id)


def _first(names: tuple[str, ...], vocabulary: dict[str, int]) -> str | None:
    return next((name for name in names if name in vocabulary), None)


def _check_alike(own: AbstractTokenizer, fast: Any) -> None:
    """Refuse a tokenizer that gives other ids in transformers than here."""
    probes = (" ".join(own.symbols),) if isinstance(own, SymbolTokenizer) else _PROBES
    for probe in probes:
        wanted, got = own.encode(probe).tolist(), fast(probe, verbose=False)["input_ids"]
        if wanted != got:
            raise ValueError(
                f"this model's tokenizer gives other ids in transformers than here (of {probe[:40]!r}: {got[:8]}, not "
                f"{wanted[:8]}), so the export would read other tokens than the model was trained on"
            )


def _published_pattern() -> str:
    r"""`\s+|[A-Za-z0-9_]+|[^\w\s]` with Python's classes spelled out, as ranges of code points."""
    every = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    space, neither = (
        "".join(f"\\x{{{first:X}}}-\\x{{{last:X}}}" for first, last in _runs(re.findall(one, every)))
        for one in (r"\s", r"[^\w\s]")
    )
    return f"[{space}]+|[A-Za-z0-9_]+|[{neither}]"


def _runs(signs: list[str]) -> Iterator[tuple[int, int]]:
    """Yield first and last of every unbroken run of code points."""
    points = np.array([ord(sign) for sign in signs])
    breaks = np.flatnonzero(np.diff(points) > 1)
    starts, ends = np.append(0, breaks + 1), np.append(breaks, len(points) - 1)
    yield from zip(points[starts].tolist(), points[ends].tolist(), strict=True)


def _byte_signs() -> dict[int, str]:
    """Signs that stand for bytes in byte-level tokenizers: printable ones for themselves, others from 256 on."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(others)}
