"""A finished cell put together again, to predict on images of another domain or of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from torch import nn

from vlmbench.cell.build import build_backbone, build_classifier, build_module, build_tuner
from vlmbench.cell.cost import Clock
from vlmbench.cell.features import encode_splits
from vlmbench.cell.naming import name_weights
from vlmbench.cell.trainer import make_trainer
from vlmbench.cell.vision import recall_vision
from vlmbench.cell.wording import worded
from vlmbench.cell.work import build_data, preprocessing_of
from vlmbench.config import schema
from vlmbench.config.checks import frozen_image, uses_linear_head
from vlmbench.domains.base import Domain, Split
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.modules.base import TunedModule
from vlmbench.modules.callbacks import PredictProgress
from vlmbench.modules.waiting import DataWait
from vlmbench.tuning.heads import LinearHead, load_classifier


@dataclass(frozen=True)
class Tuned:
    """All that predicting takes.

    Attributes:
        module: The tuned model with its classifier.
        backbone: Its backbone.
        head: Its head, None where it has none.
        data: The domain's loaders.
        trainer: Predicts.
        waiting: Measures how long it waited for data.
        features_kept: For each encoded split whether the cache had it.
        vision_kept: As `vision.recall_vision` returns it.
    """

    module: TunedModule
    backbone: Any
    head: nn.Module | None
    data: DomainDataModule
    trainer: L.Trainer
    waiting: DataWait
    features_kept: dict[Split, bool]
    vision_kept: dict[str, int] | None


def put_together(
    config: schema.CellConfig,
    domain: Domain,
    saved: Path,
    folder: Path,
    label: str,
    clock: Clock,
    prompts: Mapping[str, Any] | None = None,
) -> Tuned:
    """Load what a cell was grown from and put back what it saved.

    Args:
        config: The cell, with the domain in place of its own.
        domain: Whose test split is predicted on.
        saved: Folder of what the cell saved.
        folder: Where the trainer may write.
        label: For messages.
        clock: Measures.
        prompts: What its record says of the prompts that it chose from; None where it had no choice.

    Raises:
        UserError: The weights are not here, or this machine cannot compute the cell.
    """
    weights = name_weights(config.model, config.lock)
    with clock.phase("setup"):
        backbone = build_backbone(
            config.model,
            precision=config.trainer.precision,
            trains_all=config.finetune.name == "full",
            lock=config.lock,
            attention=config.trainer.attention,
        )
        data = build_data(config, domain, backbone)
        waiting = DataWait()
        trainer = make_trainer(
            config.trainer, folder, [PredictProgress(label), waiting], None, deterministic=config.deterministic
        )
    common: dict[str, Any] = {
        "weights": weights,
        "settings": preprocessing_of(backbone),
        "trainer": trainer,
        "label": label,
    }
    kept: dict[Split, bool] = {}
    if frozen_image(config):
        with clock.phase("encode"):
            encoded, kept = encode_splits(config, data, backbone, ["test"], **common)
        data.encoded.update(encoded)
    with clock.phase("setup"):
        build_tuner(config.finetune, trainer.strategy.root_device).load(backbone, saved)
        head: nn.Module | None = None
        if uses_linear_head(config):
            head = LinearHead.load(saved)
        elif frozen_image(config):
            head = build_classifier(config, domain, backbone, data.encoded["test"][0].embeddings.shape[-1])
            if head is not None:
                load_classifier(head, saved)
        module = build_module(*worded(config, domain, prompts), backbone, head)
        data.arrange = module.arrange
    with clock.phase("encode"):
        seen = recall_vision(config, data, backbone, ["test"], **common)
    return Tuned(module, backbone, head, data, trainer, waiting, kept, seen)
