"""Training that can be stopped at any optimiser step and goes on from there as if it had not been."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, NoReturn, Protocol

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

POSITION = "vlmbench_position"  # key in a checkpoint, beside those of Lightning


class Stop(Protocol):
    """What tells training to stop: the module `cell.stopping`."""

    def asked(self) -> str:
        """Return who asked, empty for nobody."""

    def end(self) -> NoReturn:
        """Raise what ends the cell."""

    def retake(self) -> None:
        """Put handlers of signals back that Lightning has replaced."""


class LastCheckpoint(Checkpoint):
    """Saves the whole state where training is, now and then and when it is asked to stop.

    Lightning's own checkpoints can be taken between any two hooks, and not every one goes on exactly. These are taken
    at three places alone: after an optimiser step that is not the last of its epoch, before a validation, which is then
    done anew, and at the end of an epoch. To Lightning's state they add what it leaves out: how far the epoch is, the
    running means of what is logged by epoch, and whether training was about to end.

    Args:
        path: Where to save.
        minutes: Most training time between two checkpoints of this run, whoever saves them; 0 saves at each place.
        stop: Says when to stop.
    """

    def __init__(self, path: Path, minutes: float, stop: Stop) -> None:
        self.path = path
        self.minutes = minutes
        self.stop = stop
        self._saved = time.monotonic()
        self._closed = -1  # epochs that were over at the last checkpoint taken at the end of one
        self._step = 0
        self._before_validation = False
        self._restored: dict[str, Any] = {}
        self._ends = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning leaves out; called for the checkpoints of others too."""
        epoch, batches = _epoch(trainer), trainer.fit_loop.epoch_loop.batch_progress.state_dict()["current"]
        over = epoch["processed"] == epoch["ready"]
        if self._before_validation:
            _before_validation(checkpoint["loops"]["fit_loop"], int(trainer.num_training_batches))
        checkpoint[POSITION] = {
            "start": [epoch["processed"], 0 if over else batches["processed"]],
            "means": {} if over else _means(trainer),
            "ends": trainer.should_stop or self._ends,
        }
        self._saved = time.monotonic()
        self._closed = epoch["processed"] if over else -1

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep that for the start, and let a directory that was moved find its own checkpoints."""
        self._restored = checkpoint[POSITION]
        for kept in checkpoint["callbacks"].values():
            if "best_model_path" in kept:
                _move(kept, self.path.parent)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals back, and go on where a checkpoint was taken."""
        self.stop.retake()
        trainer._signal_connector.received_sigterm = False  # the cell's own handler was told as well
        self._saved, self._step = time.monotonic(), trainer.global_step
        restored, self._restored = self._restored, {}
        if not restored:
            return
        if trainer.fit_loop.restarted_mid_epoch:
            self._ends = restored["ends"]
            _restore_means(trainer, pl_module, restored["means"])
        elif restored["ends"]:
            trainer.should_stop = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after an optimiser step; gradients that are being accumulated are in no checkpoint."""
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        last = trainer.should_stop or batch_idx + 1 >= trainer.num_training_batches
        if stepped and not last:
            self._look(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save before a validation, which may take long."""
        self._before_validation = True
        self._look(trainer)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop within a validation. Several processes may have different numbers of batches, and do not ask here."""
        if trainer.world_size == 1 and self.stop.asked():
            self._look(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A validation is over."""
        self._before_validation = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save at the end of an epoch, unless the checkpoint of the best one has just been taken."""
        trainer.should_stop = trainer.should_stop or self._ends
        self._look(trainer, saved=self._closed == _epoch(trainer)["processed"])

    def _look(self, trainer: L.Trainer, saved: bool = False) -> None:
        stop = _agreed(trainer, bool(self.stop.asked()))
        due = _agreed(trainer, time.monotonic() - self._saved >= 60 * self.minutes)
        if (stop or due) and not saved:
            self._save(trainer)
        if stop:
            self.stop.end()

    def _save(self, trainer: L.Trainer) -> None:
        try:
            trainer.save_checkpoint(self.path, weights_only=False)
        except OSError as error:
            if trainer.world_size > 1:
                raise  # the others wait for this one
            print(f"vlmbench: no checkpoint is kept of this step: {error}", file=sys.stderr, flush=True)
            self._saved = time.monotonic()


def _epoch(trainer: L.Trainer) -> dict[str, int]:
    """Return how many epochs are begun (`ready`) and over (`processed`)."""
    current: dict[str, int] = trainer.fit_loop.epoch_progress.state_dict()["current"]
    return current


def _agreed(trainer: L.Trainer, decision: bool) -> bool:
    """Return whether any process of the cell says so, in all of them alike."""
    if trainer.world_size == 1:
        return decision
    return bool(trainer.strategy.reduce_boolean_decision(decision, all=False))


def _before_validation(loops: dict[str, Any], batches: int) -> None:
    """Make the state of the loops that of an epoch whose batches are done and whose validation has just begun.

    In these counters Lightning sees a validation to go back to; any others it takes for one that is over. A budget of
    steps may have ended the epoch early.
    """
    done = {"ready": batches, "completed": batches, "started": batches, "processed": batches}
    loops["epoch_loop.batch_progress"] |= {"current": done, "is_last_batch": True}
    begun = {"ready": 1, "completed": 0, "started": 1, "processed": 0}
    loops["epoch_loop.val_loop.batch_progress"] |= {"total": begun, "current": dict(begun), "is_last_batch": False}


def _means(trainer: L.Trainer) -> dict[str, Any]:
    """Return the sums behind the epoch's running means: over all processes where each has logged a part of its own."""
    means = {}
    for key, metric in trainer.fit_loop.epoch_loop._results.items():
        if metric.has_reset or not (metric.is_tensor and metric.meta.is_mean_reduction and metric.meta.on_epoch):
            continue
        total, count = metric.value.clone(), metric.cumulated_batch_size.clone()
        if metric.meta.sync.should:
            total, count = (trainer.strategy.reduce(value, reduce_op="sum") for value in (total, count))
        logged = {name: getattr(metric.meta, name) for name in ("name", "prog_bar", "on_step", "on_epoch")}
        logged["logger"] = None if metric.meta.logger else False  # True warns where there is no logger
        logged["sync_dist"] = metric.meta.sync.should
        means[key] = {"hook": metric.meta.fx, "logged": logged, "total": total.cpu(), "count": count.cpu()}
    return means


def _restore_means(trainer: L.Trainer, pl_module: L.LightningModule, means: dict[str, Any]) -> None:
    """Put the sums back: into one process where they are of all of them, else into each."""
    results, hook = trainer.fit_loop.epoch_loop._results, pl_module._current_fx_name
    for key, mean in means.items():
        # Logged by the module's own call: Lightning refuses a later one that differs from it in any way.
        pl_module._current_fx_name = mean["hook"]
        pl_module.log(value=torch.zeros((), device=pl_module.device), batch_size=1, **mean["logged"])
        share = int(trainer.is_global_zero or not mean["logged"]["sync_dist"])
        results[key].value = mean["total"].to(pl_module.device) * share
        results[key].cumulated_batch_size = mean["count"].to(pl_module.device) * share
    pl_module._current_fx_name = hook
    # At the first batch of an epoch Lightning empties them; this is not the first.
    trainer._logger_connector._first_loop_iter = False


def _move(kept: dict[str, Any], folder: Path) -> None:
    """Let the state of a `ModelCheckpoint` name the files where they are now."""

    def here(path: str) -> str:
        return str(folder / Path(path).name) if path else path

    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        kept[name] = here(kept[name])
    kept["best_k_models"] = {here(path): score for path, score in kept["best_k_models"].items()}
    kept["dirpath"] = str(folder)
