"""Token norms: how the state's size is spread over tokens and channels, and which tokens carry the most."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loopscope.report.audits.drift import undrawn_models
from loopscope.report.audits.line_series import Quantity, lines
from loopscope.report.audits.models import MOST_MODELS, ModelView
from loopscope.report.plots.figure import Figure, spans_decades
from loopscope.report.study.table import choose_loops, number
from loopscope.results import TokenNorms

_NORMS: tuple[Quantity, ...] = (
    ("median", lambda report: [entry.median for entry in report.tokens]),
    ("99th percentile", lambda report: [entry.p99 for entry in report.tokens]),
    ("largest", lambda report: [entry.max for entry in report.tokens]),
)
_SHARES: tuple[Quantity, ...] = (
    ("largest 1% of tokens", lambda report: [100 * entry.top_token_share for entry in report.tokens]),
    ("largest 1% of channels", lambda report: [100 * entry.top_channel_share for entry in report.tokens]),
)


def norms(models: Sequence[ModelView]) -> Figure:
    """Draw the median, 99th percentile and largest token norm per loop."""
    on = models[:MOST_MODELS]
    values = [value for _, of in _NORMS for model in on for value in of(model.report)]
    log = spans_decades([value for value in values if value > 0], 8)
    series, panels = lines(on, _NORMS, log_y=log)
    return Figure(
        key="audit-token-norms",
        title="Norms of tokens",
        caption="L2 norm of H over the tokens of the batch. A largest token far above the median is a massive "
        "activation: a mean would be about that token." + undrawn_models(models),
        x_label="loop",
        y_label="L2 norm of a token's state",
        series=series,
        panels=panels,
        log_y=log,
        whole_x=True,
        wide=len(panels) > 1,
    )


def shares(models: Sequence[ModelView]) -> Figure:
    """Draw the share of the squared norm in the largest 1% of tokens and of channels."""
    series, panels = lines(models[:MOST_MODELS], _SHARES)
    highest = max((value for entry in series for value in entry.y), default=1.0)
    return Figure(
        key="audit-norm-shares",
        title="How much the largest hold",
        caption="Share of the squared norm in the largest 1% of tokens, and of channels (at least one of each). Spread "
        "evenly it would be about 1%." + undrawn_models(models),
        x_label="loop",
        y_label="share of the squared norm, %",
        series=series,
        panels=panels,
        whole_x=True,
        wide=len(panels) > 1,
        y_range=(0.0, max(5.0, 1.1 * highest)),
    )


@dataclass(frozen=True)
class TokenRow:
    """One of the largest tokens of a model, as the table shows it."""

    text: str
    known: bool  # whether the text is the token's own, not its number
    sequence: int
    position: int
    norm: str
    times: str  # over the median of its loop


@dataclass(frozen=True)
class TokenTable:
    """The largest tokens of one model, at its last loop and at some before."""

    name: str
    loops: tuple[tuple[int, tuple[TokenRow, ...]], ...]  # last loop first


def largest_tokens(model: ModelView) -> TokenTable | None:
    """Return the table of a model's largest tokens; None where the audit kept no tokens."""
    texts = model.audited.token_texts
    kept = [entry for entry in model.report.tokens if entry.largest]
    picked = [kept[loop_number - 1] for loop_number in choose_loops(len(kept))]
    loops = [(entry.loop, _rows(entry, texts)) for entry in reversed(picked)]
    return TokenTable(model.name, tuple(loops)) if loops else None


def _rows(entry: TokenNorms, texts: Mapping[str, str]) -> tuple[TokenRow, ...]:
    rows = []
    for sequence, position, token, norm in entry.largest:
        text = texts.get(str(token))
        times = f"{number(norm / entry.median)} ×" if entry.median > 0 else ""
        rows.append(
            TokenRow(
                f"id {token}" if text is None else visible_text(text),
                text is not None,
                sequence,
                position,
                number(norm),
                times,
            )
        )
    return tuple(rows)


def visible_text(text: str) -> str:
    """Return a token's text with its spaces, line ends and control characters made visible."""
    signs = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
    marks = "".join(
        signs.get(sign) or (f"\\u{ord(sign):04x}" if unicodedata.category(sign).startswith("C") else sign)
        for sign in text
    )
    return marks or "(empty)"
