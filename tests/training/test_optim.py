"""Parameter groups and learning rates."""

import pytest
import torch

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.training.config import TrainingConfig
from loopscope.training.optim import build_optimizer, clip_gradients_, learning_rate


@pytest.mark.parametrize("tied", [True, False])
def test_only_matrices_decay_by_default(tied: bool) -> None:
    model = LoopedTransformer(
        ModelConfig(
            dim=16, heads=2, loops=2, vocabulary=20, sequence=8, tied=tied, carry=("rmsnorm", "damping")
        )
    )
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, kept = build_optimizer(model, TrainingConfig()).param_groups
    assert decayed["weight_decay"] == 0.01
    assert kept["weight_decay"] == 0.0
    shown = {names[parameter] for parameter in decayed["params"]}
    assert all(name.startswith("layers.") or name == "unembedding.weight" for name in shown)
    assert not any("norm" in name for name in shown)
    assert ("unembedding.weight" in shown) is not tied
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_published_grouping_decays_everything() -> None:
    model = LoopedTransformer(ModelConfig(dim=16, heads=2, loops=2, vocabulary=20, sequence=8))
    (group,) = build_optimizer(model, TrainingConfig(decay="published")).param_groups
    assert len(group["params"]) == len(list(model.parameters()))


def test_schedules() -> None:
    cosine = TrainingConfig(schedule="cosine", warmup=10, learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(step, 110, cosine) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    constant = TrainingConfig(learning_rate=3e-4)
    assert {learning_rate(step, 50, constant) for step in range(50)} == {3e-4}


def test_muon_takes_the_layers_matrices_and_adamw_the_rest() -> None:
    config = ModelConfig(
        dim=16, heads=2, loops=2, vocabulary=20, sequence=8, prelude=1, coda=1, tied=False, exit_gate=True
    )
    model = LoopedTransformer(config)
    optimizer = build_optimizer(model, TrainingConfig(optimizer="muon"))
    names = {parameter: name for name, parameter in model.named_parameters()}
    muon, adamw = ({names[p] for g in part.param_groups for p in g["params"]} for part in optimizer.parts)
    assert muon == {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and name.split(".")[0] in ("layers", "prelude", "coda")
    }
    assert muon | adamw == set(names.values())
    assert not muon & adamw


@pytest.mark.smoke
def test_a_muon_step_is_orthogonal_with_the_size_of_an_adamw_step() -> None:
    """Against the update written out: U Vᵀ of the first gradient, times 0.2·sqrt(longer side)."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(24, 16, bias=False)])})
    weight = model["layers"][0].weight
    optimizer = build_optimizer(
        torch.nn.ModuleDict({**model, "norm": torch.nn.RMSNorm(3)}),
        TrainingConfig(optimizer="muon", learning_rate=0.1, weight_decay=0.0),
    )
    before = weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    update = (before - weight.detach()) / 0.1
    singular = torch.linalg.svdvals(update) / (0.2 * 24**0.5)
    assert float(singular.min()) > 0.6  # Newton-Schulz lands between 0.7 and 1.2
    assert float(singular.max()) < 1.3
    left, _, right = torch.linalg.svd(weight.grad, full_matrices=False)
    cosine = (update * (left @ right)).sum() / (update.norm() * (left @ right).norm())
    assert float(cosine) > 0.95


def test_muon_without_matrices_says_so() -> None:
    with pytest.raises(ValueError, match="no matrices inside module lists"):
        build_optimizer(torch.nn.Linear(3, 3), TrainingConfig(optimizer="muon"))


@pytest.mark.parametrize("most", [0.5, 1e6])
@pytest.mark.smoke
def test_gradients_are_clipped_to_their_common_norm(most: float) -> None:
    """Beside the same in fp64; a parameter without a gradient, and one without axes."""
    torch.manual_seed(0)
    model = torch.nn.ParameterList([torch.randn(shape) for shape in ((), (7,), (40, 30), (3, 4, 5), (2,))])
    gradients = [torch.randn_like(one) for one in model[:4]]
    for parameter, gradient in zip(model, gradients, strict=False):
        parameter.grad = gradient.clone()
    norm = torch.cat([one.double().flatten() for one in gradients]).norm()
    found = clip_gradients_(model, most)
    assert float(found) == pytest.approx(float(norm), rel=1e-6)
    for parameter, gradient in zip(model, gradients, strict=False):
        torch.testing.assert_close(parameter.grad, gradient * min(1.0, most / (float(norm) + 1e-6)))
    assert model[4].grad is None


def test_a_large_gradients_norm_is_exact_in_fp32() -> None:
    """Ten million numbers in one sum were 4e-4 off."""
    model = torch.nn.Linear(512, 20_000, bias=False)
    gradient = torch.randn(20_000, 512, generator=torch.Generator().manual_seed(0))
    model.weight.grad = gradient.clone()
    assert float(clip_gradients_(model, 1e9)) == pytest.approx(float(gradient.double().norm()), rel=2e-6)
