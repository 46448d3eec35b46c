"""Adapting a model: the probe that is solved, and the training that Lightning runs."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from vlmbench.cell import stopping
from vlmbench.cell.selecting import Selection
from vlmbench.cell.trainer import make_trainer, to_train
from vlmbench.config import schema
from vlmbench.domains.base import Domain, Split
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.modules import across
from vlmbench.modules.base import TunedModule
from vlmbench.modules.callbacks import BatchSeed, GradientGuard, Progress, StepLimit
from vlmbench.modules.checkpoints import LAST, AtomicCheckpointIO, newest, whole, write_whole
from vlmbench.modules.contrastive import targets_of
from vlmbench.modules.layers import checkpoint_layers, compile_layers, release_layers
from vlmbench.modules.micro import MicroBatches
from vlmbench.modules.scoring import validation_metrics
from vlmbench.modules.stopping import LastCheckpoint
from vlmbench.modules.waiting import DataWait
from vlmbench.records.state import CHECKPOINTS
from vlmbench.tuning.heads import LinearHead
from vlmbench.tuning.linear_probe import Solution, search
from vlmbench.tuning.parameters import UntrainedError


def frozen_head(features: Tensor, classes: int) -> LinearHead:
    """Return a head that standardises by the statistics of the training features (N, F)."""
    return LinearHead(features.mean(0), features.std(0, correction=0), classes)


def fit_probe(
    finetune: schema.LinearProbeConfig,
    domain: Domain,
    features: Mapping[Split, Tensor],
    head: LinearHead,
    monitor: str,
    device: torch.device,
) -> Selection:
    """Solve the linear probe for all strengths at once and put the best on validation into `head`.

    Args:
        finetune: Strengths and tolerance.
        domain: Gives the targets.
        features: Frozen features of `train` (N, F) and `val` (M, F).
        head: Its statistics standardise the features; its weights are replaced.
        monitor: `val/auroc`, `val/accuracy` or `val/loss`.
        device: Where to solve; a device without float64 is passed over for the CPU.
    """
    device = torch.device("cpu") if device.type == "mps" else device

    def targets(split: Split) -> Any:
        return targets_of([e.labels for e in domain.split(split)], len(domain.label_names), domain.multi_label)

    x = ((features["train"] - head.mean) / head.std).to(device)
    y = torch.from_numpy(targets("train")).to(device)
    x_val, y_val = ((features["val"] - head.mean) / head.std).double(), targets("val")

    def validate(solution: Solution) -> float:
        logits = x_val @ solution.weight.T.cpu() + solution.bias.cpu()
        if monitor == "val/loss":
            truth = torch.from_numpy(y_val)
            if domain.multi_label:
                return -float(torch.nn.functional.binary_cross_entropy_with_logits(logits, truth.double()))
            return -float(torch.nn.functional.cross_entropy(logits, truth))
        scores = logits.sigmoid() if domain.multi_label else logits.softmax(-1)
        return validation_metrics(scores.numpy(), y_val, domain.multi_label)[monitor.removeprefix("val/")]

    best, scored = search(
        x,
        y,
        len(domain.label_names),
        finetune.strengths,
        validate,
        max_iter=finetune.max_iter,
        tolerance=finetune.tolerance,
    )
    with torch.no_grad():
        head.linear.weight.copy_(best.weight)
        head.linear.bias.copy_(best.bias)
    named = [(f"{solution.strength:g}", solution, score) for solution, score in scored]
    chosen = {
        "strength": best.strength,
        "objective": best.objective,
        "gradient": best.gradient,
        "candidates": {name: abs(score) for name, _, score in named},
        "iterations": {name: solution.iterations for name, solution, _ in named},
        "converged": {name: solution.converged for name, solution, _ in named},
    }
    value = next(score for solution, score in scored if solution is best)
    return Selection(monitor, abs(value), chosen)


def fit(
    config: schema.CellConfig, module: TunedModule, data: DomainDataModule, folder: Path, label: str, logger: Any
) -> tuple[Selection, dict[str, Any]]:
    """Train with Lightning, go on where a checkpoint is, and leave the epoch in `module` that validation picks.

    Returns:
        The selection, and facts of the training: epochs, optimiser steps, how they were computed, the curve, the share
        of a step that waited for data, and how far the output moved.

    Raises:
        UntrainedError: A tensor that should train does not, or the tuned model answers as before.
        Interrupted: The cell was asked to stop; the checkpoint goes on at the next call.
    """
    checkpoints = (folder / CHECKPOINTS).resolve()
    mode = "min" if config.task.monitor == "val/loss" else "max"
    keep = ModelCheckpoint(
        dirpath=checkpoints,
        filename="best",
        monitor=config.task.monitor,
        mode=mode,
        save_on_train_epoch_end=True,
    )
    progress, waiting = Progress(label, config.task.monitor), DataWait()
    callbacks = [
        GradientGuard(),
        BatchSeed(config.seed),
        StepLimit(config.trainer.max_steps),
        progress,
        EarlyStopping(monitor=config.task.monitor, mode=mode, patience=config.trainer.patience),
        keep,
        LastCheckpoint(checkpoints / LAST, config.trainer.checkpoint_minutes, stopping),
        waiting,
    ]
    witness = _witness(module, data)
    module.max_steps = config.trainer.max_steps
    trainer = make_trainer(
        _unlimited(config.trainer), folder, callbacks, logger, deterministic=config.deterministic, trains=True
    )
    trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    before = witness(trainer)
    finished = checkpoints / "finished.json"
    # Rank 0 looks for all: a shared file system may not show every node the same at the same moment.
    facts = across.from_zero(lambda: _facts(finished, label))
    if not facts:
        with stopping.deferred():
            found = across.from_zero(lambda: newest(checkpoints, label))
            data.start = found.start if found else (0, 0)
            fitted = to_train(module, config.trainer)
            fitted.train()  # transformers hands models over in evaluation mode, where dropout does nothing
            _prepare(fitted, config.trainer)
            trainer.fit(fitted, data, ckpt_path=str(found.path) if found else None, weights_only=True)
            release_layers(fitted.backbone.model)
            facts = {
                "epochs": trainer.current_epoch,
                "optimiser_steps": trainer.global_step,
                "resumed": found is not None,
                "computed": _computed(fitted, trainer),
                "curve": progress.curve,
                "data_wait": waiting.share("train"),
                "best": Path(keep.best_model_path).name,
                "value": float(keep.best_model_score) if keep.best_model_score is not None else None,
            }
            across.from_zero(lambda: write_whole(finished, json.dumps(facts)))
    state = torch.load(checkpoints / facts["best"], map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"], strict=False)
    change = float((witness(trainer) - before).abs().max())
    if not change > 0:
        raise UntrainedError(
            "the tuned model gives the same output as the untuned one: nothing that it computes has changed. "
            "Check finetune.lr and finetune.scope."
        )
    if facts["value"] is None or not math.isfinite(facts["value"]):
        raise UntrainedError(
            f"{config.task.monitor} is not a number in any epoch, so none can be chosen. Lower finetune.lr."
        )
    told = ("epochs", "optimiser_steps", "resumed", "computed", "curve", "data_wait")
    trained = {key: facts.get(key) for key in told} | {"output_change": change}
    return Selection(config.task.monitor, facts["value"], {"epoch": int(state["epoch"])}), trained


def _prepare(module: TunedModule, config: schema.TrainerConfig) -> None:
    """Let a module compute its training steps as the trainer's settings say."""
    module.micro = MicroBatches(
        tokens=config.micro_tokens,
        enabled=config.devices * config.nodes == 1 or config.strategy == "ddp",
        checkpointing=config.gradient_checkpointing,
    )
    if config.compile:
        compile_layers(module.backbone.model)
    if config.gradient_checkpointing == "on":
        checkpoint_layers(module.backbone.model)


def _computed(module: TunedModule, trainer: L.Trainer) -> dict[str, Any]:
    """Return by what the steps were computed, for the record."""
    config = getattr(module.backbone.model, "config", None)
    micro = module.micro
    return {
        "fused_optimiser": all(group.get("fused") for one in trainer.optimizers for group in one.param_groups),
        "gradient_checkpointing": micro.checkpointing == "on" or micro.checkpointed,
        "attention": getattr(config, "_attn_implementation", None),
        **(micro.facts() if micro.batches else {}),
    }


def _unlimited(config: schema.TrainerConfig) -> schema.TrainerConfig:
    """Return the settings without a budget of steps, which `StepLimit` keeps.

    Lightning neither validates at the end of its own budget, nor goes on exactly from a checkpoint with one.
    """
    return dataclasses.replace(config, max_steps=-1) if config.max_steps > 0 else config


def _facts(finished: Path, label: str) -> dict[str, Any]:
    """Return what a training that is over left, empty where it is not over or what it chose cannot be read."""
    if not finished.exists():
        return {}
    facts: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
    best = finished.parent / facts["best"]
    if not facts["best"] or whole(best):
        return facts
    print(f"{label}: {best} is damaged, and training goes on before it.", file=sys.stderr, flush=True)
    return {}


def _witness(module: TunedModule, data: DomainDataModule) -> Callable[[L.Trainer], Tensor]:
    """Return a function that gives the model's output on the first few validation rows."""
    rows = data.rows("val")
    batch = data.collate([rows[index] for index in range(min(4, len(rows)))])

    @torch.no_grad()
    def output(trainer: L.Trainer) -> Tensor:
        module.to(trainer.strategy.root_device).eval()
        with trainer.precision_plugin.forward_context():
            return module.output(batch).float().cpu()

    return output
