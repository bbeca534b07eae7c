"""Compiled steps: the tokens of the plain ones, in fewer calls, and plain steps with a warning where that cannot be."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.modules.module import register_module_forward_hook

import loopscope
from loopscope import machine_limits
from loopscope.generation import step_program
from loopscope.generation.compiled_steps import MORE_COLUMNS
from loopscope.generation.decoder import make_steps, stream
from loopscope.generation.settings import Settings
from loopscope.generation.step_program import StepProgram, cannot_compile, token_logits
from loopscope.generation.stopping import Stopping
from loopscope.generation.token_formulas import query_attention, row_product
from loopscope.generation.traced_cache import TracedCache
from loopscope.model.looped import LoopedTransformer
from tests.generation.compiled_texts import CHECKS
from tests.generation.fixtures import VOCABULARY, Erratic, lively, ragged, run
from tests.model.fixtures import VARIANTS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Programs run as they are written, and every one that is made is counted."""
    made: list[int] = []

    def as_written(step: Any) -> Any:
        made.append(1)
        return step

    monkeypatch.setattr(step_program, "_compiled", as_written)
    monkeypatch.setattr(step_program, "compiler_missing", lambda: None)
    return made


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_traced_makes_the_text_computed_anew(name: str, uncompiled: list[int]) -> None:
    model = lively(name)
    for prompts in (ragged(), (torch.tensor([[5]]), None)):
        traced = run(model, 8, prompts=prompts, loops=4, compile=True)
        assert traced == run(model, 8, prompts=prompts, loops=4, cache=False)
    assert len(uncompiled) == 1, "one program for a model and a depth"


def test_rows_that_end_early_leave_the_others_as_they_are(uncompiled: list[int]) -> None:
    model, (ids, mask) = lively("window"), ragged()
    for counts in ([3, 9, 6], [9, 2, 2], [2, 2, 12]):
        made = loopscope.generate(model, ids, counts, attention_mask=mask, compile=True)
        assert made == loopscope.generate(model, ids, counts, attention_mask=mask)
    mixed = {"loops": [1, 3, 2], "attention_mask": mask}
    assert loopscope.generate(model, ids, 6, compile=True, **mixed) == loopscope.generate(
        model, ids, 6, **mixed
    )


def test_a_text_longer_than_a_block(uncompiled: list[int]) -> None:
    model = lively(positions="rotary")
    prompts = (torch.randint(VOCABULARY, (2, MORE_COLUMNS - 4)), None)
    made = run(model, MORE_COLUMNS + 10, prompts=prompts, compile=True)
    assert made == run(model, MORE_COLUMNS + 10, prompts=prompts)


def test_draws_pieces_of_prompts_and_stops_are_as_ever(uncompiled: list[int]) -> None:
    model, (ids, mask) = lively("ouro"), ragged()
    options = {"temperature": 0.9, "top_p": 0.9, "seed": 3, "prompt_piece": 4, "eos": (7, 11, 30)}
    plain = loopscope.generate(model, ids, 12, attention_mask=mask, **options)
    assert loopscope.generate(model, ids, 12, attention_mask=mask, compile=True, **options) == plain


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_by_sums_is_the_product(rows: int, bias: bool) -> None:
    x, weight = torch.randn(rows, 1, 12), torch.randn(7, 12)
    added = torch.randn(7) if bias else None
    assert torch.allclose(row_product(x, weight, added), F.linear(x, weight, added), atol=1e-5)
    low = row_product(x.bfloat16(), weight.bfloat16())
    assert low.dtype == torch.bfloat16
    assert torch.allclose(low.float(), F.linear(x, weight), atol=0.2)


@pytest.mark.parametrize("heads", [2, 6])
def test_attention_by_sums_is_the_librarys(heads: int) -> None:
    query, key, value = torch.randn(3, 6, 1, 8), torch.randn(3, heads, 11, 8), torch.randn(3, heads, 11, 8)
    mask = (torch.arange(11) < torch.tensor([[11], [4], [1]]))[:, None, None]
    options = {"attn_mask": mask, "dropout_p": 0.0, "is_causal": False, "enable_gqa": heads != 6}
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    assert torch.allclose(query_attention(query, key, value, **options), expected, atol=1e-6)


def test_a_cache_of_tensors_hides_what_is_not_there() -> None:
    cache = TracedCache((), [torch.zeros(2, 1, 6, 4)], [], torch.tensor([3]), torch.tensor([0, 2]))
    assert cache.positions.tolist() == [[3], [1]]
    assert cache._mask(None).int()[:, 0, 0].tolist() == [[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]]
    assert cache._mask(1).int()[:, 0, 0].tolist() == [[0, 0, 0, 1, 0, 0]] * 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"cache": False}, "made without it"),
        ({"rule": Erratic()}, "exit rule"),
        ({}, "hooks"),
    ],
)
def test_what_cannot_be_compiled_runs_as_ever_and_says_so(options: dict[str, Any], why: str) -> None:
    model = lively()
    if why == "hooks":
        model.layers[0].register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match=f"compile has no effect: .*{why}"):
        made = run(model, 4, compile=True, **options)
    assert made == run(model, 4, **options)


def test_reasons_that_show_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively()
    monkeypatch.setattr(step_program, "compiler_missing", lambda: "there is none")
    assert "there is none" in (cannot_compile(model) or "")
    monkeypatch.setattr(step_program, "compiler_missing", lambda: None)
    assert cannot_compile(model) is None
    with torch.device("cpu"):
        assert "a mode is active" in (cannot_compile(model) or "")
    model.traceable = False
    assert "traceable" in (cannot_compile(model) or "")


def test_a_compiler_is_looked_for_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in (machine_limits.compiler_missing() or "")


@pytest.mark.parametrize("after", [0, 3])
def test_a_step_that_the_compiler_refuses_is_made_as_ever(
    after: int, monkeypatch: pytest.MonkeyPatch, uncompiled: list[int]
) -> None:
    model, calls = lively(), []

    def refuse(self: StepProgram, *inputs: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            self.failure = "it is Tuesday"
            return None
        return written(self, *inputs)

    written = StepProgram.__call__
    monkeypatch.setattr(StepProgram, "__call__", refuse)
    with pytest.warns(UserWarning, match="it is Tuesday"):
        made = loopscope.generate(model, ragged()[0], [2, 2, 9], compile=True)
    assert made == loopscope.generate(model, ragged()[0], [2, 2, 9])
    assert len(calls) == after + 1, "a failure is not tried again"


@pytest.mark.parametrize("value", [1, "yes", None])
def test_compile_is_yes_or_no(value: Any) -> None:
    with pytest.raises(ValueError, match="compile is .*; it is True or False"):
        loopscope.generate(lively(), ragged()[0], 2, compile=value)


@pytest.mark.slow
@pytest.mark.skipif(machine_limits.compiler_missing() is not None, reason="no C++ compiler")
@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_with_a_compiler(check: str) -> None:
    script = [sys.executable, "-m", "tests.generation.compiled_texts", check]
    ran = subprocess.run(script, capture_output=True, text=True, timeout=550, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-3000:]


def test_a_step_written_out_is_the_drivers() -> None:
    model, ids = lively("prelude and coda"), torch.randint(VOCABULARY, (2, 1))
    slots = [*make_slots(model)]
    empty = [torch.zeros(2, 4, 2, 8, dtype=torch.float64) for _ in slots]
    cache = TracedCache(
        slots, empty, [each.clone() for each in empty], torch.tensor([0]), torch.zeros(2).long()
    )
    *_, last = loopscope.unroll(model, ids, 3)
    assert torch.allclose(token_logits(model, 3, ids[:, 0], cache), last.logits()[:, -1])


def make_slots(model: LoopedTransformer) -> Any:
    steps: Any = make_steps(model, Settings(Stopping(2), loops=3), torch.zeros(1, dtype=torch.int64), 4)
    with torch.no_grad():
        steps.prefill(torch.tensor([[1]]))
    return steps.store.slots()


def test_whoever_comes_to_listen_in_a_text_is_heard_from_then_on(uncompiled: list[int]) -> None:
    model, (ids, _), heard = lively(), ragged(), []
    expected = [[new.token for new in step] for step in stream(model, ids, Settings(Stopping(6)))]
    steps = stream(model, ids, Settings(Stopping(6), compile=True))
    made = [next(steps), next(steps)]
    model.layers[0].register_forward_hook(lambda *_: heard.append(1))
    with pytest.warns(UserWarning, match="compile has no effect: its modules have hooks"):
        made += steps
    assert len(heard) == 4 * 3, "four steps of three loops"
    assert [[new.token for new in step] for step in made] == expected


def test_hooks_of_all_modules_are_hooks(uncompiled: list[int]) -> None:
    model, ids, heard = lively(), ragged()[0][:1], []
    hook = register_module_forward_hook(lambda *_: heard.append(1))
    try:
        with pytest.warns(UserWarning, match="compile has no effect: its modules have hooks"):
            loopscope.generate(model, ids, 4, compile=True)
    finally:
        hook.remove()
    assert not uncompiled
    assert len(heard) > 4 * 3 * 2, "and every layer of every step is called"


def test_as_many_graphs_as_there_may_be_end_the_text_by_plain_steps(
    uncompiled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = lively(), ragged()[0]
    plain = loopscope.generate(model, ids, 5)

    class TooMany(Exception):
        pass

    def refused(*_: Any) -> Any:
        calls.append(1)
        raise TooMany

    calls: list[int] = []
    monkeypatch.setattr(step_program, "_too_many", lambda: (TooMany,))
    with monkeypatch.context() as patch:
        patch.setattr(step_program, "_compiled", lambda step: refused)
        with pytest.warns(UserWarning, match="compiled for 16 states of it"):
            assert loopscope.generate(model, ids, 5, compile=True) == plain
    assert len(calls) == 1, "asked once a text"
    with pytest.warns(UserWarning, match="compiled for 16 states of it"):
        assert loopscope.generate(model, ids, 5, compile=True) == plain, "another text may have its graph"
    assert len(calls) == 2
