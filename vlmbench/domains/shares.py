"""One process's share of a split where several train or evaluate one cell together.

Shares are orders of rows, so that batches are made of them as of any other order. A process that would have nothing in
a round in which others have something gets one row more than is asked for, numbered `~row`, which is negative: it keeps
the process in step with the others and counts as nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import Sampler


@dataclass(frozen=True)
class Share:
    """Which of `world` processes takes its share."""

    rank: int = 0
    world: int = 1


WHOLE = Share()


class SharedBatches(Sampler[int]):
    """Of every batch of an order the rows `rank::world`, to be cut into batches of `batch_size // world`.

    The processes together see, step for step, the batches that one process alone would see.

    Args:
        order: All rows, in an order; where it has a `set_epoch`, Lightning's call is passed on.
        batch_size: Rows of a batch over all processes, a multiple of `share.world`.
        share: Whose.
    """

    def __init__(self, order: Sampler[int], batch_size: int, share: Share) -> None:
        self.order = order
        self.batch_size = batch_size
        self.share = share

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)

    @property
    def epoch(self) -> int:
        """Which epoch's order it is; 0 where orders do not differ."""
        return int(getattr(self.order, "epoch", 0))

    def __len__(self) -> int:
        full, rest = divmod(len(self.order), self.batch_size)  # type: ignore[arg-type]
        own = len(range(self.share.rank, rest, self.share.world))
        return full * (self.batch_size // self.share.world) + max(own, min(rest, 1))

    def __iter__(self) -> Iterator[int]:
        rows = list(self.order)
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            yield from batch[self.share.rank :: self.share.world] or [~batch[0]]


class WholeBatches(Sampler[int]):
    """Every `world`-th batch of an order, whole: what is computed of a batch does not depend on the processes.

    Args:
        order: All rows of the split.
        batch_size: Rows of a batch.
        share: Whose.
    """

    def __init__(self, order: Sequence[int], batch_size: int, share: Share) -> None:
        self.order: list[int] = []
        for start in range(0, len(order), batch_size * share.world):
            own = start + share.rank * batch_size
            self.order.extend(order[own : own + batch_size] or [~order[start]])

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)
