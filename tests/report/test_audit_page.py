"""The page of audits: one file, offline, escaped, whatever the records hold."""

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from loopscope.cli.audit_print import print_audits
from loopscope.report.audit_page import write_audit_page
from loopscope.results import AuditedModel, SideScale, TokenNorms, audits_from_json, load_audits, to_json
from loopscope.results.audits import audit_values
from tests.report.audits.fixtures import broken_report, make_audit, make_report
from tests.report.fixtures import (
    EVIL,
    Tags,
    assert_nothing_breaks_out,
    assert_offline,
    figure_data,
)

KEYS = {
    "audit-blind-corner",
    "audit-drift",
    "audit-turning",
    "audit-final-sweep",
    "audit-clamp",
    "audit-rescaled",
    "audit-token-norms",
    "audit-norm-shares",
    "audit-dynamics",
    "audit-step-size",
    "audit-cosines",
    "audit-increment",
}


def write(folder: Path, *audits: AuditedModel) -> str:
    page = write_audit_page(audits, folder / "page.html")
    assert page == folder / "page.html"
    assert page.stat().st_size < 3_000_000
    return page.read_text()


@pytest.mark.smoke
def test_one_self_contained_file_with_figures_beside_it(tmp_path: Path) -> None:
    text = write(tmp_path / "new folder", make_audit())
    assert_offline(text)
    assert set(re.findall(r'data-figure="([^"]+)"', text)) == KEYS == set(figure_data(text))
    for key in KEYS:
        assert (tmp_path / "new folder" / "figures" / f"{key}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "new folder" / "figures" / f"{key}.svg").read_text()[:2000]


@pytest.mark.usefixtures("undrawn")
def test_a_card_says_the_verdict_its_reason_and_what_was_tried(tmp_path: Path) -> None:
    other = make_report("visible", objective="terminal", why="seen at the end")
    text = write(tmp_path, make_audit("mine", "blind", objective_from="assumed", others=(other,)))
    words = " ".join(" ".join(Tags(text).words).split())
    assert "mine is blind: no loss sees the scale that it carries from loop to loop." in words
    assert "made up: blind" in words
    assert "dense was assumed. Under terminal: visible" in words
    assert "add a norm penalty visible 0 put a norm between loops removed +0.75" in words
    assert "2 of 2 changes close it" in words
    assert "loop 1 blind carry 50% exposure 1.0·10⁻⁸ loop 2 blind carry 75%" in words
    assert "scale, loop 1 to 4 × 4 to loop 16 × 16" in words
    assert "made up, not measured" in words
    assert "made-up tokens" in words


@pytest.mark.usefixtures("undrawn")
def test_seeds_of_a_condition_are_called_alike(tmp_path: Path) -> None:
    text = write(tmp_path, *map(make_audit, ("dense/raw", "a/b", "dense/raw, seed 1")))
    shown = re.findall(r'class="model" title="([^"]+)"', text)
    assert sorted(shown) == ["a/b", "dense/raw, seed 0", "dense/raw, seed 1"]
    assert not any(
        trace.get("name") == "dense/raw" for drawn in figure_data(text).values() for trace in drawn["data"]
    )


@pytest.mark.usefixtures("undrawn")
def test_every_model_is_shown_and_compared(tmp_path: Path) -> None:
    names = {"one": "blind", "two": "visible", "three": "damped", "four": "removed"}
    text = write(tmp_path, *(make_audit(name, verdict) for name, verdict in names.items()))  # type: ignore[arg-type]
    assert "1 of 4 models carries a scale that no loss sees: one." in text
    assert re.findall(r'class="card (\w+)"', text) == list(names.values())
    rows = re.findall(r'<th scope="row" data-sort="(\w+)">', text)
    assert rows[:4] == list(names)
    for key, figure in figure_data(text).items():
        drawn = {trace["name"] for trace in figure["data"]} | {
            annotation["text"] for annotation in figure["layout"].get("annotations", [])
        }
        assert set(names) <= drawn, key
    matrix = text[text.index('class="matrix"') :]
    assert matrix.index("one<br>") < matrix.index("three<br>")


@pytest.mark.usefixtures("undrawn")
def test_none_blind_is_said_so(tmp_path: Path) -> None:
    text = write(tmp_path, make_audit("a", "visible"), make_audit("b", "removed"))
    assert "None of 2 models carries a scale that no loss sees." in text
    assert 'class="matrix"' not in text


@pytest.mark.usefixtures("undrawn")
def test_untrusted_text_cannot_break_out(tmp_path: Path) -> None:
    tokens = tuple(
        TokenNorms(k, 4, 1.0, 1.0, 2.0, 3.0, 0.5, 0.1, 0.5, 0.5, ((0, 1, 7, 3.0),)) for k in (1, 2, 3, 4)
    )
    clamped = make_report().radial_clamp["none"]
    report = make_report(
        why=EVIL, objective=EVIL, terms=(EVIL,), notes=(EVIL,), tokens=tokens, radial_clamp={EVIL: clamped}
    )
    evil = make_audit(EVIL, report=report, others=(report,), data=EVIL, token_texts={"7": EVIL})
    assert_nothing_breaks_out(write(tmp_path / "one", evil))
    assert_nothing_breaks_out(write(tmp_path / "two", evil, evil))


@pytest.mark.usefixtures("undrawn")
def test_what_goes_beside_the_state_has_rows(tmp_path: Path) -> None:
    side = SideScale("momentum <b>", 2, "blind", 3.5, 0.75, 1.0, 2e-7, 0.0125, 1e-8, 0.0)
    report = make_report("blind", 4, side_scales=(side,))
    words = " ".join(" ".join(Tags(write(tmp_path, make_audit("mine", report=report))).words).split())
    assert "What else goes from loop to loop, with a scale of its own." in words
    assert "mine momentum <b> 2 blind 3.50 75% 2.0·10⁻⁷ 1.2% nil" in words
    console = Console(record=True, width=100, file=StringIO())
    print_audits([make_audit("mine", report=report)], console)
    assert re.search(
        r"momentum <b>\s+2\s+\S+ blind\s+3.5\s+75%\s+2.0e-07\s+1.2%\s+0.0e\+00", console.export_text()
    )


@pytest.mark.usefixtures("undrawn")
def test_tokens_are_shown_with_their_text_and_place(tmp_path: Path) -> None:
    words = " ".join(" ".join(Tags(write(tmp_path, make_audit())).words).split())
    assert "4 ↵ 0 3 160.0 4 × ␣the 1 5 120.0 3 ×" in words
    words = " ".join(" ".join(Tags(write(tmp_path, make_audit(token_texts={}))).words).split())
    assert "id 17 0 3" in words


@pytest.mark.parametrize(
    "kind",
    ["broken", "one loop", "thirty loops", "mixed depths", "no records", "huge", "same names", "long names"],
)
@pytest.mark.usefixtures("undrawn")
def test_any_audit_gives_a_page(tmp_path: Path, kind: str) -> None:
    empty = make_report(
        visibility=(), readout=(), carry=(), dynamics=(), tokens=(), final_scale_sweep={}, radial_clamp={}, rescaled={},
        remedies=(), notes=(), terms=(),
    )  # fmt: skip
    loops = tuple(
        loop.__class__(loop.loop, "visible", 1e30, -1e6 * loop.loop, 1e300, 0.0)
        for loop in make_report().loops
    )
    audits = {
        "broken": [make_audit(report=broken_report())],
        "one loop": [make_audit(report=make_report("visible", 1))],
        "thirty loops": [make_audit(loops=30)],
        "mixed depths": [make_audit("a", loops=1), make_audit("b", "removed", loops=7)],
        "no records": [make_audit(report=empty)],
        "huge": [make_audit(report=make_report("visible", loops=loops))],
        "same names": [make_audit("a"), make_audit("a"), make_audit("a (2)")],
        "long names": [make_audit("long-" * 40 + str(n)) for n in range(3)],
    }[kind]
    text = write(tmp_path, *audits)
    assert "<h1>" in text
    assert "NaN" not in re.search(r'id="figure-data">(.*?)</script>', text, re.DOTALL)[1]  # type: ignore[index]
    if kind == "broken":
        assert "audit-blind-corner" not in figure_data(text)
        assert "not finite" in text
    if kind == "same names":
        assert re.findall(r'class="model" title="([^"]+)"', text) == ["a", "a (2)", "a (2) (2)"]


@pytest.mark.usefixtures("undrawn")
def test_eight_deep_models_fit_in_three_megabytes(tmp_path: Path) -> None:
    audits = [make_audit(f"model {n}", loops=30) for n in range(10)]
    text = write(tmp_path, *audits)
    assert "The first 8 of 10 models." in text
    assert "2 more cards" in text
    assert "model 9" not in {trace["name"] for trace in figure_data(text)["audit-drift"]["data"]}


@pytest.mark.usefixtures("undrawn")
def test_what_was_written_as_json_gives_the_same_page(tmp_path: Path) -> None:
    audits = [make_audit("a", "damped"), make_audit("b", report=broken_report())]
    file = tmp_path / "audit.json"
    file.write_text(to_json({"models": [audit_values(audited) for audited in audits]}))
    assert write(tmp_path / "one", *load_audits(file)) == write(
        tmp_path / "two", *audits_from_json(file.read_text())
    )
    assert "b" in {audited.name for audited in load_audits(file)}


def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="audits is empty: give at least one"):
        write_audit_page([], tmp_path / "page.html")
    with pytest.raises(ValueError, match="a folder; name a file"):
        write_audit_page([make_audit()], tmp_path)
