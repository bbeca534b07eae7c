"""The words of a page, each with its one meaning: what the glossary lists, links lead to and tooltips show."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from markupsafe import Markup, escape

from loopscope.results import REMOVED, SEEN
from loopscope.results.student_t import SEEDS_NEEDED

RUNS, DEPTH, AUDIT, LENS = "runs", "depth", "audit", "lens"
"""Parts of a page that words belong to."""


@dataclass(frozen=True)
class Word:
    """One entry of the glossary."""

    name: str
    meaning: str
    parts: tuple[str, ...] = (RUNS, DEPTH, AUDIT)
    also: tuple[str, ...] = ()  # other forms of it in text and headings

    @property
    def key(self) -> str:
        """Its place on the page, after `word-`."""
        return re.sub(r"\W+", "-", self.name.lower()).strip("-")

    @property
    def forms(self) -> tuple[str, ...]:
        """How it is written in text."""
        return (self.name, *self.also)


WORDS = (
    Word(
        "loop",
        "one application of the shared stack of layers; the same weights are applied at every loop.",
        (RUNS, DEPTH, AUDIT, LENS),
        also=("loops",),
    ),
    Word(
        "trained depth",
        "the number of loops a model was trained with, K. Running more is extrapolation.",
        (RUNS, DEPTH, AUDIT, LENS),
    ),
    Word("full depth", "the trained depth, for every token.", (DEPTH,)),
    Word(
        "exit", "stopping after a loop and decoding its state.", (RUNS, DEPTH, AUDIT, LENS), also=("exits",)
    ),
    Word(
        "scale",
        "the size of the hidden state H after a loop, before any readout: its root mean square over channels, "
        "per token. It is what a readout that normalises divides by, and so hides.",
        (RUNS, DEPTH, AUDIT, LENS),
        also=("RMS",),
    ),
    Word(
        "L2 norm",
        "scale times the square root of the width: the same thing in another unit.",
        (RUNS, DEPTH, AUDIT, LENS),
        also=("L2 norm of H",),
    ),
    Word(
        "settled",
        "the likeliest next token is the one that the last loop says, at this loop and at all after it.",
        (LENS,),
        also=("settles",),
    ),
    Word(
        "cosine",
        "of the state after a loop and the state after the loop before: 1 where it only grew.",
        (LENS,),
    ),
    Word("entropy", "of an exit's probabilities, in nats: 0 where one token has all of them.", (LENS,)),
    Word("gate", "the probability of stopping at a loop, as the model's own exit gate says.", (LENS,)),
    Word(
        "drift",
        "scale at a later loop over scale at the first: at the last trained loop unless another is named. Above "
        "1 the state grows from loop to loop.",
    ),
    Word(
        "runaway",
        "a scale that grows from loop to loop and ends far above the smallest of the page's conditions.",
        (RUNS,),
    ),
    Word(
        "blind spot",
        "a loop whose scale is carried on while no term of the loss sees it. Readouts that normalise hide it; "
        "raw readouts and penalties show it.",
        also=("blind spots",),
    ),
    Word(
        "blind",
        "the verdict on a blind spot: carried on, and met by no loss term. Nothing in training holds this scale.",
        (AUDIT,),
    ),
    Word(
        "damped", "the verdict: met by no loss term either, but shrunk by every step between loops.", (AUDIT,)
    ),
    Word(
        "visible",
        f"the verdict: met by a loss term, with an exposure of at least {SEEN:g} nats, now or once grown.",
        (AUDIT,),
    ),
    Word("removed", f"the verdict: less than {REMOVED:.0%} of a change of scale is carried on.", (AUDIT,)),
    Word(
        "carry",
        "how much of a relative change of scale arrives one loop later. 100%: carried whole; 0: removed.",
        (AUDIT,),
    ),
    Word(
        "direct visibility",
        "how strongly the loss terms that read a loop's own state respond to its scale, in nats for a scale e "
        "times as large (an e-fold).",
        (AUDIT,),
    ),
    Word(
        "exposure",
        "the strongest direct visibility that a loop's scale meets, there or at a loop to which it is carried.",
        (AUDIT,),
    ),
    Word(
        "total",
        "what the whole loss does when a loop's scale changes, through the rest of the unroll too. Turning the "
        "state a little makes it differ from zero even in a blind model, which is why the verdict rests on exposure.",
        (AUDIT,),
    ),
    Word(
        "rounding",
        "how far the same weights in another number format lead H and its exit away from fp32.",
        (AUDIT,),
    ),
    Word(
        "unknown tokens",
        "the share of the text's tokens that stand for text the tokenizer does not know. One costs little "
        "and its bytes count in full: bits per byte are then too low.",
        (RUNS,),
    ),
    Word("perplexity", "e to the loss per token. It depends on the tokenizer: compare within one."),
    Word(
        "bits per byte",
        "loss per byte of the original text. It compares between tokenizers that lose no text; with unknown "
        "tokens it is too low.",
    ),
    Word(
        "interval",
        f"where the mean of many seeds lies with 95 % confidence, by Student's t; none from fewer than "
        f"{SEEDS_NEEDED} seeds. "
        "Perplexity, norms and drift are compared in factors: their means are geometric and their intervals are "
        "made of the logarithms.",
        (RUNS, DEPTH),
        also=("intervals",),
    ),
    Word(
        "difference",
        "the second minus the first, the later minus the earlier; of bits per byte, less is better.",
        (DEPTH,),
    ),
    Word(
        "helps, holds, hurts",
        "what more loops than trained do to bits per byte; unclear: it may be either.",
        (DEPTH,),
        also=("more loops",),
    ),
    Word(
        "within 1 %",
        "loops whose perplexity is at most 1 % above that of the condition's best loop: as good, for most purposes.",
        (DEPTH,),
        also=("first within 1 %", "last within 1 %"),
    ),
    Word(
        "exit rule",
        "what decides, from what a loop shows, that a sequence or a token needs no more loops. An oracle knows "
        "the labels: it is a bound, not a rule.",
        (DEPTH,),
        also=("rule",),
    ),
    Word(
        "calibrated",
        "a threshold chosen on one part of the text to meet a target; the figures are from another part.",
        (DEPTH,),
    ),
    Word(
        "ideal, allowed, realised",
        "speed-up if only loops cost time; if the counted arithmetic does, readouts included; and as measured.",
        (DEPTH,),
        also=("ideal", "allowed", "realised"),
    ),
    Word(
        "separated",
        "a difference whose interval leaves out zero and whose p value stays below 0.05 after Holm's correction "
        "for all pairs. Not separated does not mean equal.",
        (DEPTH,),
        also=("not separated", "p corrected"),
    ),
)


def words_of(parts: Collection[str]) -> list[Word]:
    """Return the words of a page with these parts, in the order in which it lists them."""
    return [word for word in WORDS if any(part in parts for part in word.parts)]


def linker(words: Collection[Word]) -> Callable[[str], Markup]:
    """Return what makes a text a page's: escaped, with the first mention of each word a link to its meaning."""
    keys = {form.lower(): word.key for word in words for form in word.forms}
    if not keys:
        return escape
    longest_first = sorted(keys, key=len, reverse=True)
    mention = re.compile(
        rf"(?<![\w&/-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w/-])", re.IGNORECASE
    )

    def linked(text: str) -> Markup:
        met: set[str] = set()

        def link(found: re.Match[str]) -> str:
            key = keys[found[0].lower()]
            if key in met:
                return found[0]
            met.add(key)
            return f'<a class="term" href="#word-{key}" data-word="{key}">{found[0]}</a>'

        return Markup(mention.sub(link, str(escape(text))))

    return linked


def heading_keys(words: Collection[Word]) -> Callable[[str], str]:
    """Return what finds the word that a table's heading is; empty for a heading that is none."""
    keys = {form.lower(): word.key for word in words for form in word.forms}
    return lambda heading: keys.get(heading.lower(), "")
