"""The heavy part of a cell: load, adapt, save, predict, measure."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from torch import nn

from vlmbench.backbones.contrastive.dual import EncodedRows
from vlmbench.cell import predictions
from vlmbench.cell.build import build_backbone, build_classifier, build_module, build_tuner
from vlmbench.cell.choosing import choose
from vlmbench.cell.cost import Clock, asked, cost, peak_memory
from vlmbench.cell.features import encode_splits
from vlmbench.cell.fit import fit, fit_probe, frozen_head
from vlmbench.cell.flops import flops
from vlmbench.cell.saving import SAVED, save
from vlmbench.cell.selecting import Selection, selectable
from vlmbench.cell.text_probe import fit_lp_text
from vlmbench.cell.trainer import make_trainer
from vlmbench.cell.variance import batch_variance
from vlmbench.cell.vision import recall_vision, splits_read
from vlmbench.cell.wording import worded
from vlmbench.config import schema
from vlmbench.config.checks import encoded_splits, frozen_image, uses_linear_head
from vlmbench.config.prompts import tries_prompts
from vlmbench.domains.base import Domain, Split
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.domains.shares import Share
from vlmbench.domains.subgroups import subgroups
from vlmbench.hosted.model import HostedVlm
from vlmbench.modules import across
from vlmbench.modules.base import TunedModule
from vlmbench.modules.callbacks import PredictProgress
from vlmbench.modules.waiting import DataWait
from vlmbench.records.environment import environment
from vlmbench.records.store import PROMPTS, write_predictions, write_table
from vlmbench.reporting.dashboards import Dashboard
from vlmbench.tuning.heads import LinearHead
from vlmbench.tuning.lp_text import BlendedClassifier
from vlmbench.tuning.parameters import count_by_part, format_table
from vlmbench.weights.source import cache_dir


def work(
    config: schema.CellConfig, domain: Domain, weights: str, folder: Path, label: str, dashboard: Dashboard
) -> dict[str, Any]:
    """Run a cell: what it saves and predicts goes into `folder`.

    Where a cell has several processes all of them do this; rank 0 alone writes, scores and prints.

    Args:
        config: The cell.
        domain: Its domain, audited.
        weights: Digest of the pretrained weights.
        folder: The cell's directory.
        label: Its name for people.
        dashboard: Where curves go.

    Returns:
        The part of the record that only running the cell gives; nothing in the other ranks.

    Raises:
        UserError: The validation split cannot select by `task.monitor`.
    """
    clock, leads = Clock(), across.rank() == 0
    config = selectable(config, domain, label if leads else "")
    with clock.phase("setup"):
        L.seed_everything(config.seed, workers=True, verbose=False)
        trains_all = config.finetune.name == "full"
        waiting = DataWait()
        watched = [PredictProgress(label), waiting]
        trainer = make_trainer(config.trainer, folder, watched, None, deterministic=config.deterministic)
        backbone = build_backbone(
            config.model,
            precision=config.trainer.precision,
            trains_all=trains_all,
            lock=config.lock,
            attention=config.trainer.attention,
        )
        data = build_data(config, domain, backbone)
    device, precision = trainer.strategy.root_device, str(trainer.precision)
    by: dict[str, Any] = {
        "weights": weights,
        "settings": preprocessing_of(backbone),
        "trainer": trainer,
        "label": label,
    }
    encoded: dict[Split, EncodedRows] = {}
    kept: dict[Split, bool] = {}  # whether another cell has encoded the same
    if splits := encoded_splits(config):
        with clock.phase("encode"):
            encoded, kept = encode_splits(config, data, backbone, splits, **by)
    if frozen_image(config):
        data.encoded.update(encoded)
    head: nn.Module | None = None
    if uses_linear_head(config):
        head = frozen_head(encoded["train"].features, len(domain.label_names))
    elif "train" in encoded:
        head = build_classifier(config, domain, backbone, encoded["train"].embeddings.shape[-1])
    tuner = build_tuner(config.finetune, device)
    tuner.apply(backbone)
    module = build_module(config, domain, backbone, head)
    data.collate, data.arrange = module.collate, module.arrange
    with clock.phase("encode"):
        seen = recall_vision(config, data, backbone, splits_read(config), **by)
    prompts: dict[str, Any] | None = None
    if tries_prompts(config):
        with clock.phase("choose"):
            choice = choose(config, data, backbone, trainer, label)
        prompts = choice.record
        write_table(folder / PROMPTS, choice.frame)
        module = build_module(*worded(config, domain, choice.wording), backbone, head)
        data.collate, data.arrange = module.collate, module.arrange
    parameters = count_by_part(backbone.model, backbone.part_prefixes, head)
    if parameters and leads:
        print(f"{label}\n{format_table(parameters)}", file=sys.stderr, flush=True)

    selection: Selection | None = None
    trained: dict[str, Any] = {}
    with clock.phase("fit"):
        if isinstance(config.finetune, schema.LinearProbeConfig) and isinstance(head, LinearHead):
            if leads:  # the others get the head when the trainer predicts
                features = {split: rows.features for split, rows in encoded.items()}
                selection = fit_probe(config.finetune, domain, features, head, config.task.monitor, device)
        elif isinstance(config.finetune, schema.LpTextConfig) and isinstance(head, BlendedClassifier):
            if leads:
                embeddings = {split: rows.embeddings for split, rows in encoded.items()}
                selection = fit_lp_text(config.finetune, domain, embeddings, head, config.task.monitor)
        elif isinstance(config.finetune, schema.OptimisedConfig):
            selection, trained = fit(config, module, data, folder, label, dashboard.logger)
    saved, tested = folder / SAVED, config.task.evaluate_on == "test"
    if tested:  # of a trial nothing is kept but its value
        with clock.phase("save"):
            across.from_zero(lambda: save(tuner, backbone, head, saved))
    batches = predict(module, data, trainer, clock, predicted_split(config))
    waited = {"train": trained.pop("data_wait", None), "predict": waiting.share("predict")}
    usage = across.gathered((data.tally.counts(), peak_memory()))
    if not leads:
        return {}
    frame, scored = score(config, batches, domain, folder, clock)
    rows_seen = len(domain.split("train")) * trained.get("epochs", 0)
    train_rate = round(rows_seen / clock.seconds["fit"], 2) if rows_seen else None
    return {
        **scored,
        "selection": selection and {"metric": selection.metric, "value": selection.value, **selection.chosen},
        "prompts": prompts,
        "training": trained,
        "cost": {
            **cost(clock, parameters, frame, train_rate, saved, usage),
            "data_wait": waited,
            "features_kept": kept,
            "vision_kept": seen,
            "flops": flops(config, module, data, trainer, trained, prompts) if tested else None,
            **asked(backbone),
        },
        "data": describe_data(domain),
        "environment": environment(
            device=getattr(backbone, "place", str(device)), precision=precision, threads=torch.get_num_threads()
        ),
        "batch_variance": batch_variance(module.to(device), data, frame, precision) if tested else None,
    }


def build_data(config: schema.CellConfig, domain: Domain, backbone: Any) -> DomainDataModule:
    """Return the loaders of a cell."""
    return DomainDataModule(
        domain,
        backbone.preprocess,
        batch_size=config.trainer.batch_size,
        eval_batch_size=config.trainer.eval_batch_size,
        num_workers=config.trainer.num_workers,
        seed=config.seed,
        cache=None if isinstance(backbone, HostedVlm) else cache_dir(),
        cache_gib=config.trainer.pixel_cache_gib,
        model=config.model.name,
        settings=preprocessing_of(backbone),
        share=Share(across.rank(), across.world()),
        ahead=torch.cuda.is_available() and config.trainer.accelerator != "cpu",
    )


def preprocessing_of(backbone: Any) -> str:
    """Return the configuration of a backbone's preprocessing, the same in every process."""
    processor = getattr(backbone, "processor", None)
    if processor is not None:
        return str(processor.image_processor.to_json_string())
    transform = getattr(backbone, "transform", "")
    return getattr(transform, "__qualname__", None) or re.sub(r" at 0x[0-9a-f]+", "", repr(transform))


def predicted_split(config: schema.CellConfig) -> Split:
    """Return the split that a cell predicts on: test, for a trial of a search validation."""
    return "val" if config.task.evaluate_on == "val" else "test"


def predict(
    module: TunedModule, data: DomainDataModule, trainer: L.Trainer, clock: Clock, split: Split = "test"
) -> list[dict[str, Any]]:
    """Predict on a split, and return the columns over rows that all processes made, each row once."""
    with clock.phase("predict"):
        own: list[Any] = trainer.predict(module, data.arranged(split, module.collate_eval)) or []
        made = [batch for part in across.gathered(own) for batch in part]
    return [batch for batch in made if batch["index"][0] >= 0]  # others only kept a process in step


def score(
    config: schema.CellConfig, batches: list[dict[str, Any]], domain: Domain, folder: Path, clock: Clock
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Write the predictions, and return them with their metrics and counts."""
    frame = predictions.table(domain.split(predicted_split(config)), batches, domain)
    write_predictions(folder, frame)
    with clock.phase("score"):
        task = config.task
        scored = predictions.score(
            frame, task.name, multi_label=domain.multi_label, resamples=task.resamples, confidence=task.confidence
        )
    return frame, {**scored, "n": {"examples": len(frame), "groups": int(frame["group"].nunique())}}


def describe_data(domain: Domain) -> dict[str, Any]:
    """Return what a record says of the data."""
    return {
        "fingerprint": domain.fingerprint,
        "labels": list(domain.label_names),
        "multi_label": domain.multi_label,
        "splits": domain.counts(),
        "subgroups": subgroups(domain),
        "left_out": [dict(row) for row in domain.left_out],
        "audit": dict(domain.audit),
        "licence": domain.licence,
        "origin": domain.origin,
    }
