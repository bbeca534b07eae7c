"""Tasks against the definitions written out; draws, parts and difficulty as promised."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopscope.config.recipes import recipe
from loopscope.config.run_config import parse_config
from loopscope.data.config import DataConfig
from loopscope.data.source import PreparedTask, open_data
from loopscope.data.task_config import SETTINGS, TaskConfig
from loopscope.data.tasks import AbstractTask, TaskWindows, build_task
from loopscope.data.tasks.base import NO_ANSWER
from loopscope.data.tasks.p_hop import hop_back
from loopscope.data.tasks.windows import is_held_out
from loopscope.data.tokenizers import SymbolTokenizer, tokenizer_from_text
from loopscope.training.loop import TrainingWindows

TASKS: dict[str, dict[str, Any]] = {
    "p-hop": {"hops": 3, "symbols": 5},
    "modular-addition": {"length": 9, "modulus": 7},
    "brackets": {"nesting": 4, "kinds": 3},
}


def made(name: str, answers: str = "last", sequence: int = 32) -> AbstractTask:
    return build_task(TaskConfig(name=name, answers=answers, **TASKS[name]), sequence)  # type: ignore[arg-type]


def p_hop(tokens: list[int], hops: int) -> int:
    """Sanford et al., section 4.1, letter by letter (1-based): find(i) = max {0} ∪ {j <= i : X_{j-1} = X_i}."""
    x = [None, *tokens]

    def find(i: int) -> int:
        return max([0, *(j for j in range(2, i + 1) if x[j - 1] == x[i])])

    at = len(tokens)
    for _ in range(hops):
        at = find(at) if at else 0
    return x[at] if at else NO_ANSWER  # type: ignore[return-value]


def modular_addition(tokens: list[int], modulus: int) -> int:
    return sum(token for token in tokens if token != modulus) % modulus


def brackets(tokens: list[int], kinds: int) -> int:
    """With a stack; fails where a bracket closes another one."""
    stack: list[int] = []
    for token in tokens:
        if token < kinds:
            stack.append(token)
        else:
            assert stack.pop() == token - kinds
    return kinds + stack[-1] if stack else NO_ANSWER


ANSWERS = {
    "p-hop": lambda tokens: p_hop(tokens, 3),
    "modular-addition": lambda tokens: modular_addition(tokens, 7),
    "brackets": lambda tokens: brackets(tokens, 3),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TASKS)
def test_answers_are_those_of_the_definition_after_every_token(name: str, seed: int) -> None:
    problems = made(name, "all").draw(np.random.default_rng(seed), 40)
    assert len(problems.input_ids) > 5
    for tokens, labels in zip(problems.input_ids.tolist(), problems.labels.tolist(), strict=True):
        assert labels == [ANSWERS[name](tokens[: end + 1]) for end in range(len(tokens))]
        assert labels[-1] != NO_ANSWER


@pytest.mark.parametrize("name", TASKS)
def test_one_answer_is_the_last_of_them(name: str) -> None:
    one, every = (made(name, answers).draw(np.random.default_rng(0), 40) for answers in ("last", "all"))
    assert (one.input_ids == every.input_ids).all()
    assert (one.labels[:, -1] == every.labels[:, -1]).all()
    assert (one.labels[:, :-1] == NO_ANSWER).all()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(1, 6))
def test_hops_follow_the_definition_on_any_sequence(tokens: list[int], hops: int) -> None:
    """Also where neighbours are equal, which the task itself does not draw."""
    found = hop_back(np.array([tokens]), hops, 4)[0].tolist()
    assert found == [p_hop(tokens[: end + 1], hops) for end in range(len(tokens))]


def test_one_hop_is_the_induction_head() -> None:
    tokens = np.array([[0, 1, 2, 0]])  # a b c a: b followed the last a
    assert hop_back(tokens, 1, 3)[0, -1] == 1
    assert hop_back(tokens, 2, 3)[0, -1] == NO_ANSWER  # b stood nowhere before


def test_difficulty_is_what_it_says() -> None:
    opened = made("brackets").draw(np.random.default_rng(1), 200)
    heights = np.where(opened.input_ids < 3, 1, -1).cumsum(axis=1)
    assert (heights.max(axis=1) == 4).all()
    assert (heights.min(axis=1) >= 0).all()
    assert (opened.input_ids[:, -1] >= 3).all()  # a closing one: the asked one is some way back
    hopping = made("p-hop").draw(np.random.default_rng(1), 200)
    assert (hopping.input_ids[:, 1:] != hopping.input_ids[:, :-1]).all()
    assert set(np.unique(hopping.input_ids)) == set(range(5))
    chains = made("modular-addition").draw(np.random.default_rng(1), 200)
    assert chains.input_ids.shape == (200, 10)
    assert (chains.input_ids[:, -1] == 7).all()


@pytest.mark.parametrize("name", TASKS)
def test_no_answer_is_likelier_than_chance_allows(name: str) -> None:
    """A model that says one symbol whatever it reads must not look as if it knew something."""
    problems = TaskWindows(made(name), "training").batch(0, 0, 0, 4000)[1][:, -1]
    shares = torch.bincount(problems).float() / len(problems)
    chance = {"p-hop": 1 / 5, "modular-addition": 1 / 7, "brackets": 1 / 3}[name]
    assert float(shares.max()) < chance + 4 * (chance / 4000) ** 0.5


@pytest.mark.parametrize("name", TASKS)
def test_batches_are_functions_of_seed_step_and_rank(name: str) -> None:
    windows = TaskWindows(made(name), "training")
    assert isinstance(windows, TrainingWindows)
    first, again = windows.batch(3, 7, 0, 8), TaskWindows(made(name), "training").batch(3, 7, 0, 8)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert first[0].dtype == torch.int64
    assert first[0].shape == (8, windows.task.width)
    others = [windows.batch(4, 7, 0, 8), windows.batch(3, 8, 0, 8), windows.batch(3, 7, 1, 8, world=2)]
    assert not any(torch.equal(first[0], other[0]) for other in others)
    with pytest.raises(ValueError, match="rank is 2"):
        windows.batch(0, 0, 2, 8, world=2)


@pytest.mark.parametrize("name", TASKS)
def test_parts_share_no_problem(name: str) -> None:
    """Few enough problems that any two draws would meet often, were it not for the split."""
    small = {
        "p-hop": ({"hops": 1, "symbols": 3}, 10),
        "modular-addition": ({"length": 3, "modulus": 8}, 4),
        "brackets": ({"nesting": 3, "kinds": 2}, 11),
    }
    settings, sequence = small[name]
    task = build_task(TaskConfig(name=name, **settings), sequence)
    train, validation = TaskWindows(task, "training"), TaskWindows(task, "validation", 400)
    trained = {tuple(row) for step in range(40) for row in train.batch(0, step, 0, 64)[0].tolist()}
    held = {tuple(row) for ids, _ in validation.sequential(64) for row in ids.tolist()}
    everything = {tuple(row) for row in task.draw(np.random.default_rng(5), 50_000).input_ids.tolist()}
    assert len(trained) > 50  # training goes through its part many times over
    assert held
    assert not trained & held
    share = is_held_out(np.array(sorted(everything))).mean()
    assert 0.04 < share < 0.25


def test_the_split_is_the_same_everywhere() -> None:
    """Frozen: a change would turn held-out problems of an old run into training ones."""
    rows = np.array(list(itertools.product(range(3), repeat=4)))
    assert np.flatnonzero(is_held_out(rows)).tolist() == FROZEN


FROZEN = [0, 3, 17, 20, 31, 37, 38, 47, 50]


def test_validation_is_in_a_fixed_order_whatever_the_batch() -> None:
    windows = TaskWindows(made("p-hop"), "validation", 100)
    one = torch.cat([ids for ids, _ in windows.sequential(7)])
    other = torch.cat([ids for ids, _ in windows.sequential(64)])
    assert torch.equal(one, other)
    assert len(one) == len(windows) == 100
    assert torch.equal(torch.cat([ids for ids, _ in windows.sequential(8, 20)]), one[:20])
    assert len({tuple(row) for row in one.tolist()}) == 100


def test_a_task_with_too_few_problems_is_refused() -> None:
    tiny = build_task(TaskConfig(name="modular-addition", length=2, modulus=2), 3)
    outcomes = []
    for part in ("training", "validation"):
        try:
            outcomes.append(len({tuple(r) for r in TaskWindows(tiny, part, 8).batch(0, 0, 0, 8)[0].tolist()}))
        except ValueError as error:
            outcomes.append(str(error))
    assert any("too few different problems of 3 tokens" in str(outcome) for outcome in outcomes)


@pytest.mark.parametrize("name", TASKS)
def test_the_config_knows_the_shapes(name: str) -> None:
    config = TaskConfig(name=name, **TASKS[name])
    shortest = build_task(config, config.fewest_tokens)
    assert config.entries == len(shortest.symbols)
    assert shortest.width == config.fewest_tokens == config.width(config.fewest_tokens)
    assert build_task(config, 50).width == config.width(50)
    drawn = shortest.draw(np.random.default_rng(0), 1000)
    assert len(drawn.input_ids) > 100  # common enough to be drawn
    with pytest.raises(ValueError, match=f"too short for task '{name}' with {SETTINGS[name][0]}"):
        config.width(config.fewest_tokens - 1)


@pytest.mark.parametrize("name", TASKS)
def test_the_tokenizer_reads_what_it_writes(name: str) -> None:
    data = open_data(DataConfig(corpus="task", task=TaskConfig(name=name, **TASKS[name])))
    assert isinstance(data, PreparedTask)
    tokenizer = tokenizer_from_text(data.tokenizer_text)
    assert isinstance(tokenizer, SymbolTokenizer)
    assert tokenizer.hash == data.tokenizer.hash
    ids = data.validation_windows(32).batch(0, 0, 0, 1)[0][0].tolist()
    text = tokenizer.decode(ids)
    assert tokenizer.encode(text).tolist() == ids
    assert text == " ".join(data.tokenizer.symbols[index] for index in ids)
    stream = list(tokenizer.encode_stream([text[:5], text[5:11], text[11:]]))
    assert np.concatenate(stream).tolist() == ids
    with pytest.raises(ValueError, match="'what' is no symbol of this task"):
        tokenizer.encode("what is this")
    assert tokenizer.decode([0, 99]).endswith("<99>")
    with pytest.raises(ValueError, match="must be one word"):
        SymbolTokenizer(["a b", "c"])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "p-hp"}, "task 'p-hp' is not known; did you mean 'p-hop'"),
        ({"hops": 0}, "data.task.hops is 0: input should be greater than or equal to 1"),
        (
            {"name": "modular-addition", "modulus": 1},
            "data.task.modulus is 1: input should be greater than or equal to 2",
        ),
        ({"modulus": 7}, "modulus belongs to task 'modular-addition' and does nothing for 'p-hop'"),
        ({"hops": 40}, "model.sequence is 128, too short for task 'p-hop' with hops 40; it needs 164"),
        ({"symbols": 26}, "uses 26 ids, model.vocabulary is 20; set model.vocabulary: 26"),
        ({"hopes": 3}, "unknown key data.task.hopes; did you mean hops"),
    ],
)
def test_bad_settings_are_named(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^test: .*" + message.split(";")[0].replace("(", r"\(")) as raised:
        parse_config({"model": {"vocabulary": 20}, "data": {"corpus": "task", "task": task}}, "test")
    assert message in str(raised.value)


def test_settings_without_a_task_are_refused_and_too_much_room_is_noted() -> None:
    with pytest.raises(ValueError, match="task belongs to corpus 'task', not 'stdlib'"):
        parse_config({"data": {"task": {"hops": 3}}}, "test")
    with pytest.warns(UserWarning, match="model.vocabulary is 4096, but task 'p-hop' uses 4"):
        recipe("laptop", "dense/raw", {"data": {"corpus": "task"}})
    with pytest.warns(UserWarning, match="model.sequence is 128, but task 'modular-addition' uses 9"):
        recipe(
            "laptop",
            "dense/raw",
            {"model": {"vocabulary": 8}, "data": {"corpus": "task", "task": {"name": "modular-addition"}}},
        )
