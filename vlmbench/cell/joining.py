"""How the processes of one cell come together, and part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from vlmbench.cell.crew import Crew, meeting_store
from vlmbench.cell.ranks import RankError, this_rank
from vlmbench.cell.stopping import Interrupted
from vlmbench.config import schema

TENSORS = timedelta(minutes=60)  # for which one rank may wait for another within the work: the slowest batch by far


@contextmanager
def joined(trainer: schema.TrainerConfig) -> Iterator[Crew]:
    """Join the other processes of this cell, where it has others, for the block.

    Raises:
        RankError: The processes that there are do not fit the cell, or some did not come.
    """
    rank = this_rank(trainer.devices, trainer.nodes)
    if rank is None:
        raise RankError(f"trainer.devices={trainer.devices}: the processes of the cell were not started.")
    if rank.world == 1:
        yield Crew(rank)
        return
    import torch
    from torch import distributed

    gpus = torch.cuda.is_available() and trainer.accelerator != "cpu"
    store = meeting_store(rank, server=rank.is_zero)
    crew = Crew(rank, store, gpus=gpus)
    crew.join()
    distributed.init_process_group(
        # Predictions and other plain objects go by gloo, tensors on GPUs by NCCL.
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=distributed.PrefixStore("group", store),
        rank=rank.rank,
        world_size=rank.world,
        timeout=TENSORS,
    )
    try:
        yield crew
    except Interrupted as stop:
        crew.stop(stop)
        raise
    finally:
        crew.leave()
