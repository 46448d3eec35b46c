"""Which part of a cell this process is: a cell on several devices is as many processes, its ranks, that run the same.

Ranks are told apart by the variables that torchrun sets, or by those of SLURM's tasks. Nothing here imports torch.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from vlmbench.errors import UserError

# Once one rank has ended badly, the others have GRACE seconds to find out by themselves. One that is stuck then ends by
# force, rank 0 with a record, for which the others wait FAREWELL seconds in all; who started them kills what is left.
GRACE, FAREWELL, KILL_AFTER = 5.0, 10.0, 15.0


class RankError(UserError):
    """The processes of a cell do not fit together; the message says how to start them."""


@dataclass(frozen=True)
class Rank:
    """One process of a cell.

    Attributes:
        rank: Its number, from 0, over all nodes.
        local: Its number on its node, from 0: which device is its own.
        world: Processes of the cell.
        slurm: Whether SLURM started it as a task.
    """

    rank: int = 0
    local: int = 0
    world: int = 1
    slurm: bool = False

    @property
    def is_zero(self) -> bool:
        """Whether it is the one that claims the cell, writes and prints."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world}"


ALONE = Rank()


def this_rank(devices: int, nodes: int, environ: Mapping[str, str] | None = None) -> Rank | None:
    """Return which rank of a cell this process is, None where its ranks are still to be started.

    A cell on one device is alone, whatever the variables of a surrounding job say.

    Args:
        devices: Of one node.
        nodes: Of the cell.
        environ: Variables; by default those of this process.

    Raises:
        RankError: As many processes were started as the cell has no devices, or nobody started those of other nodes.
    """
    environ = os.environ if environ is None else environ
    world = devices * nodes
    if world == 1:
        return ALONE
    if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= environ.keys():
        if int(environ["WORLD_SIZE"]) != world:
            raise RankError(
                f"WORLD_SIZE={environ['WORLD_SIZE']} processes were started for a cell on {nodes} x {devices} devices. "
                "Set trainer.devices (of one node) and trainer.nodes to what was started."
            )
        return Rank(int(environ["RANK"]), int(environ["LOCAL_RANK"]), world)
    # A batch script outside srun is no task, though SLURM_PROCID is set there too.
    tasks = int(environ.get("SLURM_NTASKS", "1")) if "SLURM_STEP_ID" in environ else 1
    if tasks == world:
        return Rank(int(environ["SLURM_PROCID"]), int(environ["SLURM_LOCALID"]), world, slurm=True)
    if tasks > 1:
        raise RankError(
            f"srun started {tasks} tasks for a cell on {nodes} x {devices} devices. Start one task a device: "
            f"srun --nodes={nodes} --ntasks-per-node={devices}."
        )
    if nodes > 1:
        raise RankError(
            f"trainer.nodes={nodes}: nobody started the processes on the other nodes. Start one a device by srun "
            f"(--nodes={nodes} --ntasks-per-node={devices}), by torchrun, or by launcher=slurm."
        )
    return None


def environments(devices: int) -> list[dict[str, str]]:
    """Return the variables of each rank of a cell on this machine, to be set before `prepare`.

    Args:
        devices: Of the cell. One gets no variables: it is alone.
    """
    if devices == 1:
        return [{}]
    with socket.socket() as probe:  # a port that is free now; nobody else is likely to take it in the next seconds
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(devices), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(devices)]
