"""Training over several processes: torchrun starts them, PyTorch's DDP and FSDP2 carry them.

    process_group   the group's start and end, from what torchrun says in the environment
    ranks           which process this is, of how many, and what they tell each other
    consensus       what one process refuses or decides, for all
    batch_share     which rows of a batch are whose, and means over all of them
    strategy        DDP or FSDP2: which, and what neither can do
    wrapper         what a step asks of a wrapped model; of one process alone
    ddp, fsdp       the same of a replica per process, and of a model in shards
    sharded_checkpoint   checkpoints of a model in shards, written and read by all processes

One process is `ALONE`: everything here is then what it would be without it, bit for bit.
"""

from loopscope.training.distributed.consensus import ElsewhereError
from loopscope.training.distributed.process_group import joined, launched
from loopscope.training.distributed.ranks import ALONE, Ranks

__all__ = ["ALONE", "ElsewhereError", "Ranks", "joined", "launched"]
