"""Processes that decode images beside the one that computes: how many, and how their faults come through."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from vlmbench.domains.base import ImageError

AUTOMATIC = -1
#: Of one loader: decoders of 8 processes give more images a second than one model takes.
MOST = 8


def fitting(batches: int) -> int:
    """Return how many workers fit this machine: none where the computing process has one core.

    Args:
        batches: Of the loader; a worker makes whole batches.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    # Where several cells or ranks share the machine, its threads are this process's share.
    share = min(cores, torch.get_num_threads(), int(given) if given.isdigit() else cores)
    return max(0, min(share - 1, MOST, batches))


def aside(read: Callable[[], Any]) -> Any:
    """Return what `read` gives; in a worker also the `ImageError` that it raises, see `Loader`."""
    if get_worker_info() is None:
        return read()
    try:
        return read()
    except ImageError as error:
        return error


@dataclass(frozen=True)
class Collating:
    """Makes a batch of rows, or hands on the first fault among them.

    Attributes:
        collate: Makes the batch.
    """

    collate: Callable[[list[Any]], Any]

    def __call__(self, rows: list[Any]) -> Any:
        """Return the batch, or an `ImageError`."""
        return next((row for row in rows if isinstance(row, ImageError)), None) or self.collate(rows)


class Loader(DataLoader[Any]):
    """A loader that raises an image's fault as it was raised in a worker.

    torch would make a `RuntimeError` of it, with the worker's traceback for a message.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches.

        Raises:
            ImageError: An image cannot be read.
        """
        for batch in super().__iter__():
            if isinstance(batch, ImageError):
                raise batch
            yield batch
