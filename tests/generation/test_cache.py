"""Cached generation against computing the whole text anew: every family, every depth, every padding."""

from pathlib import Path

import pytest
import torch
from transformers.cache_utils import Cache

import loopscope
from loopscope.generation.decoder import make_steps
from loopscope.generation.settings import Settings
from loopscope.generation.stopping import Stopping
from loopscope.kv_cache import Slot
from loopscope.model.initial_state import random_start
from tests.fixtures import PUBLISHED
from tests.generation.fixtures import VOCABULARY, expect, lively, run
from tests.model.fixtures import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.smoke
def test_cached_text_is_the_text_of_the_whole_model(name: str) -> None:
    model = lively(name)
    made = run(model, 8, loops=4)  # one past the trained depth
    expect(model, made, 4)
    assert len({token for row in made.tokens for token in row}) > 3, "one token again and again tests nothing"


@pytest.mark.parametrize("loops", [1, 3, 7])
def test_cached_text_at_any_depth_is_the_text_computed_anew(loops: int) -> None:
    model = lively("prelude and coda")
    cached, anew = run(model, 8, loops=loops), run(model, 8, loops=loops, cache=False)
    assert cached == anew
    expect(model, anew, loops)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_of_every_step_are_the_whole_texts(name: str) -> None:
    model, loops = lively(name), 2
    ids = torch.randint(VOCABULARY, (2, 9))
    steps = make_steps(model, Settings(Stopping(4), loops=loops), torch.zeros(2, dtype=torch.int64), 9)
    with torch.no_grad():
        *_, last = loopscope.unroll(model, ids, loops)
        whole = last.logits()
        steps.prefill(ids[:, :5])
        for place in range(5, 9):
            found = steps.step(ids[:, place]).logits
            assert torch.allclose(found, whole[:, place], rtol=0, atol=1e-9 * float(whole.abs().max()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_checkpoints_say_the_same_cached(name: str, fixtures: Path) -> None:
    model = loopscope.load(fixtures / name / "last.pt")
    ids = torch.arange(5, 13)[None]
    for loops in (model.loops, model.loops + 3):
        cached = loopscope.generate(model, ids, 16, loops=loops)
        assert cached.tokens == loopscope.generate(model, ids, 16, loops=loops, cache=False).tokens


def test_a_text_of_one_token_needs_no_prefill() -> None:
    model = lively("prelude and coda")
    prompts = (torch.tensor([[5]]), None)
    assert run(model, 5, prompts=prompts) == run(model, 5, prompts=prompts, cache=False)


def test_there_is_one_slot_per_loop_and_layer() -> None:
    model = lively("prelude and coda")
    steps = make_steps(model, Settings(Stopping(3), loops=4), torch.zeros(1, dtype=torch.int64), 8)
    with torch.no_grad():
        steps.prefill(torch.arange(5)[None])
        steps.step(torch.tensor([7]))
    store = steps.store  # type: ignore[attr-defined]
    assert isinstance(store.cache, Cache)
    assert set(store.slots()) == (
        {Slot("embed", 1, 0)}
        | {Slot("core", loop, layer) for loop in (1, 2, 3, 4) for layer in (0, 1)}
        | {Slot("readout", 4, layer) for layer in (0, 1)}
    )
    assert len(store.cache) == 11
    assert store.cache.get_seq_length() == 6
    assert store.bytes() == 11 * 2 * 8 * 32 * 8  # slots, keys and values, columns, channels, bytes


def test_a_step_costs_one_token() -> None:
    model, seen = lively(), []
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    run(model, 6, prompts=(torch.arange(9)[None], None))
    assert seen[:2] == [1] * 2  # one token through one loop: how many ids there are
    assert seen[2:8] == [8] * 6  # the prompt but its last token: 2 layers × 3 loops
    assert seen[8:] == [1] * 36


def test_noise_at_positions_is_the_noise_of_the_whole() -> None:
    whole = random_start(torch.zeros(1, 600, 4), training=False)
    places = torch.tensor([[0, 5, 255], [256, 511, 599]])
    assert torch.equal(random_start(torch.zeros(2, 3, 4), False, places), whole[0][places])


def test_a_model_in_training_mode_generates_in_evaluation_mode_and_is_put_back() -> None:
    model = lively(dropout=0.5)
    quiet = run(model, 3)
    model.train()
    model.layers[0].eval()
    assert run(model, 3).tokens == quiet.tokens
    assert model.training
    assert not model.layers[0].training
