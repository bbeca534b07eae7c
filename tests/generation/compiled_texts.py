"""Checks of compiled steps with a compiler, in a process of their own: what checks shapes in tests cannot be traced.

python -m tests.generation.compiled_texts lasts
"""

import sys
import warnings
from typing import Any

import torch

import loopscope
from loopscope.generation.compiled_steps import MORE_COLUMNS, CompiledSteps
from loopscope.generation.decoder import make_steps
from loopscope.generation.settings import Settings
from loopscope.generation.step_program import graphs_made
from loopscope.generation.stopping import Stopping
from tests.generation.fixtures import lively, ragged, run


def equal_texts(name: str, **changes: Any) -> None:
    """In fp32: logits of a step are the whole text's, and tokens the plain ones, in ragged rows that end early."""
    model, (ids, mask) = lively(name, **changes).float(), ragged()
    with torch.no_grad():
        steps = make_steps(model, Settings(Stopping(4), compile=True), torch.zeros(1, dtype=torch.int64), 48)
        assert isinstance(steps, CompiledSteps)
        steps.prefill(ids[:1, :5])
        for place in range(5, 9):
            *_, last = loopscope.unroll(model, ids[:1, : place + 1])
            whole = last.logits()[:, -1]
            found = steps.step(ids[:1, place]).logits
            assert torch.allclose(found, whole, rtol=0, atol=1e-4 * float(whole.abs().max()))
    plain = loopscope.generate(model, ids, [2, 20, 9], attention_mask=mask)
    assert loopscope.generate(model, ids, [2, 20, 9], attention_mask=mask, compile=True) == plain
    anew = loopscope.generate(model, ids, [2, 20, 9], attention_mask=mask, cache=False)
    assert plain.tokens == anew.tokens


def rotary() -> None:
    equal_texts("ouro")


def grouped() -> None:
    equal_texts("wide heads")


def window() -> None:
    equal_texts("window")


def layer_norms() -> None:
    equal_texts("gpt2")


def after_sums() -> None:
    equal_texts("deeploop")


def lasts() -> None:
    """One graph serves texts of any length while the model lives, and follows its weights; several rows have one."""
    model, ids = lively("plain", positions="rotary").float(), ragged()[0]
    run(model, 3, prompts=(ids[:1], None), compile=True)
    assert graphs_made() == 1
    for new_tokens in (4, MORE_COLUMNS + 2):
        prompts = (ids[1:2], None)
        assert run(model, new_tokens, prompts=prompts, compile=True) == run(
            model, new_tokens, prompts=prompts
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    assert run(model, 12, prompts=prompts, compile=True) == run(model, 12, prompts=prompts)
    assert graphs_made() == 1
    for rows in (3, 2):
        prompts = (ids[:rows], None)
        assert run(model, 12, prompts=prompts, compile=True) == run(model, 12, prompts=prompts)
    assert graphs_made() == 2
    twin = lively("plain", positions="rotary").float()
    for loops in range(1, 4):  # each its own program, of which none wears out another
        assert run(twin, 4, loops=loops, compile=True) == run(twin, 4, loops=loops)
    assert graphs_made() == 5


def half() -> None:
    """In bf16 a text starts as the plain one does; later logits may tie."""
    model, ids = lively("ouro").bfloat16(), ragged()[0]
    made, plain = (run(model, 3, prompts=(ids, None), compile=on) for on in (True, False))
    same = [a[0] == b[0] for a, b in zip(made.tokens, plain.tokens, strict=True)]
    assert sum(same) >= 2, (made.tokens, plain.tokens)


def refused() -> None:
    """A model that reads numbers from its tensors on the way is run as ever, with a warning, and tried once."""
    model = lively("gated from zero", start="random")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = [run(model, 4, compile=True) for _ in range(2)]
    told = [str(each.message) for each in caught if "compile has no effect" in str(each.message)]
    assert len(told) == 2, told
    assert all("PyTorch's compiler refuses it" in each for each in told), told
    assert made[0] == made[1] == run(model, 4)


CHECKS = (rotary, grouped, window, layer_norms, after_sums, lasts, half, refused)

if __name__ == "__main__":
    torch.set_num_threads(1)
    {check.__name__: check for check in CHECKS}[sys.argv[1]]()
