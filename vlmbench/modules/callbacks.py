"""Callbacks of every run: proof that it trains, one seed a batch, and progress with an ETA."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
import torch

from vlmbench.progress import Countdown
from vlmbench.tuning.parameters import UntrainedError, without_gradient

PATIENCE_FP16 = 20  # the loss scale of fp16 starts too high on purpose and halves at each overflow


class GradientGuard(L.Callback):
    """Stop unless every trainable tensor gets a finite, non-zero gradient after the first optimiser step.

    The first step itself proves nothing: half of every LoRA pair starts at zero, and the other half has no gradient
    until it has moved.
    """

    def __init__(self) -> None:
        self.passed = False
        self._overflows = 0

    def state_dict(self) -> dict[str, Any]:
        """Remember the proof across a resume."""
        return {"passed": self.passed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the proof of the interrupted run."""
        self.passed = bool(state_dict["passed"])

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        """Look at the gradients of the second optimiser step.

        Raises:
            UntrainedError: Naming the tensors that the loss does not reach.
        """
        if self.passed or trainer.global_step < 1:
            return
        faults = without_gradient(pl_module.named_parameters())
        overflow = any(fault == "not finite" for fault in faults.values())
        if overflow and trainer.precision == "16-mixed" and self._overflows < PATIENCE_FP16:
            self._overflows += 1
            return
        if faults:
            named = ", ".join(f"{name} ({fault})" for name, fault in list(faults.items())[:10])
            raise UntrainedError(
                f"{len(faults)} trainable tensors have no usable gradient after the first optimiser step: {named}. "
                "The run would not train them. Check finetune.scope and finetune.classifier, or lower finetune.lr."
            )
        self.passed = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a run that ended before anything could be proved.

        Raises:
            UntrainedError: There was one optimiser step or none.
        """
        if not self.passed:
            raise UntrainedError(
                f"training ended after {trainer.global_step} optimiser step(s), too few to show that every tensor "
                "trains. Lower trainer.batch_size or trainer.accumulate_grad_batches, or raise trainer.max_epochs."
            )


class BatchSeed(L.Callback):
    """Seed dropout by epoch, batch and process, so that a resumed run goes on exactly as the uninterrupted one.

    Not by the epoch alone: whether a loader draws from the same stream before or after an epoch begins differs between
    the two.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Reseed torch; each process of a cell drops out by a stream of its own."""
        batch_seed = (self.seed * 1_000_003 + trainer.current_epoch) * 1_000_003 + batch_idx
        torch.manual_seed((batch_seed + trainer.global_rank * 998_244_353) % 2**63)


class StepLimit(L.Callback):
    """End training with a validation when the budget of optimiser steps is spent.

    Args:
        steps: The budget; none where it is not positive.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask for a stop with validation at the last step."""
        if 0 < self.steps <= trainer.global_step:
            trainer.should_stop = True


class Progress(L.Callback):
    """One line an epoch on stderr, with the time that is left at most, and the curves for the record.

    Args:
        label: What is running.
        monitor: Validation metric to show.
    """

    def __init__(self, label: str, monitor: str) -> None:
        self.label = label
        self.monitor = monitor
        self.curve: list[dict[str, float]] = []
        self._batches: Countdown | None = None
        self._start = 0.0
        self._first = 0

    def state_dict(self) -> dict[str, Any]:
        """Keep the curve across a resume."""
        return {"curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the interrupted run's curve."""
        self.curve = list(state_dict["curve"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start, self._first = time.monotonic(), trainer.current_epoch
        epochs = (trainer.current_epoch, trainer.max_epochs or 0)
        done, total = (int(trainer.num_training_batches) * count for count in epochs)
        if trainer.is_global_zero:
            self._batches = Countdown(f"{self.label}  batches", total, done)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count within an epoch, which may take hours."""
        if self._batches is not None:
            self._batches.update(trainer.current_epoch * int(trainer.num_training_batches) + batch_idx + 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line."""
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        left = (time.monotonic() - self._start) / max(1, done - self._first) * (total - done)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.curve.append({"epoch": done - 1, **values})
        if self._batches is None:
            return  # rank 0 alone prints
        self._batches.clear()
        shown = "  ".join(f"{name} {values[name]:.4f}" for name in ("train/loss", self.monitor) if name in values)
        print(f"{self.label}  epoch {done}/{total}  {shown}  {left:.0f} s left at most", file=sys.stderr, flush=True)


class PredictProgress(L.Callback):
    """How many batches are predicted, with the time that is left.

    Args:
        label: What is running.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._batches: Countdown | None = None

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count."""
        if not trainer.is_global_zero:
            return
        if self._batches is None or batch_idx == 0:
            self._batches = Countdown(f"{self.label}  predicting, batches", int(trainer.num_predict_batches[0]))
        self._batches.update(batch_idx + 1)
