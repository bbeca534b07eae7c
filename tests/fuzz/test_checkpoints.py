"""Checkpoints of runs: the weights that were saved, or a sentence that names the file."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopscope.config.recipes import recipe
from loopscope.jobs.opened import open_model
from loopscope.jobs.train import execute
from loopscope.results.layout import OPTIMIZER, STATE, WEIGHTS, newest_checkpoint
from loopscope.training.checkpoint import Progress, load_checkpoint
from loopscope.training.optim import build_optimizer
from tests.fuzz.damage import DAMAGE, Damage, cases, damaged, said_of
from tests.jobs.fixtures import OVER

FILES = (WEIGHTS, OPTIMIZER, STATE, "config.yaml", "tokenizer.json")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Two runs of different seeds."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCOPE_CACHE", str(folder / "cache"))
        for seed in (0, 1):
            over = {**OVER, "training": {**OVER["training"], "seed": seed}}
            execute(recipe("laptop", "dense/rmsnorm", over), folder / f"run-{seed}", quiet=True)
        yield folder / "run-0", folder / "run-1"


@pytest.mark.slow
@given(name=st.sampled_from(FILES), damage=DAMAGE, exchanged=st.booleans(), gone=st.integers(0, 9))
@cases()
def test_a_damaged_checkpoint(
    runs: tuple[Path, Path], tmp_path: Path, name: str, damage: list[Damage], exchanged: bool, gone: int
) -> None:
    """Bytes of one of its files, the file of another run in its place, or none."""
    run, other = runs
    copy = tmp_path / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    checkpoint, foreign = newest_checkpoint(copy), newest_checkpoint(other)
    assert checkpoint is not None
    assert foreign is not None
    path, whole = checkpoint / name, (checkpoint / name).read_bytes()
    if gone == 0:
        path.unlink()
    else:
        path.write_bytes((foreign / name).read_bytes() if exchanged else damaged(whole, damage))
    original = open_model(run).model.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = open_model(run).model
        stands: list[Progress] = []
        resumed = said_of(lambda: stands.append(resume(checkpoint, model)), path, checkpoint, name)
        opened = said_of(lambda: same(open_model(copy).model.state_dict(), original), path, checkpoint, copy)
    if resumed is None:
        same(model.state_dict(), original)
        assert (stands[0].step, stands[0].tokens) == (3, 3 * 4 * 16)
    if path.exists() and path.read_bytes() == whole:
        assert resumed is None
        assert opened is None


def resume(checkpoint: Path, model: torch.nn.Module) -> Progress:
    for parameter in model.parameters():
        parameter.data.zero_()
    training = recipe("laptop", "dense/rmsnorm", OVER).training
    return load_checkpoint(checkpoint, model, build_optimizer(model, training))


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
