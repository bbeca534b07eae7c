"""What a page concludes, in words, and what it says to do about it: from the records, and from nothing else."""

from dataclasses import replace

from loopscope.report.audits.models import model_views
from loopscope.report.glossary import AUDIT, DEPTH, LENS, RUNS, WORDS, heading_keys, linker, words_of
from loopscope.report.statements import (
    audit_statements,
    depth_statements,
    ending_statement,
    missing_statements,
    quality_statement,
)
from loopscope.report.study.conditions import group_runs
from loopscope.results import Interval, Prognosis, Remedy, Rounding
from tests.report.audits.fixtures import make_audit, make_report
from tests.report.evaluations.fixtures import groups_of, make_comparison, make_evaluation
from tests.report.study.fixtures import make_failed, make_run


def test_a_blind_model_is_told_what_closes_it_and_the_rest_that_nothing_is_to_be_done() -> None:
    models = model_views([make_audit("a", "visible"), make_audit("b", "blind"), make_audit("c", "blind")])
    blind, visible = audit_statements(models)
    assert (blind.badge, visible.badge) == ("blind", "visible")
    assert blind.says.startswith("b, c: nothing in training holds the scale.")
    assert "up to 4 times its size at loop 1" in blind.says
    assert blind.do.startswith("Train again with one change: add a norm penalty or put a norm between loops.")
    assert visible.do == "Nothing: depth and precision can be chosen by quality."


def test_a_visible_model_that_more_loops_or_coarser_numbers_hurt_is_not_told_to_choose_freely() -> None:
    fragile = make_audit(
        "a", report=replace(make_report("visible"), rounding=(Rounding("bf16", "grows", "", lost_at=2),))
    )
    fragile = replace(fragile, prognosis=Prognosis("breaks", "", 4))
    (visible,) = audit_statements(model_views([fragile, make_audit("b", "visible")]))
    assert visible.do == (
        "Nothing, for its scale. Run no more loops than trained: they are foretold to hurt a. Keep it in finer numbers "
        "than bf16: within the trained depth that costs a 1 % of perplexity or more."
    )
    lost = replace(make_audit("b", "blind"), prognosis=Prognosis("drifts", "", 4))
    (blind,) = audit_statements(model_views([lost]))
    assert blind.do.endswith("Run no more loops than trained: they are foretold to hurt b.")
    late = replace(fragile.report, rounding=(Rounding("bf16", "grows", "", lost_at=40),))
    (visible,) = audit_statements(model_views([make_audit("a", report=late)]))
    assert visible.do == "Nothing: depth and precision can be chosen by quality."


def test_a_change_that_closes_only_one_of_two_models_is_not_offered() -> None:
    half = make_report(remedies=(Remedy("only here", "visible", 4.0, 0.0),))
    none = make_report(remedies=(Remedy("only here", "blind", 4.0, 0.0),))
    (blind,) = audit_statements(model_views([make_audit("a", report=half), make_audit("b", report=none)]))
    assert blind.do.startswith("Let a loss term see the scale")


def test_depth_says_which_loop_to_run() -> None:
    comparison = make_comparison(("a", "b"))
    verdicts = (
        replace(comparison.verdicts[0], best=Interval(4.0), best_by_seed=(1, 8, 8)),
        replace(comparison.verdicts[1], best=Interval(3.0), best_by_seed=(3, 3, 3)),
    )
    groups = groups_of(
        make_evaluation("a"), make_evaluation("b"), comparison=replace(comparison, verdicts=verdicts)
    )
    hurts, holds = depth_statements(groups)
    assert (hurts.badge, holds.badge) == ("hurts", "holds")
    assert hurts.do == "Run no more loops than trained. Best loop: a the seeds disagree (1, 8)."
    assert holds.do == "Choose the depth by its time. Best loop: b 3."


def test_quality_is_ranked_only_where_the_data_separates() -> None:
    few = group_runs([make_run("a"), make_run("b")])
    many = group_runs([make_run(name, seed) for name in "ab" for seed in range(3)])
    assert quality_statement(None, few[:1], "runs/x") is None
    too_few = quality_statement(make_comparison(("a", "b")), few, "runs/x")
    assert too_few is not None
    assert "1 seed of a condition, too few to rank any" in too_few.says
    assert "`loopscope study … --seeds 3 --out runs/x`" in too_few.do
    untested = quality_statement(None, many, "runs/x")
    assert untested is not None
    assert untested.do.startswith("`loopscope evaluate compare runs/x`")
    none_apart = quality_statement(make_comparison(("a", "b")), many, "runs/x")
    assert none_apart is not None
    assert none_apart.says.startswith("Quality: 3 seeds separate none of 1 pair")
    apart = make_comparison(("a", "b"), sentences=("x is fine.", "b is better than a at loop 4."))
    apart = replace(apart, differences=tuple(replace(d, separated=True) for d in apart.differences))
    some = quality_statement(apart, many, "runs/x")
    assert some is not None
    assert some.says == (
        "Quality, each model run to so many loops: 1 of 1 pair of conditions are apart. b is better than a at loop 4."
    )


def test_what_is_not_known_yet_comes_with_its_command() -> None:
    conditions = group_runs([make_run("a"), make_failed("a", seed=1)])
    audit, depth = missing_statements(False, False, conditions, "runs/x")
    assert (audit.do, depth.do) == ("`loopscope audit runs/x`", "`loopscope evaluate depth runs/x`")
    assert missing_statements(True, True, conditions, "runs/x") == []
    assert len(missing_statements(True, False, [], "model")) == 1  # a model that is no run
    assert missing_statements(False, False, group_runs([make_failed("a")]), "runs/x") == []
    ended = ending_statement(conditions)
    assert ended is not None
    assert ended.says == "1 of 2 runs ended early."
    assert ending_statement(conditions[:0]) is None


def test_every_word_has_one_meaning_and_a_place_of_its_own() -> None:
    forms = [form.lower() for word in WORDS for form in word.forms]
    assert len(forms) == len(set(forms))
    assert len({word.key for word in WORDS}) == len(WORDS)
    assert [word.name for word in words_of([RUNS])].count("drift") == 1
    assert words_of([RUNS, DEPTH, AUDIT, LENS]) == list(WORDS)
    assert "carry" not in {word.name for word in words_of([RUNS])}


def test_the_first_mention_of_a_word_leads_to_its_meaning() -> None:
    linked = linker(words_of([RUNS]))
    text = str(linked("Drift <b> of the scale; drift again, bits per byte, and overscale or dense/loop."))
    assert text.count('class="term"') == 3
    assert '<a class="term" href="#word-drift" data-word="drift">Drift</a> &lt;b&gt;' in text
    assert "drift again" in text
    assert 'data-word="bits-per-byte"' in text
    key = heading_keys(words_of([RUNS]))
    assert (key("L2 norm of H"), key("seeds")) == ("l2-norm", "")
