"""What the frozen image tower makes of a cell's splits: encoded once for all cells that want the same.

Each distinct image of a split is encoded once, into features for a probe and embeddings to stand beside text, in one
pass. A row's last digits depend on the rows beside it. So that they do not depend on who encoded first, a split is
always encoded as a whole and in its order; a part of a training split takes its rows out of the whole, see
`encoded_with`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vlmbench.backbones.contrastive.dual import EncodedRows, cast
from vlmbench.config import schema
from vlmbench.domains.base import Domain, Example, Split, StoredImages
from vlmbench.domains.codec import Codec, UnkeptError, is_random
from vlmbench.domains.datamodule import DomainDataModule, Row
from vlmbench.domains.memo import Digests
from vlmbench.domains.pixels import pixel_versions, reader_code
from vlmbench.domains.subset import encoded_with
from vlmbench.modules import across
from vlmbench.progress import Countdown
from vlmbench.records.features import kept_features
from vlmbench.records.identity import RESULT_VERSION, relevant
from vlmbench.weights.source import cache_dir

log = logging.getLogger(__name__)

#: What encodes, beside what decodes and preprocesses.
ENCODERS = ("vlmbench", "torch", "transformers", "open_clip_torch", "timm")


def encode_splits(
    config: schema.CellConfig,
    data: DomainDataModule,
    backbone: Any,
    splits: Iterable[Split],
    *,
    weights: str,
    settings: str,
    trainer: L.Trainer,
    label: str,
) -> tuple[dict[Split, EncodedRows], dict[Split, bool]]:
    """Return the encoded rows of splits, and for each whether they were kept before.

    Args:
        config: The cell.
        data: Its loaders.
        backbone: The model as it came, in front of any tuner.
        splits: Which.
        weights: Digest of the pretrained weights.
        settings: Configuration of the preprocessing.
        trainer: Says where and in which precision, as it does for predictions.
        label: The cell, for messages.
    """
    encoded: dict[Split, EncodedRows] = {}
    kept: dict[Split, bool] = {}
    several = across.world() > 1  # they would wait for each other
    keeps = config.trainer.feature_cache_gib > 0 and not several and not is_random(backbone.preprocess)
    parts: dict[str, Any] = {}
    try:
        parts = _parts(config, data.domain, backbone, weights, settings, trainer) if keeps else {}
    except UnkeptError as error:
        log.warning("%s: frozen features are not kept: %s.", label, error)
        keeps = False
    for split in splits:
        wanted = data.domain.split(split)
        source = encoded_with(data.domain, split) if keeps else wanted
        content = _content(data.domain, source) if keeps else None
        if content is None:  # an image cannot be read, which its loader says better
            source = wanted
        images, places = _distinct(source, content)

        def make(images: Sequence[Example] = images, split: Split = split) -> dict[str, np.ndarray]:
            batches = data.images(images, split)
            return _encode(backbone, batches, len(images), trainer, f"{label}  encoding {split}, batches")

        if content is None:
            arrays, kept[split] = make(), False
        else:
            digest = hashlib.sha256("".join(content[example.image] for example in images).encode()).hexdigest()
            arrays, kept[split] = kept_features(
                cache_dir(),
                config.trainer.feature_cache_gib * 2**30,
                {**parts, "images": digest},
                make,
                f"{label}  {split}",
            )
        if kept[split]:
            # Each loader draws a seed when it begins. What is initialised next must not depend on who encoded.
            iter(DataLoader([0]))  # type: ignore[arg-type]
        encoded[split] = _rows(arrays, [places[example.id] for example in wanted])
    return encoded, kept


def _content(domain: Domain, examples: Sequence[Example]) -> dict[str, str] | None:
    """Return what each image is, by its key; None where one cannot be read."""
    keys = list(dict.fromkeys(example.image for example in examples))
    if not isinstance(domain.images, StoredImages):
        made_by = (domain.whole or domain).fingerprint
        return {key: f"{made_by} {key}\n" for key in keys}
    known = Digests(cache_dir()).learn(domain.images, keys)[0]
    return {key: known[key].hex() for key in keys} if len(known) == len(keys) else None


def _distinct(examples: Sequence[Example], content: dict[str, str] | None) -> tuple[list[Example], dict[str, int]]:
    """Return the first example of each distinct image, and the place of each example's image among them by its id."""
    images: dict[str, int] = {}
    first: list[Example] = []
    places: dict[str, int] = {}
    for example in examples:
        what = example.image if content is None else content[example.image]
        if what not in images:
            images[what] = len(first)
            first.append(example)
        places[example.id] = images[what]
    return first, places


def _rows(arrays: dict[str, np.ndarray], places: Sequence[int]) -> EncodedRows:
    """Return the rows at some places; nothing is copied where these are all in order."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if list(places) != list(range(len(tensors["features"]))):
        tensors = {name: tensor[torch.tensor(places)] for name, tensor in tensors.items()}
    return EncodedRows(tensors["features"], tensors.get("embeddings", tensors["features"]))


@torch.no_grad()
def _encode(
    backbone: Any, batches: DataLoader[Row], count: int, trainer: L.Trainer, doing: str
) -> dict[str, np.ndarray]:
    """Return `features` (N, F) and, where they are others, `embeddings` of N = `count` images.

    Each image is encoded once, by one of the cell's processes.
    """
    device = trainer.strategy.root_device
    backbone.to(device).eval()
    progress = Countdown(doing, len(batches))
    columns: dict[str, Tensor] = {}
    own: list[Tensor] = []
    for done, batch in enumerate(batches, start=1):
        with trainer.precision_plugin.forward_context():
            made = backbone.encode(cast(batch["pixels"], backbone.model))
        index = batch["index"]
        own.append(index[index >= 0])  # others only keep a process in step
        for name, values in made._asdict().items():
            if name == "embeddings" and made.embeddings is made.features:
                continue
            if name not in columns:  # in place: all of it is as large as what stays
                columns[name] = torch.empty(count, *values.shape[1:])
            columns[name][index[index >= 0]] = values.float().cpu()[index >= 0]
        if across.rank() == 0:
            progress.update(done)
    progress.close()
    if across.world() > 1:
        rows = torch.cat(own)
        for theirs, part in across.gathered((rows, {name: column[rows] for name, column in columns.items()})):
            for name, column in columns.items():
                column[theirs] = part[name]
    return {name: column.numpy() for name, column in columns.items()}


def _parts(
    config: schema.CellConfig, domain: Domain, backbone: Any, weights: str, settings: str, trainer: L.Trainer
) -> dict[str, Any]:
    """Return everything but the images that changes a digit of what is encoded."""
    device = trainer.strategy.root_device
    return {
        "version": RESULT_VERSION,
        "model": relevant(dataclasses.asdict(config))["model"],
        "weights": weights,
        "adapter": None,  # the tower as it came
        "preprocessing": [settings, Codec(backbone.preprocess).fingerprint],
        "reader": reader_code(domain.images) if isinstance(domain.images, StoredImages) else "",
        "precision": [config.trainer.precision, str(next(backbone.model.parameters()).dtype)],
        "kernels": [config.trainer.attention, config.deterministic],
        # A row's last digits depend on the rows beside it, and on a CPU on the number of threads.
        "batch": config.trainer.eval_batch_size,
        "device": [device.type, torch.get_num_threads() if device.type == "cpu" else torch.cuda.get_device_name()],
        "libraries": {**pixel_versions(), **{name: _version(name) for name in ENCODERS}},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
