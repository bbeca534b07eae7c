"""Fifty steps of training by every fast path, against the slow reference: the same losses. See also `test_compiled`."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.model.reference import PlainLooped, plain_loss, plain_optimizer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Objective, build_objective
from loopscope.objectives.token_loss import chunked_cross_entropy
from loopscope.ops.step_scope import cast_weight, step_scope
from loopscope.training.config import TrainingConfig
from loopscope.training.optim import build_optimizer
from loopscope.training.step import TrainingStep

STEPS, BATCH, SEQ, VOCABULARY, LOOPS = 50, 4, 12, 29, 2
CPU = torch.device("cpu")


def fresh(initialisation: str = "scaled", **changes: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    sizes = {"dim": 16, "heads": 2, "layers": 2, "loops": LOOPS, "vocabulary": VOCABULARY, "sequence": SEQ}
    return LoopedTransformer(ModelConfig(**{**sizes, "initialisation": initialisation, **changes})).train()


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Counting upwards, by steps of one or two: something to learn."""
    generator = torch.Generator().manual_seed(step)
    start, stride = (torch.randint(high, (BATCH, 1), generator=generator) for high in (VOCABULARY, 2))
    tokens = (start + torch.arange(SEQ + 1) * (stride + 1)) % VOCABULARY
    return tokens[:, :-1], tokens[:, 1:]


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig(batch=BATCH, learning_rate=3e-3, decay="published", **changes)


def reference(precision: str, dense: bool = True) -> list[float]:
    """The baseline's model, loss and optimizer."""
    config = settings()
    model = PlainLooped(fresh())
    optimizer = plain_optimizer(model, config.learning_rate, config.betas, config.weight_decay)
    losses = []
    for step in range(STEPS):
        ids, labels = batch(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            every_logits, norms = model(ids)
            loss = plain_loss(every_logits, labels, dense)
        assert len(norms) == LOOPS
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def ours(
    precision: Any,
    model: LoopedTransformer | None = None,
    objective: Objective | None = None,
    **changes: Any,
) -> list[float]:
    model = fresh() if model is None else model
    objective = build_objective(ObjectiveConfig(placement="dense")) if objective is None else objective
    config = settings(**changes)
    step = TrainingStep(model, objective, build_optimizer(model, config), config, CPU, precision)
    losses = []
    for number in range(STEPS):
        loss, _ = step(*batch(number), (LOOPS,))
        losses.append(float(loss.total))
    return losses


def checkpointed(kind: Any) -> LoopedTransformer:
    model = fresh()
    model.gradient_checkpointing = kind
    return model


def by_token() -> Objective:
    """The loss by token in chunks, as exit-weighted placements and audits take it."""
    objective = build_objective(ObjectiveConfig(placement="dense"))

    def chunks(head: Any, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return chunked_cross_entropy(head, features, labels)

    return Objective(objective.placement, token_loss=chunks)


FAST: dict[str, Callable[[Any], list[float]]] = {
    "default": ours,
    "loss by token": lambda precision: ours(precision, objective=by_token()),
    "checkpoint by layer": lambda precision: ours(precision, checkpointed("layer")),
    "checkpoint by loop": lambda precision: ours(precision, checkpointed("loop")),
    "accumulation": lambda precision: ours(precision, accumulation=2),
}


@pytest.fixture(scope="module")
def slow() -> dict[str, list[float]]:
    return {precision: reference(precision) for precision in ("fp32", "bf16")}


@pytest.mark.parametrize("name", FAST)
def test_fp32_losses_agree_over_fifty_steps(name: str, slow: dict[str, list[float]]) -> None:
    found = FAST[name]("fp32")
    assert slow["fp32"][-1] < 0.7 * slow["fp32"][0]  # it does learn meanwhile
    assert found == pytest.approx(slow["fp32"], abs=1e-5)


@pytest.mark.parametrize("name", FAST)
def test_bf16_losses_agree_within_bf16s_own_error(name: str, slow: dict[str, list[float]]) -> None:
    """Its error is how far the slow reference in bf16 is from itself in fp32."""
    error = max(abs(a - b) for a, b in zip(slow["fp32"], slow["bf16"], strict=True))
    assert 1e-4 < error < 0.1
    found = FAST[name]("bf16")
    assert max(abs(a - b) for a, b in zip(found, slow["bf16"], strict=True)) < 2 * error
    assert max(abs(a - b) for a, b in zip(found, slow["fp32"], strict=True)) < 2 * error


def test_the_published_start_agrees_too() -> None:
    """Logits tens apart: what is raised to e^-60 changes nothing that fp32 can hold."""
    ids, labels = batch(0)
    model = fresh("published", dim=128)
    every_logits, norms = PlainLooped(model)(ids)
    expected = plain_loss(every_logits, labels)
    assert float(every_logits[-1].detach().max()) > 20
    found = build_objective(ObjectiveConfig())(model_states(model, ids), labels)
    torch.testing.assert_close(found.total, expected, rtol=1e-6, atol=1e-6)
    assert found.l2_norm.tolist() == pytest.approx(norms, rel=1e-5)
    parameters = list(model.parameters())
    one, other = (torch.autograd.grad(total, parameters) for total in (found.total, expected))
    for mine, theirs in zip(one, other, strict=True):
        assert float((mine - theirs).norm()) <= 2e-5 * float(theirs.norm())


def model_states(model: LoopedTransformer, ids: torch.Tensor) -> Any:
    from loopscope.recurrence import unroll

    return unroll(model, ids)


def test_the_baselines_attention_drops_what_it_should() -> None:
    """With dropout the two draw other numbers, and agree on average: over seeds, within four standard errors."""
    model = fresh(dropout=0.2)
    plain = PlainLooped(model)
    ids, labels = batch(0)
    found: dict[str, list[float]] = {"plain": [], "ours": []}
    with torch.no_grad():
        for seed in range(60):
            torch.manual_seed(seed)
            found["plain"].append(float(plain_loss(plain(ids)[0][-1:], labels)))
            torch.manual_seed(seed)
            logits = model(ids)
            found["ours"].append(float(F.cross_entropy(logits.flatten(0, 1), labels.flatten())))
    means = {name: torch.tensor(values) for name, values in found.items()}
    error = (means["plain"].var() / 60 + means["ours"].var() / 60).sqrt()
    assert abs(means["plain"].mean() - means["ours"].mean()) < 4 * error


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_operations_share_within_a_step_mixes_nothing_up(precision: str) -> None:
    """Room that is written again and again, and weights that are narrowed once: the same losses and gradients, bit for
    bit, as with room of their own."""
    model = fresh(dropout=0.2)
    objective = build_objective(ObjectiveConfig(placement="dense"))
    found = []
    for scope in (nullcontext(), step_scope()):
        torch.manual_seed(5)
        with scope:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = objective(model_states(model, batch(0)[0]), batch(0)[1]).total
            found.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_weights_are_narrowed_anew_in_every_step() -> None:
    weight = torch.zeros(2, 2)
    for value in (1.0, 2.0):
        weight.data.fill_(value)
        with step_scope():
            narrow = cast_weight(weight, torch.bfloat16)
            assert cast_weight(weight, torch.bfloat16) is narrow
            assert float(narrow[0, 0]) == value
    assert cast_weight(weight, torch.bfloat16) is not cast_weight(weight, torch.bfloat16)


def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    """Blocks beyond what a threshold can keep in the heap, taken again and again: the kernel hands out pages once."""
    script = """
import resource, torch
from loopscope.training.malloc import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    several = [torch.ones(2**24) for _ in range(3)]
    del several
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
left = [faults() for _ in range(8)][-1]
print(keep_freed_memory(), left, [faults() for _ in range(8)][-1])  # the first few leave holes that do not fit
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    asked, left, kept = done.stdout.split()
    if asked != "True":
        pytest.skip("this C library has no mallopt")
    assert int(kept) < 0.5 * int(left)
