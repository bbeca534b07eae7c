"""The looped transformer against hand-written loops, published sizes and closed forms."""

import pytest
import torch
from pydantic import ValidationError

from loopscope.config.recipes import recipe
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.model.rotary import RotaryTurns, rotate
from loopscope.numerics import scale
from loopscope.recurrence import unroll

TINY = {"dim": 32, "layers": 2, "heads": 4, "loops": 3, "vocabulary": 61, "sequence": 16}


@pytest.mark.parametrize("carry", [(), ("rmsnorm",), ("layernorm",), ("damping",), ("rmsnorm", "damping")])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("tied", [True, False])
def test_unroll_equals_a_hand_written_loop(carry: tuple[str, ...], positions: str, tied: bool) -> None:
    torch.manual_seed(0)
    model = LoopedTransformer(ModelConfig(**TINY, carry=carry, positions=positions, tied=tied))
    ids = torch.randint(61, (2, 9))
    hidden = model.token_embedding(ids)
    if positions == "learned":
        hidden = hidden + model.position_embedding.weight[:9]
    head = model.token_embedding.weight if tied else model.unembedding.weight
    for state in unroll(model, ids, loops=5):
        for layer in model.layers:
            hidden = layer(hidden)
        assert torch.equal(state.hidden, hidden)
        assert torch.equal(state.logits(), model.reading(hidden, state.loop, 5) @ head.T)
        for step in carry:
            hidden = model.carries[step](hidden, state.loop)


def test_parameter_counts_are_the_published_ones() -> None:
    counts = {
        size: LoopedTransformer(recipe(size).model.model_copy()).parameter_count()
        for size in ("laptop", "published-44m", "published-129m")
    }
    assert counts == {"laptop": 1_065_600, "published-44m": 43_934_208, "published-129m": 128_822_016}


@pytest.mark.smoke
def test_scaled_initialisation_starts_small_and_published_is_pytorchs() -> None:
    torch.manual_seed(0)
    scaled = LoopedTransformer(ModelConfig(dim=256, heads=4, layers=2, loops=4))
    assert float(scaled.token_embedding.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert float(scaled.layers[0].feed_forward.down.weight.detach().std()) == pytest.approx(
        0.02 / 16**0.5, rel=0.02
    )
    published = LoopedTransformer(ModelConfig(dim=256, heads=4, initialisation="published"))
    assert float(published.token_embedding.weight.detach().std()) == pytest.approx(1, rel=0.02)
    assert float(published.layers[0].attention.qkv.weight.detach().abs().max()) <= 256**-0.5


@pytest.mark.smoke
def test_gradient_checkpointing_changes_no_gradient() -> None:
    ids = torch.randint(61, (2, 9))
    gradients = []
    for checkpointing in ("none", "layer", "loop"):
        torch.manual_seed(0)
        model = LoopedTransformer(ModelConfig(**TINY, dropout=0.1)).train()
        model.gradient_checkpointing = checkpointing
        torch.manual_seed(1)
        model(ids).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    for other in gradients[1:]:
        assert all(torch.equal(one, two) for one, two in zip(gradients[0], other, strict=True))


def test_checkpointing_by_loop_keeps_one_loops_activations_and_the_states() -> None:
    """What autograd holds after the forward pass, by loops: everything grows, a loop's checkpoint hardly does."""

    def held(checkpointing: str, loops: int) -> int:
        torch.manual_seed(0)
        model = LoopedTransformer(ModelConfig(**{**TINY, "loops": loops})).train()
        model.gradient_checkpointing = checkpointing
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = [state.hidden for state in unroll(model, torch.randint(61, (2, 9)))]
        return sum(sizes.values()) + sum(state.numel() for state in hidden)

    state = 2 * 9 * TINY["dim"]
    growth = {mode: (held(mode, 8) - held(mode, 4)) / 4 for mode in ("none", "layer", "loop")}
    assert growth["none"] > 10 * state
    assert growth["loop"] <= 2 * state  # H_k, and at most its own copy
    assert growth["loop"] < growth["layer"] < growth["none"]


@pytest.mark.smoke
def test_attention_is_causal() -> None:
    torch.manual_seed(0)
    model = LoopedTransformer(ModelConfig(**TINY)).eval()
    ids = torch.randint(61, (1, 12))
    changed = ids.clone()
    changed[0, 7:] = (changed[0, 7:] + 1) % 61
    assert torch.allclose(model(ids)[:, :7], model(changed)[:, :7], atol=1e-6)
    assert not torch.allclose(model(ids)[:, 7:], model(changed)[:, 7:], atol=1e-3)


def test_rotary_scores_depend_on_distance_only() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8)
    cos, sin = RotaryTurns(8).angles(torch.arange(20))
    scores = [
        float(
            (
                rotate(query, cos[i : i + 1], sin[i : i + 1]) * rotate(key, cos[j : j + 1], sin[j : j + 1])
            ).sum()
        )
        for i, j in ((5, 2), (13, 10), (19, 16))
    ]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-5)


def test_rotary_models_run_beyond_the_trained_length_and_learned_ones_say_no() -> None:
    ids = torch.randint(61, (1, 24))
    assert LoopedTransformer(ModelConfig(**TINY, positions="rotary"))(ids).shape == (1, 24, 61)
    with pytest.raises(ValueError, match="24 tokens; this model has 16 learned positions"):
        LoopedTransformer(ModelConfig(**TINY))(ids)


def test_damping_shrinks_by_its_start_value_and_norms_give_scale_one() -> None:
    model = LoopedTransformer(ModelConfig(**TINY, carry=("damping",), damping=0.7))
    hidden = torch.randn(1, 4, 32)
    assert torch.allclose(model.carries["damping"](hidden, 1), 0.7 * hidden)
    normed = LoopedTransformer(ModelConfig(**TINY, carry=("rmsnorm",))).carries["rmsnorm"](50 * hidden, 1)
    assert torch.allclose(scale(normed), torch.ones(1, 4), atol=1e-4)


def test_the_gate_is_read_from_the_raw_state() -> None:
    model = LoopedTransformer(ModelConfig(**TINY, exit_gate=True))
    state = next(unroll(model, torch.randint(61, (2, 5))))
    assert torch.allclose(state.gate_logit(), model.gate(state.hidden)[..., 0])
    assert (
        next(unroll(LoopedTransformer(ModelConfig(**TINY)), torch.ones(1, 2, dtype=torch.long))).gate_logit()
        is None
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5}, "heads 5 does not divide dim 32; heads that do, nearest first: \\[4"),
        ({"loops": 0}, "greater than or equal to 1"),
        ({"readout": "rms"}, "unknown readout 'rms'; did you mean rmsnorm?"),
        ({"positions": "rotary", "dim": 12, "heads": 4}, "even number of channels per head"),
        ({"carry": ["damping", "damping"]}, "names a step twice"),
        ({"damping": 0.5}, "carry has no 'damping' step"),
        ({"width": 3}, "Extra inputs are not permitted"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**{**TINY, **settings})
