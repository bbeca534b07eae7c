"""Who a process is, by its environment; which way it trains; what it prints."""

import signal
import time
from dataclasses import replace

import pytest
import torch
from torch.distributed import TCPStore

from loopscope.cli.processes import place, refuse_company, speaks
from loopscope.jobs import resumption
from loopscope.jobs.resumption import threads_each
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import build_objective
from loopscope.training.config import TrainingConfig
from loopscope.training.distributed import strategy
from loopscope.training.distributed.consensus import alike, decided_first
from loopscope.training.distributed.ddp import leaves_unused
from loopscope.training.distributed.process_group import check_device, joined, launched, own_store
from loopscope.training.distributed.ranks import ALONE, Ranks
from loopscope.training.distributed.strategy import choose_strategy, parallel_note, replica_bytes
from loopscope.training.stop_request import StopRequest
from tests.training.fixtures import SEQUENCE, VOCABULARY, Counting

CPU = torch.device("cpu")
TWO = Ranks(0, 2, 0, 2)
STARTED = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "here", "MASTER_PORT": "1", "LOCAL_RANK": "1"}


def model(**changes: object) -> LoopedTransformer:
    shape = {"dim": 16, "heads": 2, "layers": 1, "loops": 3, "vocabulary": VOCABULARY, "sequence": SEQUENCE}
    return LoopedTransformer(ModelConfig.model_validate({**shape, **changes}))


def test_a_process_is_alone_where_nobody_says_otherwise() -> None:
    assert launched({}) is ALONE
    assert launched({"RANK": "3", "WORLD_SIZE": "4"}) is ALONE  # of a job that is not torchrun's
    found = launched({**STARTED, "TORCHELASTIC_RESTART_COUNT": "2"})
    assert (found.rank, found.world, found.local_rank, found.local_world, found.restarts) == (3, 4, 1, 4, 2)
    assert not found.first
    with pytest.raises(ValueError, match="start the processes with torchrun"):
        launched({**STARTED, "RANK": "first"})
    with joined(CPU) as ranks:
        assert ranks.alone


def test_one_process_exchanges_nothing() -> None:
    values = torch.ones(3)
    assert ALONE.sum_(values) is values
    assert ALONE.mean_through(values) is values
    assert ALONE.told("it") == "it"
    assert ALONE.seed(7) == 7 == Ranks(0, 2).seed(7) != Ranks(1, 2).seed(7)
    assert decided_first(ALONE, lambda: 5) == 5
    with pytest.raises(OSError, match="full"), alike(ALONE):
        raise OSError("full")


def test_devices_that_processes_cannot_share_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_device(CPU, TWO)
    with pytest.raises(ValueError, match="cpu or cuda"):
        check_device(torch.device("mps"), TWO)
    with pytest.raises(ValueError, match="name cuda, and each takes one of its own"):
        check_device(torch.device("cuda", 1), TWO)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="which has 1 GPUs; start as many as there are"):
        check_device(torch.device("cuda"), TWO)
    assert Ranks(1, 2, 1, 2).device(torch.device("cuda")) == torch.device("cuda", 1)


def test_ddp_is_taken_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    looped, config = model(), TrainingConfig()
    objectives = [build_objective(ObjectiveConfig())]
    needed = 16 * looped.parameter_count()
    assert replica_bytes(looped, config) == needed
    assert choose_strategy(looped, objectives, config, CPU, ALONE) == "one"
    for there, expected in ((None, "ddp"), (4 * needed, "ddp"), (2 * needed, "fsdp")):
        monkeypatch.setattr(strategy, "machine_bytes", lambda there=there: there)
        assert choose_strategy(looped, objectives, config, CPU, TWO) == expected
    assert "FSDP2" in parallel_note("fsdp", looped, config, CPU, TWO)
    assert "whole ones would not fit" in parallel_note("fsdp", looped, config, CPU, TWO)
    named = TrainingConfig(parallel="ddp")
    assert choose_strategy(looped, objectives, named, CPU, TWO) == "ddp"
    jacobian = build_objective(ObjectiveConfig.model_validate({"jacobian": {"weight": 0.1}}))
    with pytest.raises(ValueError, match=r"set training\.parallel: ddp"):
        choose_strategy(looped, [jacobian], TrainingConfig(parallel="fsdp"), CPU, TWO)


@pytest.mark.parametrize(
    ("changes", "objective", "training", "unused"),
    [
        ({}, {}, {}, False),
        ({"exit_gate": True}, {}, {}, True),
        ({"exit_gate": True}, {"placement": "exit-weighted"}, {}, False),
        ({"exit_gate": True}, {"placement": "gate-improvement"}, {}, True),
        ({"carry": ["rmsnorm"]}, {}, {}, False),
        (
            {"carry": ["rmsnorm"], "readout": {"kind": "raw"}},
            {},
            {"depth": {"distribution": "uniform"}},
            True,
        ),
        ({}, {}, {"depth": {"backprop": 1}}, True),
    ],
    ids=str,
)
def test_what_a_step_may_leave_without_a_gradient_is_tried(
    changes: dict[str, object], objective: dict[str, object], training: dict[str, object], unused: bool
) -> None:
    looped = model(**changes)
    before = torch.get_rng_state()
    built = build_objective(ObjectiveConfig.model_validate(objective))
    config = TrainingConfig.model_validate(training)
    assert leaves_unused(looped, [built], config, *Counting().batch(0, 0, 0, 1)) is unused
    assert all(parameter.grad is None for parameter in looped.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_are_divided_among_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption, "usable_cores", lambda: 8.5)
    assert threads_each(Ranks(0, 4, 0, 4)) == 2
    assert threads_each(Ranks(0, 32, 0, 16)) == 1
    assert threads_each(ALONE) == torch.get_num_threads()


def test_the_first_process_speaks_and_other_commands_want_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in STARTED:
        monkeypatch.delenv(name, raising=False)
    assert place() == (0, 1)
    refuse_company("study")
    for name, value in STARTED.items():
        monkeypatch.setenv(name, value)
    assert place() == (3, 4)
    assert not speaks()
    refuse_company("train")
    with pytest.raises(ValueError, match="takes one; start it without torchrun"):
        refuse_company("study")


def test_a_signal_that_torchrun_hands_on_is_the_first_one_still(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored, where a shell started it behind itself
    with StopRequest(Ranks(0, 2)) as stop:
        signal.raise_signal(signal.SIGINT)
        now[0] += 1
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT
        now[0] += 10
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err.count("finishing this step") == 1


def test_processes_that_are_started_again_do_not_find_what_the_first_ones_wrote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torchrun has one store for all starts: an address of a process that died would be waited at."""
    host = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(host.port))
    own_store(replace(TWO, restarts=0)).set("address", "of one that died")
    assert own_store(replace(TWO, restarts=0)).check(["address"])
    assert not own_store(replace(TWO, restarts=1)).check(["address"])
