"""An exported model is the model: bit for bit in fp32, with every cache, mask and depth."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, StaticCache

from loopscope.interop.huggingface.export.exported_model import CACHE_FIELD, as_exported
from loopscope.recurrence import unroll
from tests.interop.huggingface.export.fixtures import exported_code, standalone
from tests.model.fixtures import IDS, VARIANTS, live_model

DEPTHS = (2, 5)  # trained: 3
CACHED = ("huginn", "parcae", "window", "adapters")
"""Variants whose caches differ: in their slots, in what they see, in what a loop is."""


def exits(name: str) -> dict[int, Tensor]:
    with torch.no_grad():
        return {loops: [*unroll(live_model(name), IDS, loops)][-1].logits() for loops in DEPTHS}


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_ours_bit_for_bit_at_every_depth(name: str) -> None:
    """One set of layers, twice: as the package builds it, and as the code in an export does."""
    own, model = exits(name), live_model(name)
    for exported in (as_exported(model), standalone(model)):
        assert type(exported).__module__.startswith("loopscope") == (exported.model.__class__ is type(model))
        with torch.no_grad():
            for loops in DEPTHS:
                assert torch.equal(exported(IDS, num_loops=loops, use_cache=False).logits, own[loops])
                assert torch.equal(exported(IDS, num_loops=loops).logits, own[loops])
                mask = torch.ones_like(IDS)
                assert torch.equal(exported(IDS, attention_mask=mask, num_loops=loops).logits, own[loops])


@pytest.mark.parametrize("kind", ["layernorm", "raw", "final-only", "alpha"])
def test_every_other_readout_is_ours_too(kind: str) -> None:
    model = live_model("plain", readout={"kind": kind}, carry=["damping", "layernorm"])
    exported = standalone(model)
    for state in unroll(model, IDS, 3):
        if kind != "final-only" or state.is_last:
            assert torch.equal(exported(IDS, num_loops=state.loop).logits, state.logits())


def test_eager_attention_is_the_same_but_for_rounding() -> None:
    for name in ("grouped queries", "window", "parcae"):
        exported = standalone(live_model(name), attn_implementation="eager")
        assert torch.allclose(exported(IDS, num_loops=5).logits, exits(name)[5], atol=1e-5)


@pytest.mark.parametrize("name", CACHED)
def test_text_over_every_cache_is_text_without_one(name: str) -> None:
    exported = standalone(live_model(name, sequence=32))
    wanted: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    wanted |= {"output_logits": True, "return_dict_in_generate": True}
    for loops in DEPTHS:
        plain = exported.generate(IDS, num_loops=loops, use_cache=False, **wanted)
        for how in ({}, {"cache_implementation": "static"}):
            cached = exported.generate(IDS, num_loops=loops, **how, **wanted)
            for one, other in zip(plain.logits, cached.logits, strict=True):  # tokens may agree by luck
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
        del wanted["output_logits"]
        beams = [
            exported.generate(IDS, num_loops=loops, num_beams=3, use_cache=use, **wanted).sequences
            for use in (True, False)
        ]
        assert torch.equal(*beams)
        repeated = IDS[:1].repeat(1, 2)
        looked_up = exported.generate(repeated, num_loops=loops, prompt_lookup_num_tokens=3, **wanted)
        assert torch.equal(
            looked_up.sequences,
            exported.generate(repeated, num_loops=loops, use_cache=False, **wanted).sequences,
        )
        wanted["output_logits"] = True


@pytest.mark.parametrize("argument", ["cache", "past_key_values"])
def test_a_cache_goes_by_either_name_and_has_a_slot_for_every_layer_and_loop(argument: str) -> None:
    model = live_model("prelude and coda")
    exported = as_exported(model)
    for cache in (DynamicCache(), DynamicCache(config=exported.config), StaticCache(exported.config, 16)):
        exported(IDS[:, :6], **{argument: cache})
        assert len(cache.layers) == 1 + 2 + 2 * 3 == exported.config.num_hidden_layers
        rest = exported(IDS[:, 6:], **{argument: cache})
        torch.testing.assert_close(rest.logits, model(IDS)[:, 6:], atol=1e-5, rtol=1e-4)
        assert getattr(rest, CACHE_FIELD) is cache


def test_a_cache_that_was_filled_at_another_depth_is_refused() -> None:
    exported, cache = as_exported(live_model("plain")), DynamicCache()
    exported(IDS, num_loops=3, cache=cache)
    with pytest.raises(ValueError, match="num_loops is 2, and the cache was filled at 3"):
        exported(IDS[:, :1], num_loops=2, cache=cache)


@pytest.mark.parametrize("name", ["plain", "window", "huginn", "gated values"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_text_has_the_logits_that_it_has_alone(name: str, side: str) -> None:
    model = live_model(name)
    exported = standalone(model)
    pad, ones = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 9, dtype=torch.long)
    left = side == "left"
    padded = torch.cat([pad, IDS[:1]] if left else [IDS[:1], pad], dim=1)
    mask = torch.cat([pad, ones] if left else [ones, pad], dim=1)
    got = exported(padded, attention_mask=mask).logits
    torch.testing.assert_close(got[:, 3:] if left else got[:, :9], model(IDS[:1]), atol=1e-5, rtol=1e-4)


def test_texts_packed_in_a_row_do_not_see_each_other() -> None:
    model = live_model("plain")
    packed = torch.cat([IDS[:1], IDS[1:, :5]], dim=1)
    positions = torch.cat([torch.arange(9), torch.arange(5)])[None]
    got = as_exported(model)(packed, position_ids=positions).logits
    torch.testing.assert_close(got[:, :9], model(IDS[:1]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got[:, 9:], model(IDS[1:, :5]), atol=1e-5, rtol=1e-4)


def test_states_come_by_loop_under_their_own_name() -> None:
    model = live_model("prelude and coda")
    made = as_exported(model)(IDS, output_loop_hidden_states=True, output_hidden_states=True, num_loops=4)
    states = [state.hidden for state in unroll(model, IDS, 4)]
    assert all(torch.equal(a, b) for a, b in zip(made.loop_hidden_states, states, strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(made.hidden_states, [model.embed(IDS), *states], strict=True)
    )
    assert as_exported(model)(IDS).loop_hidden_states is None


@pytest.mark.parametrize("loops", [0, -1, True, 1.5])
def test_no_loop_is_refused_in_forward_and_in_generate(loops: Any) -> None:
    exported = standalone(live_model("plain"))
    for run in (exported, exported.generate):
        with pytest.raises(ValueError, match="num_loops is .* whole number from 1 up"):
            run(IDS, num_loops=loops, **({"max_new_tokens": 1} if run != exported else {}))


def test_a_generation_config_may_name_the_loops() -> None:
    exported = standalone(live_model("ouro"))
    wanted: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    texts = [exported.generate(IDS, num_loops=loops, **wanted) for loops in (1, 3, 6)]
    assert not torch.equal(texts[0], texts[1])
    for loops, text in zip((1, 3, 6), texts, strict=True):
        config = GenerationConfig(num_loops=loops, **wanted)
        assert torch.equal(exported.generate(IDS, config), text)
    assert torch.equal(exported.generate(IDS, config, num_loops=1), texts[0])
    exported.generation_config.num_loops = 1
    assert torch.equal(exported.generate(IDS, **wanted), texts[0])
    with pytest.raises(ValueError, match="num_loops is 0"):
        exported.generate(IDS, GenerationConfig(num_loops=0, **wanted))


def test_what_forward_does_not_know_is_refused_by_name() -> None:
    exported = as_exported(live_model("plain"))
    for wrong, said in (
        ({"head_mask": IDS}, "head_mask"),
        ({"output_attentions": True}, "output_attentions"),
        ({"attention_mask": torch.ones(2, 4)}, r"attention_mask has shape \[2, 4\]; give \[2, 9\]"),
        ({"inputs_embeds": torch.zeros(2, 9, 32)}, "either input_ids or inputs_embeds"),
    ):
        with pytest.raises(ValueError, match=said):
            exported(IDS, **wrong)
    with pytest.raises(ValueError, match="17 tokens in all, and this model has 16"):
        exported.generate(IDS, max_new_tokens=10, pad_token_id=0)


def test_vectors_may_stand_for_tokens() -> None:
    exported = as_exported(live_model("huginn"))
    vectors = exported.get_input_embeddings()(IDS)
    assert torch.equal(exported(inputs_embeds=vectors).logits, exported(IDS).logits)


def test_the_loss_and_its_gradient_are_those_of_the_last_exit_under_checkpointing_too() -> None:
    ids, mask = torch.nn.functional.pad(IDS, (3, 0)), torch.nn.functional.pad(torch.ones_like(IDS), (3, 0))
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, 3] = -100  # nothing comes before it
    gradients = []
    for again in (False, True):
        exported = standalone(live_model("ouro")).train()
        if again:
            (
                getattr(exported, "activation_checkpointing_enable", None)
                or exported.gradient_checkpointing_enable
            )()
        assert exported.is_activation_checkpointing == again
        loss = exported(ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        gradients.append([p.grad for p in exported.parameters() if p.grad is not None])
    own = torch.nn.functional.cross_entropy(
        live_model("ouro")(IDS)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()
    )
    torch.testing.assert_close(loss, own, atol=1e-5, rtol=1e-5)
    assert len(gradients[0]) > 10
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_code_of_an_export_names_torch_and_transformers_alone() -> None:
    from transformers.dynamic_module_utils import get_imports

    for module in exported_code():
        assert {*get_imports(module.__file__)} - sys.stdlib_module_names <= {"torch", "transformers"}
