"""Text over a family's own cache: the text of its own `generate`, and the one that is computed anew."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.data.tokenizers import ByteTokenizer
from loopscope.generation import Settings, Stopping, stream
from tests.interop import lookalikes
from tests.interop.foreign.families.fixtures import hrm
from tests.interop.foreign.families.models import dory, inkling
from tests.interop.lookalikes.cached import CachedOuroConfig, CachedOuroForCausalLM, ForgetfulOuroForCausalLM

COUNT = 8
PROMPT = torch.tensor([[5, 17, 3, 29, 11], [2, 38, 8, 1, 30]])


@dataclass(frozen=True)
class Family:
    """A small model of a family that has a `generate`, and how its own forward is set to a depth."""

    make: Callable[[], nn.Module]
    set_depth: Callable[[Any, int], None]


def _hrm_depth(module: Any, loops: int) -> None:
    module.config.H_cycles = loops
    module.config.num_hidden_layers = (
        loops * (module.config.L_cycles + 1) * module.config.num_layers_per_stack
    )


def _set(name: str) -> Callable[[Any, int], None]:
    return lambda module, loops: setattr(module.config, name, loops)


FAMILIES = {
    "dory": Family(dory, _set("n_recurrent_loops")),
    "inkling": Family(inkling, _set("loop_num_passes")),
    "hrm": Family(hrm, _hrm_depth),
    "of one's own": Family(lambda: CachedOuroForCausalLM(CachedOuroConfig()), _set("total_ut_steps")),
}
each_family = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "inkling" else ()) for name in FAMILIES]
)
most_families = pytest.mark.parametrize(
    "name", [name for name in FAMILIES if name != "inkling"]
)  # a slow forward


@cache
def built(name: str) -> tuple[Any, loopscope.AbstractLoopedLM]:
    return adapted(FAMILIES[name].make, 0.0 if name == "hrm" else 0.1)


@contextmanager
def own_depth(name: str, module: Any, loops: int) -> Iterator[None]:
    """A module's own forward, set to a depth by hand."""
    before = dict(vars(module.config))
    FAMILIES[name].set_depth(module, loops)
    try:
        yield
    finally:
        vars(module.config).update(before)


def adapted(make: Callable[[], nn.Module], noise: float = 0.1) -> tuple[Any, loopscope.AbstractLoopedLM]:
    """A module whose texts do not repeat one token, and its looped model."""
    torch.manual_seed(0)
    try:
        module = make().eval()
    except ImportError as error:  # an older transformers
        pytest.skip(str(error))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += noise * torch.randn_like(parameter)
    return module, loopscope.adapt(module)


@contextmanager
def silence() -> Iterator[None]:
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def own_text(module: Any, prompt: Tensor, count: int, **options: Any) -> list[list[int]]:
    made = module.generate(prompt, max_new_tokens=count, do_sample=False, eos_token_id=None, **options)
    found: list[list[int]] = made[:, prompt.shape[1] :].tolist()
    return found


@each_family
def test_cached_text_is_the_text_computed_anew_and_that_of_the_familys_own_generate(name: str) -> None:
    module, model = built(name)
    depths = (model.loops, model.loops + 2, 1) if name != "inkling" else (model.loops + 1,)  # a slow forward
    for loops in depths:
        anew = loopscope.generate(model, PROMPT, COUNT, cache=False, loops=loops)
        assert set(anew.loops[0]) == {loops}
        for kind in (True, "dynamic", "static", "none"):
            options = {} if kind in (True, "none") else {"cache_implementation": kind}
            with own_depth(name, module, loops):
                try:
                    own = own_text(module, PROMPT, COUNT, use_cache=kind != "none", **options)
                except RuntimeError:  # its own generate cannot use this kind either: Inkling, static
                    with pytest.raises(ValueError, match=f"cache is '{kind}', and Inkling.* cannot use it"):
                        loopscope.generate(model, PROMPT, COUNT, cache=kind)
                    continue
            with silence():
                made = loopscope.generate(model, PROMPT, COUNT, cache=kind, loops=loops)
            assert made == anew
            assert [list(row) for row in made.tokens] == own
    assert len({token for row in made.tokens for token in row}) > 3, "one token again and again tests nothing"


@pytest.mark.slow
def test_a_kind_that_fails_behind_the_window_is_refused_before_any_text() -> None:
    """Inkling's static cache, of a module whose own generate never ran: transformers remembers the largest it made."""
    module, model = adapted(inkling)
    assert not hasattr(module, "_previous_max_cache_length")
    with pytest.raises(ValueError, match="cache is 'static', and Inkling.* cannot use it"):
        loopscope.generate(model, PROMPT, COUNT, cache="static")


@each_family
def test_a_step_costs_one_token(name: str) -> None:
    module, model = built(name)
    loopscope.generate(model, PROMPT, 1)  # what is checked first is not counted
    lengths: list[int] = []
    embedding = next(part for part in module.modules() if isinstance(part, nn.Embedding))
    watch = embedding.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    loopscope.generate(model, PROMPT, 6)
    watch.remove()
    assert lengths[-6:] == [5] + [1] * 5  # the prompt, and then every token
    assert len(lengths) < 12  # before them, how many ids there are


@most_families
def test_rows_of_a_batch_get_what_they_get_alone(name: str) -> None:
    _, model = built(name)
    ids, mask = torch.cat([PROMPT, PROMPT[:1]]), torch.ones(3, 5, dtype=torch.int64)
    mask[1, :2], mask[2, 4:] = 0, 0
    alone = [loopscope.generate(model, ids[row][mask[row] == 1][None], 8) for row in range(3)]
    end = alone[0].tokens[0][2]  # which ends the first row, and maybe others
    made = loopscope.generate(model, ids, 8, attention_mask=mask, eos=end)
    for row, own in enumerate(alone):
        tokens = own.tokens[0]
        expected = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        assert made.tokens[row] == expected
    assert made.ended[0] == "eos"


@most_families
def test_draws_stops_and_pieces_are_those_of_any_model(name: str) -> None:
    _, model = built(name)
    drawn = {"temperature": 0.9, "top_k": 20, "top_p": 0.95, "min_p": 0.01, "seed": 3}
    made = loopscope.generate(model, PROMPT, 10, tokenizer=ByteTokenizer(), **drawn)
    assert made == loopscope.generate(model, PROMPT, 10, tokenizer=ByteTokenizer(), cache=False, **drawn)
    stop = made.texts[0][3]
    options = {"tokenizer": ByteTokenizer(), "stop": stop, **drawn}
    stopped = loopscope.generate(model, PROMPT, 10, **options)
    assert stopped == loopscope.generate(model, PROMPT, 10, cache=False, **options)
    assert stopped.ended[0] == "stop"
    for piece in (1, 2, 4):
        assert loopscope.generate(model, PROMPT, 10, prompt_piece=piece) == loopscope.generate(
            model, PROMPT, 10
        )


def test_a_text_that_depends_on_how_it_is_cut_is_the_familys_own_and_that_is_said_once() -> None:
    module, model = adapted(lambda: dory(recurrent_kv_cache_mode="last_loop"))
    with pytest.warns(UserWarning, match="depends on how it is cut into calls, by design") as said:
        made = loopscope.generate(model, PROMPT, 12)
    assert len(said) == 1
    assert "recurrent_kv_cache_mode='last_loop'" in str(said[0].message)
    assert [list(row) for row in made.tokens] == own_text(module, PROMPT, 12)
    with silence():
        anew = loopscope.generate(model, PROMPT, 12, cache=False)
    assert [list(row) for row in anew.tokens] == own_text(module, PROMPT, 12, use_cache=False)
    assert anew.tokens != made.tokens


def test_a_loop_count_that_is_changed_meanwhile_changes_nothing() -> None:
    module, model = adapted(FAMILIES["of one's own"].make)
    expected = loopscope.generate(model, PROMPT, 8, loops=2).tokens
    rows: list[list[int]] = [[], []]
    for new in stream(model, PROMPT, Settings(Stopping(8), loops=2)):
        assert module.config.total_ut_steps in (3, 7), "it is put back between tokens"
        module.config.total_ut_steps = 7
        for token in new:
            rows[token.row].append(token.token)
    assert tuple(map(tuple, rows)) == expected


def test_a_cache_that_a_forward_does_not_take_is_not_used() -> None:
    """Code of an older transformers: since 5.24 it gets no past under the name that it knows, without an error."""
    module, model = adapted(lambda: ForgetfulOuroForCausalLM(CachedOuroConfig()))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = loopscope.generate(model, PROMPT, 8)
    assert made == loopscope.generate(model, PROMPT, 8, cache=False)
    if [list(row) for row in made.tokens] != own_text(module, PROMPT, 8):
        assert len(said) == 1
        assert "with the cache of ForgetfulOuroForCausalLM the logits differ" in str(said[0].message)
        assert "computed anew for every token" in str(said[0].message)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (None, {"cache": "statik"}, "cache is 'statik', and CachedOuroForCausalLM cannot use it"),
        (None, {"cache": 3}, "cache is 3; it is True, False, or the kind"),
        (None, {"loops": 0}, "loops is 0; it must be a whole number from 1 up"),
        (None, {"loops": -2}, "loops is -2; it must be a whole number from 1 up"),
        (None, {"prompt_piece": 0}, "prompt_piece is 0; it must be a whole number of tokens from 1 up"),
        (
            None,
            {"cache": "static", "exit_rule": "fixed", "threshold": 2},
            "exits per token and drafts have another one; leave it out",
        ),
        (lookalikes.OuroForCausalLM, {"cache": "static"}, "OuroForCausalLM is no model of that library"),
    ],
)
def test_what_cannot_work_is_refused(
    make: Callable[[], nn.Module] | None, options: dict[str, Any], message: str
) -> None:
    _, model = built("of one's own") if make is None else adapted(make)
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        loopscope.generate(model, PROMPT, 3, **options)


@most_families
def test_rows_of_other_depths_get_what_they_get_alone(name: str) -> None:
    _, model = built(name)
    ids, loops, numbers = torch.cat([PROMPT, PROMPT]), [model.loops, 1, 1, model.loops], [4, 3, 6, 2]
    made = loopscope.generate(model, ids, numbers, loops=loops)
    for row, (depth, number) in enumerate(zip(loops, numbers, strict=True)):
        alone = loopscope.generate(model, ids[row][None], number, loops=depth)
        assert (made.tokens[row], made.loops[row]) == (alone.tokens[0], alone.loops[0])
