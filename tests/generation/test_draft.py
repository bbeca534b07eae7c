"""Drafts by an early exit: greedy text is full depth's, drawn text has its distribution, and calls are saved."""

from typing import Any

import pytest
import torch
from torch import Tensor

import loopscope
from loopscope.generation.decoder import generate_tokens, make_steps
from loopscope.generation.draft import Draft
from loopscope.generation.drafted_steps import DraftedSteps
from loopscope.generation.sampling import Sampler, Sampling
from loopscope.generation.settings import Settings
from loopscope.generation.stopping import Stopping
from loopscope.model.looped import LoopedTransformer
from tests.generation.fixtures import VOCABULARY, Erratic, expect, lively, ragged, run
from tests.model.fixtures import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_greedy_text_is_that_of_full_depth(name: str) -> None:
    model = lively(name)
    made = run(model, 8, loops=4, draft=Draft(2, 3))
    expect(model, made, 4)
    assert len({token for row in made.tokens for token in row}) > 3, "one token again and again tests nothing"


@pytest.mark.parametrize("tokens", [1, 2, 7])
@pytest.mark.parametrize("loops", [1, 2, 3])
def test_any_exit_may_guess_any_number_of_tokens(loops: int, tokens: int) -> None:
    model = agreeing(lively(), 0.02)
    made, plain = run(model, 20, loops=4, draft=Draft(loops, tokens)), run(model, 20, loops=4)
    assert (made.tokens, made.loops, made.ended) == (plain.tokens, plain.loops, plain.ended)
    assert 0 < made.guessed_share <= tokens / (tokens + 1), "some guesses stand"
    assert sum(made.guessed) < sum(map(len, made.tokens)) * tokens / (tokens + 1), "and some do not"


def agreeing(model: LoopedTransformer, share: float) -> LoopedTransformer:
    """A model whose loops write so little that exits often agree: what its layers add is a share of what it was."""
    with torch.no_grad():
        for layer in model.layers:
            layer.attention.out.weight *= share
            layer.feed_forward.down.weight *= share
    return model


def test_a_round_reads_the_stack_as_seldom_as_it_says() -> None:
    """Exits that all agree, so every guess stands: n + 1 tokens for (n + 1) · d + K - d calls of the stack."""
    model, calls = agreeing(lively(), 0.0), [0]
    model.layers[0].register_forward_pre_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    ids = ragged()[0][:1]
    for exit_, guesses in ((1, 4), (2, 3)):
        calls[0] = 0
        made = generate_tokens(
            model, ids, Settings(Stopping(2 * (guesses + 1)), loops=4, draft=Draft(exit_, guesses))
        )
        rounds = 2 * ((guesses + 1) * exit_ + 4 - exit_)
        assert calls[0] == rounds + 4 + 1, "two rounds, the prompt, and the loop that shows the vocabulary"
        assert made.guessed_share == guesses / (guesses + 1)


def test_what_full_depth_says_does_not_depend_on_the_guesses() -> None:
    """Logits of every token of a round, against steps of one token, whatever was guessed and dropped before."""
    model, ids = lively("prelude and coda"), torch.randint(VOCABULARY, (2, 12))
    pads = torch.tensor([0, 3])
    plain = make_steps(model, Settings(Stopping(1), loops=4), pads, 14)
    drafted = DraftedSteps(model, 4, Draft(2, 3), pads, 14)
    with torch.no_grad():
        plain.prefill(ids[:, :5])
        drafted.prefill(ids[:, :5])
        expected = [plain.step(ids[:, place]).logits for place in range(5, 12)]
        drafted.begin(torch.tensor([2, 2]))
        for _ in range(3):
            drafted.guess(torch.tensor([1, 2]))  # nonsense, of which nothing is kept
        drafted.verify()
        drafted.accept(torch.tensor([0, 0]))
        at = torch.zeros(2, dtype=torch.int64)
        for taken in (torch.tensor([1, 3]), torch.tensor([3, 2]), torch.tensor([2, 1])):
            drafted.begin(torch.tensor([2, 2]))
            for ahead in range(3):
                drafted.guess(ids[torch.arange(2), (5 + at + ahead).clamp(max=11)])
            found = drafted.verify()
            for row in range(2):
                for ahead in range(int(taken[row])):
                    assert torch.allclose(
                        found[row, ahead], expected[int(at[row]) + ahead][row], rtol=0, atol=1e-9
                    )
            drafted.accept(taken)
            at += taken


@pytest.mark.parametrize("temperature", [None, 0.7])
def test_rows_get_what_they_get_alone(temperature: float | None) -> None:
    model, (ids, mask), numbers = agreeing(lively("prelude and coda"), 0.1), ragged(), [9, 3, 14]
    sampling = Sampling(temperature, seed=None if temperature is None else 5)
    made = generate_tokens(model, ids, Settings(Stopping(numbers), sampling, draft=Draft(1, 4)), mask)
    for row, count in enumerate(numbers):
        own = Sampling(temperature, seed=None if temperature is None else 5 + row)
        alone = generate_tokens(
            model, ids[row][mask[row] == 1][None], Settings(Stopping(count), own, draft=Draft(1, 4))
        )
        assert (made.tokens[row], made.guessed[row]) == (alone.tokens[0], alone.guessed[0])
    assert [len(row) for row in made.tokens] == numbers


def test_drawn_tokens_have_full_depths_distribution() -> None:
    """Counts of 6,000 draws of a guess judged, against the probabilities, by chi-squared."""
    torch.manual_seed(0)
    rows, size = 6000, 8
    early, full = torch.randn(size) * 1.5, torch.randn(size) * 1.5
    sampler = Sampler(Sampling(0.8, top_k=6, seed=1), rows)
    places = list(range(rows))
    guess = sampler.guess(early.expand(rows, -1), places)
    drawn = sampler.judge(full.expand(rows, -1), guess, places)
    kept = full.topk(6).indices
    shares = torch.zeros(size).index_copy(0, kept, (full[kept] / 0.8).softmax(dim=-1))
    counts = torch.bincount(drawn, minlength=size).double()
    assert counts[shares == 0].sum() == 0, "what the filters take out never comes"
    expected = rows * shares[kept].double()
    assert float(((counts[kept] - expected) ** 2 / expected).sum()) < 20.5, "0.1 % of five degrees of freedom"
    early_shares = torch.zeros(size).index_copy(
        0, early.topk(6).indices, (early.topk(6).values / 0.8).softmax(dim=-1)
    )
    stood = float((drawn == guess.tokens).double().mean())
    assert stood == pytest.approx(float(torch.minimum(shares, early_shares).sum()), abs=0.02)
    assert 0.1 < stood < 0.9


def test_drawn_texts_have_full_depths_distribution() -> None:
    """The second and third token of 3,000 short texts, drafted and not: the same counts but for chance."""
    model = agreeing(lively(vocabulary=5), 0.5)
    ids = torch.tensor([[3, 1, 4]]).expand(3000, -1)
    pairs = [
        generate_tokens(model, ids, Settings(Stopping(3), Sampling(1.5, seed=seed), draft=draft))
        for seed, draft in ((0, None), (10_000, Draft(1, 2)))
    ]
    plain, drafted = (
        torch.bincount(torch.tensor([5 * row[1] + row[2] for row in made.tokens]), minlength=25).double()
        for made in pairs
    )
    seen = plain + drafted > 0
    assert int(seen.sum()) > 12, "many pairs come"
    assert float(((plain - drafted) ** 2 / (plain + drafted))[seen].sum()) < 51, (
        "0.1 % of 24 degrees of freedom"
    )
    assert 0.1 < pairs[1].guessed_share < 0.65


def test_a_text_ends_where_it_ends_without_a_draft() -> None:
    model, ids = agreeing(lively(), 0.02), ragged()[0]
    plain = loopscope.generate(model, ids, 16, loops=4)
    eos = [plain.tokens[0][5], plain.tokens[2][9]]
    ended = loopscope.generate(model, ids, 16, loops=4, eos=eos)
    drafted = loopscope.generate(model, ids, 16, loops=4, eos=eos, draft_loops=1, draft_tokens=5)
    assert (drafted.tokens, drafted.ended) == (ended.tokens, ended.ended)
    assert len(ended.tokens[0]) <= 6


def test_a_text_may_fill_all_learned_positions_and_begin_with_one_token() -> None:
    model = agreeing(lively(sequence=12), 0.02)
    for length in (1, 7):
        ids = ragged()[0][:2, :length]
        more = {"draft_loops": 1, "draft_tokens": 6}
        made = loopscope.generate(model, ids, [13 - length, 4], **more)
        assert made.tokens == loopscope.generate(model, ids, [13 - length, 4]).tokens


def test_a_prompt_may_come_in_pieces() -> None:
    model = lively("prelude and coda")
    assert run(model, 8, draft=Draft(1, 3), prompt_piece=4) == run(model, 8, draft=Draft(1, 3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"draft_loops": 3},
            "draft_loops is 3; it must be a whole number from 1 to 2: an exit before the last",
        ),
        ({"draft_loops": 0}, "draft_loops is 0; it must be a whole number from 1 to 2"),
        ({"draft_loops": 1.5}, "draft_loops is 1.5"),
        ({"draft_loops": 1, "loops": 1}, "every token runs 1 loop: there is no exit before its last"),
        ({"draft_loops": 1, "draft_tokens": 0}, "draft_tokens is 0; it must be a whole number from 1 to 64"),
        ({"draft_tokens": 4}, "draft_tokens is 4, and no draft_loops says which exit guesses them"),
        ({"draft_loops": 1, "exit_rule": Erratic()}, "leave one of them out"),
        ({"draft_loops": 1, "cache": False}, "leave cache as it is"),
        ({"draft_loops": 1, "loops": [2, 3, 3]}, "with a draft all rows run one depth"),
    ],
)
def test_a_draft_that_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(":", ".")):
        loopscope.generate(lively(), ragged()[0], 4, **options)


class Bare(LoopedTransformer):
    """A model that does not know the cache."""

    remembers = ()

    def __init__(self, model: LoopedTransformer) -> None:
        super().__init__(model.config)
        self.remembers = ()


def test_a_model_without_a_cache_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="draft_loops is 1, and this model's text cannot be made in rounds"):
        loopscope.generate(Bare(lively().float()), ragged()[0], 4, draft_loops=1)


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_an_exit_that_overflows_guesses_nothing(temperature: float | None) -> None:
    """A final-only readout is raw at early exits: there logits may overflow where full depth's do not."""
    model = lively(readout="final-only").float()
    with torch.no_grad():
        model.token_embedding.weight *= 1e25
        model.unembedding.weight *= 1e15  # type: ignore[union-attr]
    with torch.no_grad():
        first, *_, last = loopscope.unroll(model, ragged()[0])
        assert not first.logits().isfinite().all()
        assert last.logits().isfinite().all()
    sampling = Sampling(temperature)
    plain, drafted = (
        generate_tokens(model, ragged()[0], Settings(Stopping(6), sampling, draft=draft))
        for draft in (None, Draft(1, 3))
    )
    assert drafted.guessed_share == 0
    if temperature is None:
        assert drafted.tokens == plain.tokens


def test_a_draft_is_not_compiled_and_says_so() -> None:
    with pytest.warns(UserWarning, match="compile has no effect beside draft_loops"):
        loopscope.generate(lively(), ragged()[0], 2, draft_loops=1, compile=True)


def test_the_sampler_guesses_nothing_for_rows_that_want_nothing() -> None:
    sampler, logits = Sampler(Sampling(1.0, seed=3), 2), torch.zeros(2, 4)
    guess = sampler.guess(logits, [1])
    assert guess.tokens[0] == -1
    assert guess.tokens[1] >= 0
    drawn: Tensor = sampler.judge(logits, guess, [0, 1])
    assert drawn[1] == guess.tokens[1], "equal distributions: every guess stands"
