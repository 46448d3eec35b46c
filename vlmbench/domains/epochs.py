"""The batches of an epoch: in the same order in every run, and from the first that an interrupted run has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import islice

import torch
from torch.utils.data import BatchSampler, Sampler

from vlmbench.domains.shares import SharedBatches


class EpochSampler(Sampler[int]):
    """A permutation that depends on the seed and the epoch alone, so that a resumed run sees the same batches."""

    def __init__(self, rows: Sized, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(len(self.rows), generator=generator).tolist())


class UnseenBatches(BatchSampler):
    """The batches of an epoch, but for those at the beginning of one epoch that an interrupted run has seen.

    Its length counts them all, as Lightning does.

    Args:
        sampler: Order of the rows.
        batch_size: Rows in a batch.
        start: Epoch to begin with, and how many of its batches are done.
    """

    def __init__(self, sampler: EpochSampler | SharedBatches, batch_size: int, start: tuple[int, int] = (0, 0)) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.order = sampler
        self.start = start
        # Lightning asks for the first batches before it says which epoch it is, and workers fetch them at once.
        sampler.set_epoch(start[0])

    def __iter__(self) -> Iterator[list[int]]:
        epoch, done = self.start
        return islice(super().__iter__(), done if self.order.epoch == epoch else 0, None)
