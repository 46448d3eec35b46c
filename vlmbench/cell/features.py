"""The frozen features of a cell: taken from the cache where another cell has encoded the same images alike."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vlmbench.config import schema
from vlmbench.domains.base import Domain, Split, StoredImages
from vlmbench.domains.codec import Codec, Preprocess, is_random
from vlmbench.domains.memo import Digests
from vlmbench.domains.pixels import reader_code
from vlmbench.records.features import kept_features
from vlmbench.records.identity import RESULT_VERSION, relevant
from vlmbench.weights.source import cache_dir

#: What decodes, preprocesses and encodes.
LIBRARIES = ("vlmbench", "torch", "torchvision", "transformers", "open_clip_torch", "timm", "pillow", "numpy")


def frozen_features(
    config: schema.CellConfig,
    domain: Domain,
    split: Split,
    *,
    weights: str,
    preprocess: Preprocess,
    settings: str,
    device: torch.device,
    label: str,
    encode: Callable[[], Tensor],
) -> tuple[Tensor, bool]:
    """Return the features (N, F) of a split, and whether they were kept before.

    Args:
        config: The cell.
        domain: Its domain.
        split: Which rows.
        weights: Digest of the pretrained weights.
        preprocess: The model's own preprocessing.
        settings: Its configuration.
        device: Where they would be encoded: a GPU and a CPU differ in the last digits.
        label: The cell, for messages.
        encode: Makes them.
    """
    content = _content(domain, split)
    several = (config.trainer.devices, config.trainer.nodes) != (1, 1)  # they would wait for each other
    if content is None or several or is_random(preprocess):
        return encode(), False
    parts = {
        "version": RESULT_VERSION,
        "model": relevant(dataclasses.asdict(config))["model"],
        "weights": weights,
        "preprocessing": [settings, Codec(preprocess).fingerprint],
        "images": content,
        "precision": config.trainer.precision,
        # A row's last digits depend on the rows beside it, and on a CPU on the number of threads.
        "batch": config.trainer.eval_batch_size,
        "device": [device.type, torch.get_num_threads() if device.type == "cpu" else torch.cuda.get_device_name()],
        "libraries": {name: _version(name) for name in LIBRARIES},
    }
    found, kept = kept_features(
        cache_dir(),
        config.trainer.feature_cache_gib * 2**30,
        parts,
        lambda: encode().float().cpu().numpy(),
        f"{label}  {split}",
    )
    if kept:
        # Each loader draws a seed when it begins. What is initialised next must not depend on who encoded.
        iter(DataLoader([0]))  # type: ignore[arg-type]
    return torch.from_numpy(found), kept


def _content(domain: Domain, split: Split) -> str | None:
    """Return what the images of a split are, row by row; None where one cannot be read."""
    keys = [example.image for example in domain.split(split)]
    if not isinstance(domain.images, StoredImages):
        digest = hashlib.sha256(f"{domain.fingerprint} {split}".encode())
    else:
        known = Digests(cache_dir()).learn(domain.images, list(dict.fromkeys(keys)))[0]
        if len(known) < len(set(keys)):
            return None
        digest = hashlib.sha256(reader_code(domain.images).encode())
        for key in keys:
            digest.update(known[key])
    return digest.hexdigest()


def _version(name: str) -> Any:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
