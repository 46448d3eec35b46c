"""What makes batches beside the model: processes that decode, as many as fit, and a thread that reads ahead."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
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

    Attributes:
        reads_ahead: Whether a thread makes the next batches, see `ahead`.
    """

    reads_ahead = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches.

        Raises:
            ImageError: An image cannot be read.
        """
        batches = super().__iter__()
        for batch in ahead(batches) if self.reads_ahead else batches:
            if isinstance(batch, ImageError):
                raise batch
            yield batch


def ahead(batches: Iterable[Any]) -> Generator[Any]:
    """Yield batches that a thread makes while the model computes, two ahead, in pinned memory where CUDA is there.

    The batches are the same in the same order. Closing the generator ends the thread.

    Raises:
        Exception: Whatever making a batch raises.
    """
    made: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=1)
    left = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not left.is_set():
            try:
                made.put((kind, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            if all(put("batch", pinned(batch)) for batch in batches):
                put("end", None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the batches are used
            put("fault", error)

    thread = threading.Thread(target=make, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = made.get()
            if kind == "fault":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        left.set()
        thread.join()


def pinned(batch: Any) -> Any:
    """Return a batch whose own tensors lie in pinned memory, from which a GPU copies while the host goes on."""
    if not torch.cuda.is_available() or not isinstance(batch, dict):
        return batch
    return {key: value.pin_memory() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
