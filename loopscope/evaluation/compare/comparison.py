"""Several conditions × seeds side by side, from their evaluation records alone.

Conditions are compared at matched inference depth, in the reading `at depth`, over the seeds that all of them have.
Every difference is paired by seed and by window (`paired`); all p-values of a comparison, those against baselines too,
are corrected together (`holm`).
"""

from collections.abc import Mapping, Sequence

from loopscope.evaluation.compare.condition import (
    READING,
    Condition,
    check_same_text,
    group_evaluations,
    same_windows,
)
from loopscope.evaluation.compare.differences import (
    PairedDifference,
    is_separated,
    paired_difference,
    pairwise,
)
from loopscope.evaluation.compare.equal_flops import equal_flops, equal_flops_sentence
from loopscope.evaluation.compare.matched import baseline_role, counterparts, inference_flops, run_flops
from loopscope.evaluation.compare.pareto import options
from loopscope.evaluation.compare.sentences import comparison_sentences, count
from loopscope.evaluation.depth.verdict import depth_verdict
from loopscope.evaluation.statistics.correction import holm
from loopscope.results import Comparison, Difference, Matched, ModelEvaluation, provenance
from loopscope.results.student_t import CONFIDENCE, SEEDS_NEEDED, over_seeds_of

LOSSY = 0.01
"""Share of unknown tokens above which a comparison says so."""


def compare(
    evaluations: Sequence[ModelEvaluation],
    seconds: Mapping[str, Sequence[float]] | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """Compare every two conditions at every loop, rank all depths, and judge looping against baselines.

    Args:
        evaluations: one per condition and seed, each with a depth curve, all on the same text.
        seconds: measured seconds per token at depth 1, 2, … by condition.
        notes: what the reader should know besides.

    Raises:
        ValueError: fewer than two conditions, no seed that all have, a condition twice at one seed, no depth curve, or
            evaluations on different text.
    """
    conditions = group_evaluations(evaluations)
    if len(conditions) < 2:
        raise ValueError(
            f"a comparison needs two conditions or more, and there is {conditions[0].name if conditions else 'none'}; "
            "add one to the study: loopscope study --conditions …"
        )
    check_same_text(evaluations)
    shared, seed_notes = _shared(conditions)
    seeds = len(shared[0].seeds)
    looped = [condition for condition in shared if baseline_role(condition.name) is None]
    pairs, unmatched = counterparts(shared)
    plain = pairwise(looped)
    against = {
        (one.name, other.name): paired_difference(one, one.trained_loops, other, other.trained_loops)
        for one, beside in pairs
        for other in beside
    }
    corrected = _correct([*plain, *against.values()])
    differences = tuple(
        Difference(
            one=entry.one,
            other=entry.other,
            loop=entry.loop,
            bits_per_byte=entry.difference.interval,
            p=entry.difference.p,
            p_corrected=value,
            separated=is_separated(entry.difference, value),
            seeds=entry.seeds,
        )
        for entry, value in zip(plain, corrected, strict=False)
    )
    tests = dict(zip(against, zip(against.values(), corrected[len(plain) :], strict=True), strict=True))
    matched = tuple(row for one, beside in pairs for row in _rows(one, beside, tests))
    table = options(shared, seconds or {})
    ahead = equal_flops(shared, table)
    per = "byte of text" if shared[0].unit == "bits per byte" else "token"
    return Comparison(
        conditions=tuple(condition.name for condition in shared),
        verdicts=tuple(depth_verdict(c) for c in conditions if baseline_role(c.name) is None),
        differences=differences,
        options=tuple(table),
        matched=matched,
        sentences=(
            *comparison_sentences(differences, matched, seeds, shared[0].unit),
            *equal_flops_sentence(ahead, per),
        ),
        confidence=CONFIDENCE,
        notes=(
            *notes,
            *seed_notes,
            *unmatched,
            *_about_training(shared),
            *_about_tokens(shared),
            *_about_lost_text(shared),
        ),
        settings={
            "reading": READING,
            "unit": shared[0].unit,
            "seeds": ", ".join(map(str, shared[0].seeds)),
            "data": evaluations[0].data,
            "windows": _each(evaluations, "windows"),
            "sequence": _each(evaluations, "sequence"),
            "tests": str(sum(entry.difference.p is not None for entry in (*plain, *against.values()))),
            "flops": _about_flops(shared),
        },
        provenance=provenance(),
        equal_flops=ahead,
    )


def _shared(conditions: Sequence[Condition]) -> tuple[list[Condition], list[str]]:
    """The conditions at the seeds that all of them have, and what was left out."""
    seeds = set.intersection(*(set(condition.seeds) for condition in conditions))
    have = "; ".join(f"{c.name}: {', '.join(map(str, c.seeds))}" for c in conditions)
    if not seeds:
        raise ValueError(
            f"no seed is common to all conditions ({have}), so nothing can be paired; train the missing ones, or leave "
            "a condition out with --conditions"
        )
    notes = []
    if any(set(condition.seeds) != seeds for condition in conditions):
        notes.append(
            f"Seeds differ between conditions ({have}): differences use those that all have, "
            f"{', '.join(map(str, sorted(seeds)))}. Verdicts use all seeds of their own condition."
        )
    if len(seeds) < SEEDS_NEEDED:
        notes.append(
            f"{count(len(seeds), 'seed')}: an interval over seeds needs {SEEDS_NEEDED}; none is given."
        )
    return [condition.of(sorted(seeds)) for condition in conditions], notes


def _correct(entries: Sequence[PairedDifference]) -> list[float | None]:
    """Corrected p-values, over all that there are."""
    known = [entry.difference.p for entry in entries if entry.difference.p is not None]
    values = iter(holm(known))
    return [None if entry.difference.p is None else next(values) for entry in entries]


def _rows(
    looped: Condition,
    baselines: Sequence[Condition],
    tests: Mapping[tuple[str, str], tuple[PairedDifference, float | None]],
) -> list[Matched]:
    """A looped condition at its trained depth, then its baselines."""
    rows = []
    for condition in (looped, *baselines):
        known = tests.get((looped.name, condition.name))
        rows.append(
            Matched(
                condition=condition.name,
                loops=condition.trained_loops,
                role=baseline_role(condition.name) or "looped",
                parameters=condition.evaluations[0].parameters,
                training_flops=run_flops(condition),
                inference_flops=inference_flops(condition),
                bits_per_byte=over_seeds_of(
                    "bits_per_byte", condition.bits_per_byte(condition.trained_loops)
                ),
                against=known[0].difference.interval if known else None,
                separated=is_separated(known[0].difference, known[1]) if known else False,
            )
        )
    return rows


def _about_training(conditions: Sequence[Condition]) -> list[str]:
    """Conditions that trained on different amounts of text."""
    tokens = {c.name: sorted({e.tokens_trained or 0 for e in c.evaluations}) for c in conditions}
    unknown = [c.name for c in conditions if all(e.tokens_trained is None for e in c.evaluations)]
    if unknown and len(unknown) < len(conditions):
        return [f"Nothing says how much text these were trained on: {', '.join(unknown)}."]
    if len({tuple(counts) for counts in tokens.values()}) <= 1 and all(len(t) == 1 for t in tokens.values()):
        return []
    listed = "; ".join(f"{name}: {', '.join(f'{n:,}' for n in counts)}" for name, counts in tokens.items())
    return [f"Runs were not trained on the same number of tokens ({listed})."]


def _about_tokens(conditions: Sequence[Condition]) -> list[str]:
    """Conditions whose windows differ: how they were paired, and what then does not compare."""
    firsts = [condition.evaluations[0] for condition in conditions]
    if all(same_windows(firsts[0], other) for other in firsts[1:]):
        return []
    listed = "; ".join(
        f"{c.name}: {e.windows} of {e.sequence} tokens, {e.bytes_per_token:.3g} bytes a token"
        for c, e in zip(conditions, firsts, strict=True)
    )
    return [
        f"Windows differ ({listed}): differences are paired by equal parts of the text. Bits per byte compare; losses, "
        "perplexities and costs per token do not."
    ]


def _about_lost_text(conditions: Sequence[Condition]) -> list[str]:
    """Conditions whose tokenizer loses text: their bits per byte are too low."""
    shares = {c.name: c.evaluations[0].unknown_share or 0.0 for c in conditions}
    listed = ", ".join(f"{name}: {share:.1%}" for name, share in shares.items() if share > LOSSY)
    if not listed:
        return []
    return [
        f"Tokens that stand for unknown text ({listed}): bits per byte are too low there, and compare between "
        "conditions of one tokenizer only."
    ]


def _about_flops(conditions: Sequence[Condition]) -> str:
    """How FLOPs were counted, of which condition."""
    ways: dict[str, list[str]] = {}
    for condition in conditions:
        first = condition.evaluations[0]
        counted = "counted on one forward at each depth" if first.flops_counted else "from the config"
        ways.setdefault(counted if first.flops_per_token else "not counted", []).append(condition.name)
    listed = "; ".join(f"{way}: {', '.join(names)}" for way, names in ways.items())
    return f"FLOPs are those of matrix products, attention's whole square included ({listed})"


def _each(evaluations: Sequence[ModelEvaluation], name: str) -> str:
    """A figure of the evaluations: one where all have the same, else all there are."""
    return ", ".join(dict.fromkeys(str(getattr(evaluation, name)) for evaluation in evaluations))
