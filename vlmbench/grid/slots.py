"""Places for cells on one machine: how many run at the same time, on which GPUs, with how many threads."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vlmbench.config import schema
from vlmbench.errors import UserError
from vlmbench.weights.source import PACKAGE

#: Cores of one cell without a GPU: more threads hardly speed up the small matrices of a small model.
CORES = 4
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_NAME = re.compile(r"\d+|GPU-.+|MIG-.+")
_MIG = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)", re.MULTILINE)
_GPU = re.compile(r"^GPU (\d+): ", re.MULTILINE)


class SlotError(UserError):
    """A cell can never be placed on this machine; the message says what it wants and what there is."""


def cores() -> int:
    """Return how many cores this process may use, which in a job of a cluster is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_names(asked: int | None, environment: Mapping[str, str]) -> list[str] | None:
    """Name the GPUs that may be handed out, as CUDA_VISIBLE_DEVICES names them; torch is not imported.

    Args:
        asked: How many to take for granted; None looks for them.
        environment: Where CUDA_VISIBLE_DEVICES may be set: numbers, or names of GPUs or of MIG slices, which are kept.

    Returns:
        The names; None where none was found, so that what a cell sees is better left as it is.

    Raises:
        SlotError: More are asked for than CUDA_VISIBLE_DEVICES lists.
    """
    listed: list[str] | None = None
    if _VISIBLE in environment:
        listed = []
        for name in environment[_VISIBLE].split(","):
            # As CUDA itself reads it: what follows a name that is none, such as -1 or NoDevFiles, is not there.
            if not _NAME.fullmatch(name.strip()):
                break
            listed.append(name.strip())
    if asked is not None:
        if listed is None:
            return [str(number) for number in range(asked)]
        if asked > len(listed):
            raise SlotError(
                f"hydra.launcher.gpus={asked}, and {_VISIBLE}={environment[_VISIBLE]!r} lists {len(listed)}. "
                "Ask for as many at most, or unset the variable."
            )
        return listed[:asked]
    return listed if listed is not None else _found()


def _found() -> list[str] | None:
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return None  # no driver, no GPU of NVIDIA
    # A GPU that is cut into slices is used by slice: as a whole CUDA shows the first slice alone.
    names: list[str] = []
    for part in re.split(r"^(?=GPU \d+: )", told, flags=re.MULTILINE):
        names += _MIG.findall(part) or _GPU.findall(part)
    return names or None


def devices_of(config: schema.CellConfig) -> int:
    """Return how many processes with a device each a cell wants on this machine."""
    return config.trainer.devices


def wants_gpu(config: schema.CellConfig) -> bool:
    """Tell whether a cell computes on a GPU where there is one."""
    return config.trainer.accelerator not in ("cpu", "mps") and not isinstance(config.model, schema.HostedModelConfig)


@dataclass(frozen=True)
class Slot:
    """What a running cell has taken.

    Attributes:
        places: Of the cells that run at the same time.
        gpus: Names of its GPUs.
        shares: Places on each of these GPUs.
    """

    places: int
    gpus: tuple[str, ...] = ()
    shares: int = 0


@dataclass
class Slots:
    """The places of one machine.

    Attributes:
        jobs: Cells that run at the same time; one with several devices counts as so many.
        gpus: Names of the GPUs; None leaves what a cell sees as it is.
        cells_per_gpu: Cells of one device that share a GPU.
    """

    jobs: int
    gpus: list[str] | None
    cells_per_gpu: int = 1
    _used: int = 0
    _on: dict[str, int] = field(default_factory=dict)

    def check(self, config: schema.CellConfig) -> None:
        """Check that a cell can be placed when nothing else runs.

        Raises:
            SlotError: It wants more GPUs than there are, or other machines.
        """
        if config.trainer.nodes > 1:
            raise SlotError(
                f"trainer.nodes={config.trainer.nodes}, and this is one machine. Take launcher=slurm, or set "
                "trainer.nodes=1."
            )
        if self._needs_gpu(config) and devices_of(config) > len(self.gpus or ()):
            raise SlotError(
                f"trainer.devices={devices_of(config)}, and there are {len(self.gpus or ())} GPUs here. "
                "Set fewer, or trainer.accelerator=cpu."
            )

    def take(self, config: schema.CellConfig) -> Slot | None:
        """Take places for a cell: GPUs with the fewest cells first; None where it must wait."""
        places = min(devices_of(config), self.jobs)
        if self._used + places > self.jobs:
            return None
        names: tuple[str, ...] = ()
        shares = 0
        if self._needs_gpu(config):
            # Cells that share a GPU are small ones; what wants several has each for itself.
            shares = self.cells_per_gpu if devices_of(config) > 1 else 1
            room = [name for name in self.gpus or () if self._on.get(name, 0) + shares <= self.cells_per_gpu]
            room.sort(key=lambda name: self._on.get(name, 0))  # stable: in the order of the machine
            if len(room) < devices_of(config):
                return None
            names = tuple(room[: devices_of(config)])
        self._used += places
        for name in names:
            self._on[name] = self._on.get(name, 0) + shares
        return Slot(places, names, shares)

    def give(self, slot: Slot) -> None:
        """Take back what a cell had."""
        self._used -= slot.places
        for name in slot.gpus:
            self._on[name] -= slot.shares

    def environment(self, slot: Slot) -> dict[str, str]:
        """Return what the processes of a cell must see of the GPUs."""
        return {} if self.gpus is None else {_VISIBLE: ",".join(slot.gpus)}

    def _needs_gpu(self, config: schema.CellConfig) -> bool:
        return bool(self.gpus) and wants_gpu(config)


def cores_each(configs: Sequence[schema.CellConfig]) -> int:
    """Return the cores of one cell without a GPU: one where all models are shipped, whose threads only wait."""
    return 1 if all(config.model.source.startswith(PACKAGE) for config in configs) else CORES


def make_slots(jobs: int | None, gpus: int | None, cells_per_gpu: int, cores_of_cell: int = CORES) -> Slots:
    """Return the places of this machine.

    Args:
        jobs: Cells at the same time; None: as many as the GPUs take, or as the cores where there are none.
        gpus: GPUs to take for granted, see `gpu_names`.
        cells_per_gpu: Cells of one device that share a GPU.
        cores_of_cell: How many cores a cell without a GPU is taken to use.

    Raises:
        SlotError: A number below one.
    """
    for name, value, least in (("jobs", jobs, 1), ("gpus", gpus, 0), ("cells_per_gpu", cells_per_gpu, 1)):
        if value is not None and value < least:
            raise SlotError(f"hydra.launcher.{name}={value}: give {least} or more, or null.")
    names = gpu_names(gpus, os.environ)
    fitting = len(names) * cells_per_gpu if names else cores() // cores_of_cell
    return Slots(jobs or max(1, fitting), names, cells_per_gpu)


def threads_of(jobs: int, environment: Mapping[str, str]) -> int:
    """Return the threads of each process when `jobs` share the cores, never more than OMP_NUM_THREADS allows.

    Several torch processes that each use every core are many times slower than one.
    """
    share = max(1, cores() // jobs)
    asked = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(share, int(asked)) if asked.isdigit() and int(asked) > 0 else share
