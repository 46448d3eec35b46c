"""Which of a cell's candidate prompts it is evaluated with: the best on its validation split, never on test."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch

from vlmbench.backbones.base import TooLongError, Turn
from vlmbench.cell import predictions
from vlmbench.cell.build import build_module
from vlmbench.cell.wording import worded, wordings
from vlmbench.config import schema
from vlmbench.domains.base import Example
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.domains.wording import Wording, sampled
from vlmbench.errors import UserError
from vlmbench.metrics.bootstrap import student
from vlmbench.metrics.draws import draw, freedom, outcomes
from vlmbench.metrics.frame import to_jsonable
from vlmbench.metrics.wording import spread
from vlmbench.modules.base import TunedModule
from vlmbench.modules.generative import GenerativeModule
from vlmbench.progress import Countdown


@dataclass(frozen=True)
class Choice:
    """What validation chose among the candidates.

    Attributes:
        wording: The chosen one.
        record: What the record says: `metric`, `seed`, numbers of `examples` and `groups`, the place of the one that is
            `chosen`, the `candidates` with `value`, `low`, `high` and, where a candidate is too long for the model, the
            `reason`; and their `spread`.
        frame: The validation predictions of all, as a predictions table with the column `candidate`.
    """

    wording: Wording
    record: dict[str, Any]
    frame: pd.DataFrame


def choose(config: schema.CellConfig, data: DomainDataModule, backbone: Any, trainer: L.Trainer, label: str) -> Choice:
    """Try each candidate on the same validation examples and choose the best; of equals the first.

    Args:
        config: The cell.
        data: Its loaders; what stands in for the pixels of `val` is used.
        backbone: The model.
        trainer: Has the device and the precision.
        label: The cell, for messages.

    Raises:
        UserError: There are no validation examples, or no candidate is short enough for the model.
    """
    asked, metric, domain = config.task.prompts, metric_of(config.task), data.domain
    held_out = domain.split("val")
    if not held_out:
        raise UserError(
            f"task.prompts.candidates={asked.candidates}: {domain.name} has no validation examples to choose a prompt "
            "on. Give it some (domain.split_fractions), or set task.prompts.candidates=1."
        )
    places = sampled(len(held_out), asked.examples, asked.seed)
    candidates = wordings(config, domain)
    progress = Countdown(f"{label}  trying prompts", len(candidates))
    frames: dict[int, pd.DataFrame] = {}
    refused: dict[int, str] = {}
    for place, wording in enumerate(candidates):
        try:
            module = build_module(*worded(config, domain, wording), backbone, None)
            _check_longest(module, data)
            frames[place] = _answers(module, data, held_out, places, trainer)
        except TooLongError as error:
            refused[place] = str(error)
        progress.update(place + 1)
    progress.close()
    if not frames:
        raise UserError(f"{config.model.name} cannot be asked in any of {len(candidates)} ways: {refused[0]}")
    seed = int(domain.fingerprint[:8] or "0", 16)
    scored = [outcomes(frame, config.task.name, metric, multi_label=domain.multi_label) for frame in frames.values()]
    drawn = draw(scored, n_resamples=config.task.resamples, seed=seed)
    best = list(frames)[0 if np.isnan(drawn[0]).all() else int(np.nanargmax(drawn[0]))]
    points, draws = np.full(len(candidates), np.nan), np.full((len(candidates), drawn[1].shape[1]), np.nan)
    points[list(frames)], draws[list(frames)] = drawn
    print(f"{label}  prompt {best} of {len(candidates)} is the best on validation", file=sys.stderr, flush=True)
    record = {
        "metric": metric,
        "seed": asked.seed,
        "examples": len(places),
        "groups": len(np.unique(scored[0].groups)),
        "chosen": best,
        "candidates": [
            {**told, "reason": refused.get(place, "")}
            for place, told in enumerate(
                _candidates(candidates, points, draws, freedom(scored[0]), config.task.confidence)
            )
        ],
        "spread": spread(*drawn, confidence=config.task.confidence),
    }
    table = pd.concat([frame.assign(candidate=place) for place, frame in frames.items()], ignore_index=True)
    return Choice(candidates[best], to_jsonable(record), table)


def metric_of(task: schema.TaskConfig) -> str:
    """Return the metric that chooses: that of `task.monitor`, or the task's usual one where that is a loss."""
    metric = task.monitor.removeprefix("val/")
    return metric if metric != "loss" else "auroc" if task.name == "diagnosis" else "accuracy"


def _candidates(
    candidates: Sequence[Wording], points: np.ndarray, draws: np.ndarray, degrees: float, confidence: float
) -> list[dict[str, Any]]:
    told = []
    for wording, point, own in zip(candidates, points, draws, strict=True):
        kept = own[~np.isnan(own)]
        known = len(kept) > 1 and degrees >= 1
        low, high = student(float(point), kept, degrees, confidence) if known else (None, None)
        told.append({**wording.as_record(), "value": float(point), "low": low, "high": high})
    return told


def _check_longest(module: TunedModule, data: DomainDataModule) -> None:
    """Refuse a candidate that the longest question of the test split has no room for; its answer is not looked at.

    Raises:
        TooLongError: There is none.
    """
    if isinstance(module, GenerativeModule):
        asked = [module.ask(example)[0].prompt for example in data.domain.split("test")]
        longest = max(range(len(asked)), key=lambda place: len(asked[place]))
        row = data.rows("test")[longest]
        module.backbone.collate([Turn(row[2], asked[longest], image=row[1].image)], supervise=False)


@torch.no_grad()
def _answers(
    module: TunedModule, data: DomainDataModule, held_out: Sequence[Example], places: Sequence[int], trainer: L.Trainer
) -> pd.DataFrame:
    """Return the predictions table of some validation rows."""
    module.to(trainer.strategy.root_device).eval()
    rows, size = data.rows("val"), data.eval_batch_size
    examples = [held_out[place] for place in places]
    order = list(module.arrange(examples))
    batches = []
    for start in range(0, len(order), size):
        batch = module.collate_eval([rows[places[index]] for index in order[start : start + size]])
        placed = module.transfer_batch_to_device(batch, module.device, 0)
        with trainer.precision_plugin.forward_context():
            batches.append({**module.predict_step(placed, 0), "index": order[start : start + size]})
    return predictions.table(examples, batches, data.domain)
