"""How often weights are gathered and gradients reduced in a step: once per layer, whatever the loops."""

import json
from typing import Any

import pytest

from tests.training.distributed import counting_ranks
from tests.training.distributed.fixtures import run_ranks

OURS = 3
"""All-reduces of a few numbers: how many labels count, the figures of a step, the gradient's norm of shards."""
GROUPS = counting_ranks.LAYERS + 1
"""That FSDP2 gathers by themselves: each layer, and the rest."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("counts")
    run_ranks([counting_ranks.__file__, str(folder)], 2, folder)
    return json.loads((folder / "found.json").read_text())


def count(found: Any, name: str, part: str) -> int:
    return sum(number for key, number in found[name]["counts"].items() if part in key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2 loops 1 parts", "8 loops 1 parts", "8 loops 2 parts"])
def test_one_gather_and_one_reduction_per_layer_and_step(found: Any, name: str) -> None:
    assert count(found, f"fsdp step {name}", "gather") == GROUPS
    # In parts: what earlier parts have summed goes with the last part's first call, and that part's own with its last.
    again = 0 if name.endswith("1 parts") else counting_ranks.LAYERS
    assert count(found, f"fsdp step {name}", "reduce_scatter") == GROUPS + again
    assert count(found, f"fsdp step {name}", "allreduce") == OURS
    assert found[f"fsdp step {name}"]["let go"]


@pytest.mark.slow
@pytest.mark.parametrize("loops", [2, 8])
def test_fsdp_as_it_comes_gathers_in_every_loop_both_ways(found: Any, loops: int) -> None:
    name = f"fsdp loop {loops} loops 1 parts"
    gathers = count(found, name, "gather")
    assert gathers >= counting_ranks.LAYERS * (2 * loops - 1)
    assert gathers <= counting_ranks.LAYERS * 2 * loops + 1
    assert count(found, name, "reduce_scatter") == GROUPS


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_ddp_reduces_once_a_step(found: Any, parts: int) -> None:
    name = f"ddp step 8 loops {parts} parts"
    assert count(found, name, "gather") == 0
    assert count(found, name, "allreduce") == OURS - 1 + 1  # all weights are one bucket; the norm needs none
