"""How a model is put into another number format: which weights, by copies or where they are used, and back again."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.audit import number_formats
from loopscope.audit.number_formats import in_format, shared_matrices
from loopscope.audit.rounding import measure_rounding
from loopscope.recurrence import LoopContext, unroll
from loopscope.wide_weights import at_use
from tests.audit.fixtures import IDS, LABELS, make
from tests.audit.toy_maps import DIM, TOKENS, Toy, rounding, through_matrix


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_large_model_is_rounded_where_its_weights_are_used(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make().eval()
    (copied,) = measure_rounding(model, IDS, LABELS, [name], 8)
    monkeypatch.setattr(number_formats, "COPIED_BYTES", 0)
    monkeypatch.setattr(number_formats, "replaced_tensors", only_buffers(number_formats.replaced_tensors))
    (used,) = measure_rounding(model, IDS, LABELS, [name], 8)
    assert used == copied
    assert used.outcome != "not measured"


def only_buffers(replaced: Callable[..., Any]) -> Callable[..., Any]:
    """What replaces tensors, and fails where it would copy weights."""

    def checked(model: nn.Module, make: Any, parameters: bool, buffers: bool) -> Any:
        assert not parameters
        return replaced(model, make, parameters, buffers)

    return checked


def test_a_large_model_that_reaches_its_weights_its_own_way_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(number_formats, "COPIED_BYTES", 0)
    model = Toy(lambda model, hidden, loop, context: hidden @ model.matrix.data.T)
    assert rounding(model, "bf16").outcome != "not measured"


def test_integers_are_of_the_shared_matrices_alone_and_are_put_back() -> None:
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        first = next(iter(unroll(model, IDS)))
    shared = shared_matrices(first)
    named = {name for name, parameter in model.named_parameters() if id(parameter) in shared}
    assert named
    assert all(name.startswith("layers.") for name in named)
    with in_format(model, "int4", shared, buffers=False):
        inside = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, value in inside.items():
        if name not in named:
            assert torch.equal(value, before[name])
            continue
        step = before[name].abs().amax(dim=1, keepdim=True) / 7
        torch.testing.assert_close(value / step, (before[name] / step).round(), rtol=0, atol=1e-4)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_matrix_stored_inputs_first_has_its_channels_in_columns() -> None:
    """transformers' Conv1D, of GPT-2."""

    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(5)))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    class Columns(Toy):
        def __init__(self) -> None:
            super().__init__(through_matrix)
            self.conv = Conv1D()

        def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            return hidden + 0.1 * self.conv(hidden)

    model = Columns().eval()
    with torch.no_grad():
        first = next(iter(unroll(model, TOKENS)))
    shared = shared_matrices(first)
    assert set(shared) == {id(model.conv.weight)}
    own = model.conv.weight.detach().clone()
    with in_format(model, "int8", shared, buffers=False):
        step = own.abs().amax(dim=0, keepdim=True) / 127
        torch.testing.assert_close(model.conv.weight / step, (own / step).round(), rtol=0, atol=1e-3)


class Held(Toy):
    """Reaches its matrix through a list."""

    def __init__(self) -> None:
        super().__init__(lambda model, hidden, loop, context: hidden @ self.held[0].T)
        self.matrix.data = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(7)) / 4
        self.held = [self.matrix]


@pytest.mark.parametrize("name", ["bf16", "int8", "int4"])
def test_weights_that_are_reached_through_a_list_are_rounded_too(name: str) -> None:
    plain = Toy(through_matrix, matrix=Held().matrix.detach())
    assert rounding(Held(), name) == rounding(plain, name)
    assert rounding(plain, name).loops[0].state > 1e-4


def test_matrices_that_no_rounding_reaches_are_not_called_safe() -> None:
    class Cached(Toy):
        """Has asked its matrix for its numbers once, and works with these: a gradient alone finds it."""

        def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            if torch.is_grad_enabled():
                return hidden @ self.matrix.T
            return hidden @ torch.tensor(self.numbers).T

    model = Cached(through_matrix, matrix=Held().matrix.detach())
    model.numbers = model.matrix.tolist()  # type: ignore[assignment]
    found = rounding(model, "int8")
    assert found.outcome == "not measured"
    assert found.why.startswith("Rounding its shared matrices to int8 changes nothing")


def test_experts_are_rounded_whichever_text_is_sent_to_them_and_in_whichever_loop() -> None:
    class Mixture(Toy):
        def __init__(self) -> None:
            super().__init__(through_matrix)
            self.experts = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(4))

        def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            chosen = [int(text[0]) if loop < 3 else 3 for text in context.input_ids]
            return torch.stack([self.experts[i](own) for i, own in zip(chosen, hidden, strict=True)])

    torch.manual_seed(0)
    model = Mixture().eval()
    texts = torch.tensor([[0, 5], [1, 6], [2, 7]])
    found = []
    for order in ([0, 1, 2], [2, 1, 0]):
        (one,) = measure_rounding(model, texts[order], texts[order], ["int4"], 4)
        found.append([row.state for row in one.loops])
    assert found[0] == pytest.approx(found[1])
    assert min(found[0]) > 0.01


def test_what_a_model_of_transformers_keeps_in_fp32_stays_in_it() -> None:
    class Routed(Toy):
        _keep_in_fp32_modules_strict = ("router",)

        def __init__(self) -> None:
            super().__init__(through_matrix)
            self.router = nn.Linear(DIM, DIM)

        def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            assert self.router.weight.dtype == torch.float32
            return hidden @ self.matrix.T + 0.1 * self.router(hidden.float()).to(hidden.dtype)

    for name in ("bf16", "fp16"):
        found = rounding(Routed(), name)
        assert found.outcome != "not measured", found.why
        assert found.loops[0].state > 1e-5


def test_weights_that_are_elsewhere_until_they_are_used_are_rounded_and_stay_as_they_were() -> None:
    accelerate = pytest.importorskip("accelerate")

    class Linear(Toy):
        def __init__(self) -> None:
            super().__init__(through_matrix)
            self.rows = nn.Embedding(12, DIM)
            self.map = nn.Linear(DIM, DIM)

        def embed(self, input_ids: Tensor) -> Tensor:
            return self.rows(input_ids)

        def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            return hidden + self.map(hidden)

    torch.manual_seed(0)
    whole = Linear()
    del whole.matrix, whole.table
    elsewhere = copy.deepcopy(whole)
    accelerate.cpu_offload(elsewhere, execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in elsewhere.parameters())
    for name in ("bf16", "fp16", "bf16-autocast"):
        assert rounding(elsewhere, name) == rounding(whole, name)
    assert {(type(each), each.dtype) for each in elsewhere.parameters()} == {(nn.Parameter, torch.float32)}
    assert rounding(elsewhere, "int8").outcome == "not measured"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_in_a_list_are_audited_in_whatever_type_they_are(dtype: torch.dtype) -> None:
    model = Held().to(dtype)
    report = loopscope.audit(model, TOKENS, (TOKENS * 7 + 1) % 12, rounding="bf16,int8")
    assert [tried.outcome != "not measured" for tried in report.rounding] == [True, True]
    assert report.rounding[1].loops[0].state > 1e-4
    assert model.matrix.dtype == dtype


@pytest.mark.parametrize(
    "move", [lambda w, h: w.to(h.device, copy=True), lambda w, h: w.to(h.device), lambda w, h: w.to(h)]
)
def test_weights_that_a_forward_moves_are_widened_at_use(move: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = Toy(lambda m, h, loop, context: h @ move(m.matrix, h).T, matrix=Held().matrix.detach()).bfloat16()
    with torch.no_grad(), at_use(model):
        assert [state.hidden.dtype for state in unroll(model, TOKENS, 2)] == [torch.float32] * 2
