"""Which rows are whose, and what a part of a batch weighs."""

import pytest
import torch
from torch import Tensor

from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Loss, build_objective
from loopscope.recurrence import unroll
from loopscope.training.distributed.batch_share import BatchShare, check_batch_share, own_depths, own_rows
from loopscope.training.distributed.ranks import ALONE, Ranks
from loopscope.training.validation import dealt
from tests.model.fixtures import live_model


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_every_row_is_one_process_and_parts_are_those_of_one_process(world: int, parts: int) -> None:
    rows = [own_rows(24, parts, Ranks(rank, world)) for rank in range(world)]
    assert sorted(row for own in rows for row in own) == list(range(24))
    size = 24 // parts
    for part in range(parts):
        each = size // world
        together = [row for own in rows for row in own[part * each : (part + 1) * each]]
        assert together == list(range(part * size, (part + 1) * size))


def test_depths_go_with_their_rows() -> None:
    depths = tuple(range(8))
    assert list(own_depths(depths, 8, 2, Ranks(1, 2))) == [2, 3, 6, 7]
    assert own_depths((5,), 8, 2, Ranks(1, 2)) == (5,)
    assert own_depths(depths, 8, 2, ALONE) == depths


def test_a_batch_that_cannot_be_shared_is_refused_with_one_that_can() -> None:
    check_batch_share(16, 2, Ranks(0, 4))
    with pytest.raises(ValueError, match=r"multiple of 8 \(processes × accumulation\), such as 16 or 24"):
        check_batch_share(20, 2, Ranks(0, 4))
    with pytest.raises(ValueError, match="such as 8$"):
        check_batch_share(4, 2, Ranks(0, 4))


def masked() -> tuple[Tensor, Tensor]:
    """A batch of which other parts are ignored, and its last row altogether."""
    ids = torch.randint(17, (4, 9), generator=torch.Generator().manual_seed(0))
    labels = ids[:, 1:].clone()
    labels[0, :5] = -100
    labels[2:] = -100
    return ids[:, :-1], labels


def loss_of(parts: int, objective: ObjectiveConfig) -> Loss:
    model = live_model("plain", dropout=0.0).eval()
    ids, labels = masked()
    built = build_objective(objective)
    share = BatchShare(labels, parts, ALONE)
    found = []
    for part, (own, targets) in enumerate(zip(ids.chunk(parts), labels.chunk(parts), strict=True)):
        loss = built(unroll(model, own), share.labels(part, targets))
        found.append(share.weighed(part, loss, built))
    return share.together(found)


@pytest.mark.parametrize(
    "objective", [{}, {"norm_penalty": {"weight": 0.3}}, {"placement": "terminal"}], ids=str
)
def test_parts_with_uneven_labels_make_the_loss_of_the_whole(objective: dict[str, object]) -> None:
    whole, parts = (loss_of(count, ObjectiveConfig.model_validate(objective)) for count in (1, 2))
    assert float(parts.total) == pytest.approx(float(whole.total), rel=1e-6)
    for name, term in whole.terms.items():
        assert float(parts.terms[name]) == pytest.approx(float(term), rel=1e-6)
    for mine, other in ((parts.cross_entropy, whole.cross_entropy), (parts.l2_norm, whole.l2_norm)):
        assert torch.allclose(mine, other, rtol=1e-6, equal_nan=True)


def test_one_process_with_one_part_takes_the_loss_as_it_is() -> None:
    _, labels = masked()
    share = BatchShare(labels, 1, ALONE)
    loss = loss_of(1, ObjectiveConfig())
    assert share.weighed(0, loss, build_objective(ObjectiveConfig())) is loss
    assert share.labels(0, labels) is labels


def test_batches_are_dealt_so_that_all_have_equally_many() -> None:
    batches = [(torch.tensor([[number]]), torch.tensor([[number]])) for number in range(5)]
    hands = [[(int(ids), counts) for ids, _, counts in dealt(batches, Ranks(rank, 3))] for rank in range(3)]
    assert hands == [[(0, 1), (3, 1)], [(1, 1), (4, 1)], [(2, 1), (3, 0)]]
    assert [int(ids) for ids, _, _ in dealt(batches, ALONE)] == [0, 1, 2, 3, 4]
