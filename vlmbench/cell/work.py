"""The heavy part of a cell: load, adapt, save, predict, measure."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from torch import Tensor

from vlmbench.cell import predictions
from vlmbench.cell.build import build_backbone, build_module, build_tuner
from vlmbench.cell.cost import Clock, asked, cost, peak_memory
from vlmbench.cell.features import frozen_features
from vlmbench.cell.fit import Selection, fit, fit_probe, frozen_head
from vlmbench.cell.trainer import encode, make_trainer
from vlmbench.config import schema
from vlmbench.config.checks import uses_linear_head
from vlmbench.domains.base import Domain, Split
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.domains.shares import Share
from vlmbench.domains.subgroups import subgroups
from vlmbench.hosted.model import HostedVlm
from vlmbench.modules import across
from vlmbench.modules.base import TunedModule
from vlmbench.modules.callbacks import PredictProgress
from vlmbench.modules.generative import GenerativeModule
from vlmbench.modules.waiting import DataWait
from vlmbench.records.environment import environment
from vlmbench.records.store import write_predictions
from vlmbench.reporting.dashboards import Dashboard
from vlmbench.tuning.heads import LinearHead
from vlmbench.tuning.parameters import count_by_part, format_table
from vlmbench.weights.source import cache_dir

SAVED = "saved"


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
    """
    clock, leads = Clock(), across.rank() == 0
    with clock.phase("setup"):
        L.seed_everything(config.seed, workers=True, verbose=False)
        trains_all = config.finetune.name == "full"
        waiting = DataWait()
        watched = [PredictProgress(label), waiting]
        trainer = make_trainer(config.trainer, folder, watched, None, deterministic=config.deterministic)
        backbone = build_backbone(
            config.model, precision=config.trainer.precision, trains_all=trains_all, lock=config.lock
        )
        data = build_data(config, domain, backbone)
    device, precision = trainer.strategy.root_device, str(trainer.precision)
    features: dict[Split, Tensor] = {}
    kept: dict[Split, bool] = {}  # whether another cell has encoded the same
    head = None
    if uses_linear_head(config):
        with clock.phase("encode"):
            splits: list[Split] = ["train", "val"] if config.finetune.name == "linear_probe" else ["train"]
            for split in splits:
                features[split], kept[split] = frozen_features(
                    config,
                    domain,
                    split,
                    weights=weights,
                    preprocess=backbone.preprocess,
                    settings=preprocessing_of(backbone),
                    device=device,
                    label=label,
                    encode=partial(encode, backbone, data, split, device, label),
                )
        head = frozen_head(features["train"], len(domain.label_names))
    tuner = build_tuner(config.finetune)
    tuner.apply(backbone)
    module = build_module(config, domain, backbone, head)
    data.collate = module.collate
    parameters = count_by_part(backbone.model, backbone.part_prefixes, head)
    if parameters and leads:
        print(f"{label}\n{format_table(parameters)}", file=sys.stderr, flush=True)

    selection: Selection | None = None
    trained: dict[str, Any] = {}
    with clock.phase("fit"):
        if isinstance(config.finetune, schema.LinearProbeConfig) and head is not None:
            if leads:  # the others get the head when the trainer predicts
                selection = fit_probe(config.finetune, domain, features, head, config.task.monitor)
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
        "training": trained,
        "cost": {
            **cost(clock, parameters, frame, train_rate, saved, usage),
            "data_wait": waited,
            "features_kept": kept,
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


def save(tuner: Any, backbone: Any, head: LinearHead | None, folder: Path) -> Path:
    """Write what was trained into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    tuner.save(backbone, folder)
    if head is not None:
        head.save(folder)
    return folder


def predicted_split(config: schema.CellConfig) -> Split:
    """Return the split that a cell predicts on: test, for a trial of a search validation."""
    return "val" if config.task.evaluate_on == "val" else "test"


def predict(
    module: TunedModule, data: DomainDataModule, trainer: L.Trainer, clock: Clock, split: Split = "test"
) -> list[dict[str, Any]]:
    """Predict on a split, and return the columns over rows that all processes made, each row once."""
    with clock.phase("predict"):
        own: list[Any] = trainer.predict(module, data.ordered(split, module.collate_eval)) or []
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


def batch_variance(
    module: TunedModule, data: DomainDataModule, frame: pd.DataFrame, precision: str
) -> dict[str, Any] | None:
    """Return how many generated answers differ between batch size 1 and the cell's, in reduced precision.

    In float32 they do not differ, which a test holds; in lower precision sums in another order can tip a token. What a
    hosted model is batched with nobody knows.
    """
    if not isinstance(module, GenerativeModule) or module.mode != "vqa" or precision == "32-true":
        return None
    if isinstance(module.backbone, HostedVlm):
        return None
    rows = data.rows("test")
    count = min(64, len(rows))
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float16
    module.eval()
    with torch.autocast(module.device.type, dtype=dtype):
        alone = [module.answer([rows[index]])[0]["prediction"] for index in range(count)]
    differ = sum(a != b for a, b in zip(alone, frame["prediction"][:count], strict=True))
    return {"examples": count, "differ": differ, "share": differ / count}
