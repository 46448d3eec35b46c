"""The frozen vision tower of a cell: what it gives for an image stands in for its pixels, in all its questions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch

from vlmbench.backbones.generative.inputs import ImageInputs
from vlmbench.backbones.generative.native import HfVlm
from vlmbench.cell.seen import SeenImages, SeenRows
from vlmbench.config import schema
from vlmbench.config.prompts import tries_prompts
from vlmbench.domains.base import Domain, Split, StoredImages
from vlmbench.domains.codec import Codec, UnkeptError, is_random
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.domains.memo import Digests
from vlmbench.domains.pixels import pixel_versions, reader_code
from vlmbench.domains.shelf import DISK_SHARE
from vlmbench.modules import across
from vlmbench.records.features import key_of
from vlmbench.records.identity import RESULT_VERSION
from vlmbench.weights.source import cache_dir

log = logging.getLogger(__name__)

#: The type that autocast multiplies in. Float16 could not hold what the residuals of a tower may reach.
KEPT_TYPES = {"bf16-mixed": torch.bfloat16}


def tower_stays(config: schema.CellConfig) -> bool:
    """Tell whether a cell leaves the vision tower of a generative model as it came."""
    return config.model.kind == "generative" and "V" not in getattr(config.finetune, "scope", "")


def splits_read(config: schema.CellConfig) -> list[Split]:
    """Return the splits that a cell trains and predicts on."""
    predicted: Split = "val" if config.task.evaluate_on == "val" else "test"
    trains = isinstance(config.finetune, schema.OptimisedConfig)
    before: list[Split] = ["train", "val"] if trains else ["val"] if tries_prompts(config) else []
    return list(dict.fromkeys([*before, predicted]))


def recall_vision(
    config: schema.CellConfig,
    data: DomainDataModule,
    backbone: Any,
    splits: Sequence[Split],
    *,
    weights: str,
    settings: str,
    trainer: L.Trainer,
    label: str,
) -> dict[str, int] | None:
    """Let what the vision tower gives stand in for the pixels of some splits, where it is frozen and there is room.

    Every image goes through the tower alone: what is kept does not depend on who made it, and for which batch.

    Args:
        config: The cell.
        data: Its loaders, whose rows have it from here on.
        backbone: The model, prepared by the tuner.
        splits: Those that are read.
        weights: Digest of the pretrained weights.
        settings: Configuration of the preprocessing.
        trainer: Has the device and the precision.
        label: The cell, for messages.

    Returns:
        What the record says: how many `images` there are, how many of them were `reused`, and the `bytes` that all
        take; None where the tower runs each time.

    Raises:
        ImageError: An image cannot be decoded.
    """
    limit = config.trainer.vision_cache_gib
    if not limit or not isinstance(backbone, HfVlm) or not tower_stays(config):
        return None
    # What is drawn at random is not to be kept, and what cannot be read is an error of who reads it.
    if backbone.tower.random(backbone.model) or is_random(backbone.preprocess):
        return None
    digests = _digests(data.domain, splits)
    tower, device = backbone.tower.of(backbone.model), trainer.strategy.root_device
    home, alone = next(tower.parameters()).device, threading.Lock()
    dtype = KEPT_TYPES.get(config.trainer.precision, torch.float32)

    def make(key: str) -> ImageInputs:
        pixels = backbone.preprocess(data.domain.images.load(key))
        data.tally.decoded()
        with alone, trainer.precision_plugin.forward_context():  # autocast holds in a thread alone
            return on_host(backbone.see(pixels), dtype)

    seen, reused, lacks = None, 0, 0.0
    try:
        if digests:
            parts = _parts(config, data.domain, backbone, weights, settings, device)
            seen = SeenImages(cache_dir(), limit * 2**30, key_of(parts), parts, digests, make)
            reused = len(set(digests.values())) - len(seen.lacking())
            tower.to(device).eval()
            lacks = seen.fill(f"{label}  seeing images" if across.rank() == 0 else "")
    except (UnkeptError, OSError) as error:
        seen = None
        log.warning("%s: what the vision tower gives cannot be kept (%s): it runs each time.", label, error)
    finally:
        tower.to(home)
    if seen and lacks:
        log.warning(
            "%s: %.2f GiB are missing in %s to keep what the vision tower gives for %d images: it runs each time. "
            "Raise trainer.vision_cache_gib (now %g; %d %% of the free disk at most), or delete what is there.",
            *(label, lacks / 2**30, seen.shelf.root, len(set(digests.values())), limit, 100 * DISK_SHARE),
        )
    # All or none: processes that split a model over them must call the same layers.
    everywhere = all(across.gathered(seen is not None and not lacks))
    if seen is None or not everywhere:
        return None
    seen.recalled = data.tally.cached
    for split in splits:
        data.encoded[split] = SeenRows([example.image for example in data.domain.split(split)], seen)
    return {"images": len(set(digests.values())), "reused": reused, "bytes": seen.nbytes()}


def _digests(domain: Domain, splits: Sequence[Split]) -> Mapping[str, bytes]:
    """Return what each image of some splits is, by key; nothing where one is not there."""
    keys = list(dict.fromkeys(example.image for split in splits for example in domain.split(split)))
    if not isinstance(domain.images, StoredImages):
        made_by = (domain.whole or domain).fingerprint
        return {key: hashlib.sha256(f"{made_by} {key}".encode()).digest() for key in keys}
    known = Digests(cache_dir()).learn(domain.images, keys)[0]
    return known if len(known) == len(keys) else {}


def _parts(
    config: schema.CellConfig, domain: Domain, backbone: HfVlm, weights: str, settings: str, device: torch.device
) -> dict[str, Any]:
    """Return everything that changes a digit of what is kept, beside the image.

    Raises:
        UnkeptError: Preprocessing fails for a synthetic image.
    """
    tower = backbone.tower.of(backbone.model)
    shapes = [f"{name} {p.dtype} {tuple(p.shape)}" for name, p in tower.named_parameters()]
    versions = {name: importlib.metadata.version(name) for name in ("vlmbench", "torch", "transformers")}
    return {
        "version": RESULT_VERSION,
        "weights": weights,
        "loader": config.model.loader,
        "boundary": repr(backbone.tower.boundary),
        "tower": hashlib.sha256("\n".join(shapes).encode()).hexdigest(),  # types of weights, quantised ones too
        "attention": str(getattr(getattr(tower, "config", None), "_attn_implementation", None)),
        "preprocessing": [settings, Codec(backbone.preprocess).fingerprint],
        "reader": reader_code(domain.images),
        "precision": config.trainer.precision,
        "device": [device.type, torch.get_num_threads() if device.type == "cpu" else torch.cuda.get_device_name()],
        "libraries": {**pixel_versions(), **versions},
    }


def on_host(image: ImageInputs, dtype: torch.dtype) -> ImageInputs:
    """Return an image whose tensors are in the host's memory, its numbers in the given type."""
    tensors = {key: v.to("cpu", dtype) if v.is_floating_point() else v.cpu() for key, v in image.tensors.items()}
    return ImageInputs(tensors, image.tokens)
