"""What is checked when a module is wrapped: no coincidence of its weights, length or type passes for agreement."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.recurrence import unroll
from tests.interop.fixtures import DIM, IDS, LABELS, VOCABULARY, Plain, build


class Capped(Plain):
    """A fresh model: its logits are so small that the softcap does nothing to them yet."""

    def __init__(self, start: float = 0.01) -> None:
        super().__init__()
        nn.init.normal_(self.lm_head.weight, std=start)

    def forward(self, ids: Tensor) -> Tensor:
        return 15 * torch.tanh(super().forward(ids) / 15)


def test_a_softcap_is_found_while_it_does_nothing() -> None:
    module = build(Capped)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model: Any = loopscope.wrap(module, "layers")
    assert model.follows_head
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with torch.no_grad():
        module.lm_head.weight.mul_(300)  # as after training
        assert module(IDS).abs().max() > 10
        assert torch.allclose(model(IDS), module(IDS), atol=1e-5)


class TwoNorms(Plain):
    """Every loop has a norm of its own, and all start at one."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(DIM) for _ in range(self.config.loops))

    def forward(self, ids: Tensor) -> Any:
        x, found = self.tokens(ids), []
        for norm in self.norms:
            x = self.stack(x)
            found.append(self.lm_head(norm(x)))
        return {"every": found, "final": found[-1]}


@pytest.mark.parametrize("where", ["every", lambda output: output["every"]])
def test_readouts_of_their_own_by_loop_are_kept(where: Any) -> None:
    module = build(TwoNorms)
    model = loopscope.wrap(module, "layers", logits=where)
    with torch.no_grad():
        for loop, norm in enumerate(module.norms):
            norm.weight.fill_(1.0 + loop)
        for state, own in zip(unroll(model, IDS), module(IDS)["every"], strict=True):
            assert torch.allclose(state.logits(), own, atol=1e-5)
    assert {loop.status for loop in judge(model, IDS, LABELS).loops} == {"blind"}


def test_a_name_that_the_result_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="logits is 'all', and the forward returns every, final"):
        loopscope.wrap(build(TwoNorms), "layers", logits="all")
    with pytest.raises(
        ValueError, match=r"returns dict \(every, final\).*say where they are: logits='its name'"
    ):
        loopscope.wrap(build(TwoNorms), "layers")


class FinalOnly(Plain):
    """Raw at every loop but the last: what the last one is depends on how many are run."""

    def forward(self, ids: Tensor, loops: int = 4) -> Any:
        x, found = self.tokens(ids), []
        for loop in range(loops):
            x = self.stack(x)
            found.append(self.lm_head(self.norm(x) if loop == loops - 1 else x))
        return {"all_logits": found, "final_logits": found[-1]}


def test_every_depth_is_the_forwards_own() -> None:
    module = build(FinalOnly)
    model = loopscope.wrap(module, "layers", set_loops="loops")
    with torch.no_grad():
        for loops in (1, 2, 3, 4, 5, 8):
            for state, own in zip(unroll(model, IDS, loops), module(IDS, loops)["all_logits"], strict=True):
                assert torch.allclose(state.logits(), own, atol=1e-5)


class AnotherWayBelow(Plain):
    """Runs fewer loops with another head's input: no exit of the trained depth is what it gives there."""

    def forward(self, ids: Tensor, loops: int = 3) -> Tensor:
        x = self.tokens(ids)
        for _ in range(loops):
            x = self.stack(x)
        return self.lm_head(self.norm(x)) * (1 if loops >= 3 else 2)


def test_a_depth_that_is_read_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match="run to 1 loops, where it was made for 3, the logits differ"):
        loopscope.wrap(build(AnotherWayBelow), "layers", set_loops="loops")
    assert loopscope.wrap(build(AnotherWayBelow), "layers").loops == 3


class OfOneLength(Plain):
    """Mixes twelve tokens by a matrix, as Perceivers and mixers do: no other length will do."""

    def __init__(self, length: int = 12) -> None:
        super().__init__()
        self.mix = nn.Linear(length, length)

    def forward(self, ids: Tensor) -> Tensor:
        if ids.shape[1] != self.mix.in_features:
            raise ValueError("one length only")
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.stack(x + self.mix(x.mT).mT)
        return self.lm_head(self.norm(x))


@pytest.mark.parametrize("sequence", [None, 12])
def test_a_model_of_one_length_is_checked_at_it(sequence: int | None) -> None:
    module = build(OfOneLength)
    model = loopscope.wrap(module, "layers", sequence=sequence)
    ids = torch.randint(VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model(ids), module(ids), atol=1e-5)
    with pytest.raises(ValueError, match="failed on a batch of ids"):
        loopscope.wrap(module, "layers", sequence=11)


class Routed(nn.Module):
    """A mixture of experts, of which two are chosen: at a border a finite difference is no derivative."""

    def __init__(self, experts: int = 8) -> None:
        super().__init__()
        self.norm, self.router = nn.RMSNorm(DIM), nn.Linear(DIM, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(DIM, 64), nn.SiLU(), nn.Linear(64, DIM)) for _ in range(experts)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        x = self.norm(hidden)
        weights, chosen = self.router(x).softmax(-1).topk(2)
        gates = torch.zeros_like(self.router(x)).scatter(-1, chosen, weights / weights.sum(-1, keepdim=True))
        return hidden + sum(gates[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


@pytest.mark.parametrize("seed", range(6))
def test_routing_cuts_no_gradient(seed: int) -> None:
    """At a step of 1e-2 alone, five of these six are refused."""
    torch.manual_seed(seed)
    module = Plain().eval()
    module.layers = nn.ModuleList([Routed()])
    assert loopscope.wrap(module, "layers").loops == module.config.loops


class Cut(Plain):
    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.stack(x).detach()
        return self.lm_head(self.norm(x))


def test_half_precision_is_checked_as_strictly() -> None:
    with pytest.raises(ValueError, match="misses the finite difference by 100%"):
        loopscope.wrap(build(Cut).bfloat16(), "layers")
    module = build(Capped).bfloat16()
    model: Any = loopscope.wrap(module, "layers")
    assert model.follows_head
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


class Loop1InCache(Plain):
    """As IQuest's LoopCoder: the second loop reads what the first has left in a cache that the forward makes."""

    def forward(self, ids: Tensor, use_cache: bool = True) -> Tensor:
        x, cache = self.tokens(ids), {} if use_cache else None
        for loop in range(self.config.loops):
            if loop == 0:
                x = self.layers[0](x)
                cache["first"] = x  # needs the cache
            else:
                x = self.layers[0](x) + 0.1 * cache["first"]
            x = self.layers[1](x)
        return self.lm_head(self.norm(x))


def test_what_travels_in_a_cache_is_followed() -> None:
    module = build(Loop1InCache)
    model = loopscope.wrap(module, "layers")
    assert torch.allclose(model(IDS), module(IDS), atol=1e-5)
    assert {loop.status for loop in judge(model, IDS, LABELS).loops} == {"blind"}


class ReadsInside(Plain):
    """The head reads what is between two layers of the last loop, too."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            middle = self.layers[0](x)
            x = self.layers[1](middle)
        return self.lm_head(self.norm(x + middle))


@pytest.mark.parametrize("block", ["layers", "layers.1"])
def test_a_head_that_reads_inside_the_last_loop_is_called_that(block: str) -> None:
    with pytest.raises(ValueError, match="something inside that loop too"):
        loopscope.wrap(build(ReadsInside), block)


class WritesIntoTheState(Plain):
    """What is done between loops and before the head is done in place, if so asked."""

    def forward(self, ids: Tensor, in_place: bool = True) -> Any:
        x = self.tokens(ids)
        for _ in range(self.config.loops):
            x = self.stack(x)
            x = x.mul_(0.7) if in_place else x * 0.7
        return self.lm_head(self.norm(x))


def test_a_forward_may_write_into_the_blocks_output() -> None:
    module = build(WritesIntoTheState)
    models = [
        loopscope.wrap(module, "layers", forward_kwargs={"in_place": in_place}) for in_place in (True, False)
    ]
    for ours, theirs in zip(*(unroll(model, IDS, loops=4) for model in models), strict=True):
        assert torch.equal(ours.hidden, theirs.hidden)
        assert torch.equal(ours.logits(), theirs.logits())
    carries = [[loop.carry for loop in loopscope.audit(model, IDS, LABELS).loops] for model in models]
    assert carries[0] == carries[1]


class WritesInsideABlock(Plain):
    """As inference code may: the norm keeps what is written into, so nothing can be trained."""

    def stack(self, x: Tensor) -> Tensor:
        x += super().stack(self.norm(x))
        return x


def test_a_block_without_a_derivative_is_called_that() -> None:
    with pytest.raises(ValueError, match="writes into a tensor that its derivative needs"):
        loopscope.wrap(build(WritesInsideABlock), "stack")
