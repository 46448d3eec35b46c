"""A domain as batches: images decoded and preprocessed once, training rows shuffled the same way in every run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlmbench.domains.base import Domain, Example, Split, StoredImages
from vlmbench.domains.codec import UnkeptError, is_random
from vlmbench.domains.decoded import CACHE_BYTES, PixelCache, Tally
from vlmbench.domains.epochs import EpochSampler, UnseenBatches
from vlmbench.domains.pixels import KeptPixels
from vlmbench.domains.shares import WHOLE, Share, SharedBatches, WholeBatches
from vlmbench.domains.workers import AUTOMATIC, Collating, Loader, aside, fitting

log = logging.getLogger(__name__)

Row = tuple[int, Example, Any]
Collate = Callable[[list[Row]], Any]


class ExampleDataset(Dataset[Row]):
    """Rows `(index, example, pixels)` of one split, the index `~row` where it counts as nothing, see `shares`.

    Args:
        examples: Of the split.
        pixels: Gives the image of a key.
        encoded: For each example what is used in place of its pixels, where its image is encoded already.
    """

    def __init__(self, examples: Sequence[Example], pixels: PixelCache, encoded: Sequence[Any] | None = None) -> None:
        self.examples = examples
        self.pixels = pixels
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Row:
        row = index if index >= 0 else ~index
        example = self.examples[row]
        if self.encoded is not None:
            return index, example, self.encoded[row]
        return aside(lambda: (index, example, self.pixels(example.image)))


class DomainDataModule(L.LightningDataModule):
    """Loaders over a domain's splits.

    Args:
        domain: The dataset.
        preprocess: The model's own preprocessing.
        batch_size: Rows in a training batch, over all processes together.
        eval_batch_size: Rows in a batch of validation, prediction and encoding.
        num_workers: Processes that decode images; none is started for a split that is kept on disk. `AUTOMATIC`: as
            many as fit this machine; none for synthetic images, which are rendered once.
        seed: Of the order of the training rows.
        cache: Folder below which preprocessed images are kept for all jobs of this machine, where they come from files.
        cache_gib: Most that they may take there; 0 keeps nothing.
        model: Whose preprocessing it is, for messages.
        settings: Its configuration; another one has a cache of its own.
        share: Which part of each split this process reads, where several work together.
        ahead: Whether batches are made in a thread while a GPU computes; on a CPU the two would take time from each
            other. Those of validation are not: a tokeniser, used in its steps too, serves one thread at a time.
    """

    def __init__(
        self,
        domain: Domain,
        preprocess: Callable[[Image.Image], Any],
        *,
        batch_size: int,
        eval_batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        cache: Path | None = None,
        cache_gib: float = 0,
        model: str = "model",
        settings: str = "",
        share: Share = WHOLE,
        ahead: bool = False,
    ) -> None:
        super().__init__()
        self.domain = domain
        self.share = share
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.start = (0, 0)  # epoch and batches that are done of it: set before training goes on
        self.collate: Collate = stack_pixels
        # In which order examples are validated and predicted on; what is told of them does not depend on it.
        self.arrange: Callable[[Sequence[Example]], Sequence[int]] = in_order
        self.encoded: dict[Split, Sequence[Any]] = {}  # what stands in for the pixels of a split's examples
        self.tally = Tally()
        kept, random = None, is_random(preprocess)
        if random:
            log.warning("%s: its preprocessing is random, and every image is decoded anew each time.", model)
        elif cache and cache_gib and isinstance(domain.images, StoredImages):
            try:
                kept = KeptPixels(
                    *(domain.images, preprocess, cache, cache_gib * 2**30),
                    model=model,
                    settings=settings,
                    decoded=self.tally.decoded,
                )
            except UnkeptError as error:
                log.warning("%s: nothing is kept in the pixel cache: %s.", model, error)
        self.ahead = ahead and not random  # random preprocessing draws from the stream that the model draws from
        self._pixels = PixelCache(domain.images, preprocess, 0 if random else CACHE_BYTES, kept, self.tally)

    def train_dataloader(self) -> DataLoader[Row]:
        """Return shuffled batches of the training split, made by `collate`."""
        workers, rows = self._workers("train", self.batch_size), self.rows("train")
        order = SharedBatches(EpochSampler(rows, self.seed), self.batch_size, self.share)
        batches = UnseenBatches(order, self.batch_size // self.share.world, self.start)
        return self._loader(rows, self.collate, {"batch_sampler": batches}, workers)

    def val_dataloader(self) -> DataLoader[Row]:
        """Return batches of the validation split, as `arrange` orders it, made by `collate`."""
        return self.arranged("val", self.collate)

    def arranged(self, split: Split, collate: Collate) -> DataLoader[Row]:
        """Return batches of any split as `arrange` orders it: rows carry their `index` in the domain's order."""
        order = self.arrange(self.domain.split(split))
        workers = self._workers(split, self.eval_batch_size)
        return self._in_batches(self.rows(split), collate, self.eval_batch_size, order, workers)

    def ordered(self, split: Split, collate: Collate, batch_size: int | None = None) -> DataLoader[Row]:
        """Return batches of any split in the domain's order, to encode."""
        size = batch_size or self.eval_batch_size
        workers = self._workers(split, size)
        return self._in_batches(self.rows(split), collate, size, in_order(self.domain.split(split)), workers)

    def images(self, examples: Sequence[Example], what: str) -> DataLoader[Row]:
        """Return batches of the pixels of some examples, in their order, to encode.

        Args:
            examples: Of the domain, or of the whole that it is a part of.
            what: The word for them in messages.
        """
        rows = ExampleDataset(examples, self._pixels)
        workers = self._readers(examples, what, self.eval_batch_size)
        return self._in_batches(rows, stack_pixels, self.eval_batch_size, in_order(examples), workers)

    def warm(self, split: Split) -> bool:
        """Keep the images of a split on disk that are not there yet; return whether all are there."""
        return self._warm(self.domain.split(split), split)

    def _warm(self, examples: Sequence[Example], what: str) -> bool:
        if self._pixels.kept is None:
            return False
        keys = [example.image for example in examples]
        return self._pixels.kept.warm(keys, f"{self.domain.name}: preprocessing {what} images")

    def rows(self, split: Split) -> ExampleDataset:
        """Return one split's rows."""
        return ExampleDataset(self.domain.split(split), self._pixels, self.encoded.get(split))

    def from_pixels(self, split: Split, most: int) -> list[Row]:
        """Return some rows from all over a split with their pixels, though its images may be encoded."""
        rows = ExampleDataset(self.domain.split(split), self._pixels)
        return [rows[index] for index in range(0, len(rows), max(1, len(rows) // most))][:most]

    def _workers(self, split: Split, batch_size: int) -> int:
        """Return the processes that read a split."""
        return 0 if split in self.encoded else self._readers(self.domain.split(split), split, batch_size)

    def _readers(self, examples: Sequence[Example], what: str, batch_size: int) -> int:
        """Return the processes that read examples; what is kept is read faster than a worker passes tensors on."""
        if self._warm(examples, what):
            return 0
        automatic = fitting(-(-len(examples) // batch_size)) if isinstance(self.domain.images, StoredImages) else 0
        workers = automatic if self.num_workers == AUTOMATIC else self.num_workers
        if workers:  # each would fill a memory of its own
            self._pixels.max_bytes = 0
        return workers

    def _in_batches(
        self, rows: ExampleDataset, collate: Collate, size: int, order: Sequence[int], workers: int
    ) -> DataLoader[Row]:
        how = {"batch_size": size, "sampler": WholeBatches(order, size, self.share)}
        return self._loader(rows, collate, how, workers)

    def _loader(self, rows: ExampleDataset, collate: Collate, how: dict[str, Any], workers: int) -> DataLoader[Row]:
        if workers:
            # In a grid a cell comes from a fork server, and its workers would by default from another, which imports
            # torch anew.
            how |= {"num_workers": workers, "persistent_workers": True, "multiprocessing_context": "fork"}
        loader = Loader(rows, collate_fn=Collating(collate), **how)
        loader.reads_ahead = self.ahead
        return loader


def in_order(examples: Sequence[Example]) -> Sequence[int]:
    """Return the order in which the domain has its examples."""
    return range(len(examples))


def stack_pixels(rows: list[Row]) -> dict[str, Tensor]:
    """Return `pixels` (B, 3, H, W) and the rows' `index` (B,)."""
    return {
        "pixels": torch.stack([pixels for *_, pixels in rows]),
        "index": torch.tensor([index for index, *_ in rows]),
    }
