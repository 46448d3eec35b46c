"""What the processes of a cell tell each other; a process that is alone hears only itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def world() -> int:
    """Return how many processes work on the cell."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return which of them this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def total(values: Tensor) -> Tensor:
    """Return the sum of a tensor of the same shape over all processes."""
    if world() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


def gathered(value: T) -> list[T]:
    """Return what each process gives, in the order of their ranks, to all of them."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def from_zero(make: Callable[[], T]) -> T:
    """Return to all processes what rank 0 makes; the others make nothing.

    Should it fail there, the others end with the cell: see `vlmbench.cell.crew`.
    """
    if world() == 1:
        return make()
    box: list[Any] = [make() if rank() == 0 else None]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


class _Joined(torch.autograd.Function):
    """Rows of all processes one after another; the gradient of each row comes back to where it was computed."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        ctx.counts = counts
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        gradient = total(gradients[0].contiguous())
        first = sum(ctx.counts[: rank()])
        return gradient[first : first + ctx.counts[rank()]], None


def joined(rows: Tensor) -> Tensor:
    """Return the rows (N, ...) of all processes, of which each gives its own (n, ...); n may differ.

    Where every process computes the same loss of all rows, the gradients that arrive here are summed over processes:
    each process ends with `world` times its part, and the mean over processes, which DDP takes, is the whole gradient.
    """
    if world() == 1:
        return rows
    counts = gathered(len(rows))
    return _Joined.apply(rows, counts)
