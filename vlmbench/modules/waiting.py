"""How much of a step is spent waiting for data, in training and in prediction."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import lightning as L
import torch

WARM = 3  # steps that are left out where there is one epoch only: memory is taken, kernels are chosen
LEAST = 5  # steps; fewer tell nothing

#: A moment of the host in seconds, or of the device.
Moment = float | torch.cuda.Event


class DataWait(L.Callback):
    """Measures the share of a step between the end of the one before and the moment its batch is on the device.

    On CUDA the host runs ahead of the device, and a host that waits costs nothing while the device has work. There both
    moments are events in the device's own stream: between them it stood still or copied the batch. They are read when
    the device has passed them, so that nothing waits for the measurement.

    The first epoch is left out, or the first `WARM` steps where there is no other; validation, and what is done between
    epochs, counts as neither. Writing a checkpoint within an epoch counts as waiting.
    """

    def __init__(self) -> None:
        self._steps = {"train": _Steps(), "predict": _Steps()}
        self._epochs = 0

    def share(self, stage: str) -> float | None:
        """Return the share for `train` or `predict`, in [0, 1]; None after fewer than `LEAST` steps."""
        return self._steps[stage].share()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The first batch of an epoch is waited for from here."""
        if self._epochs == 1:
            self._steps["train"] = _Steps(warm=0)
        self._epochs += 1
        self._steps["train"].begin(_now(trainer))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """The batch is there."""
        self._steps["train"].ready(_now(trainer))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """The step is over."""
        self._steps["train"].end(_now(trainer))

    def on_predict_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """The batch is there."""
        self._steps["predict"].ready(_now(trainer))

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """The step is over."""
        self._steps["predict"].end(_now(trainer))


class _Steps:
    """Steps of one stage, added up as soon as the device has done them."""

    def __init__(self, warm: int = WARM) -> None:
        self._warm = warm
        self._last: Moment | None = None
        self._ready: Moment | None = None
        self._pending: deque[tuple[Moment, Moment, Moment]] = deque()
        self._count = 0
        self._waited = self._whole = 0.0

    def begin(self, moment: Moment) -> None:
        self._last = moment

    def ready(self, moment: Moment) -> None:
        self._ready = moment

    def end(self, moment: Moment) -> None:
        if self._last is not None and self._ready is not None:
            self._pending.append((self._last, self._ready, moment))
        self._last, self._ready = moment, None
        while self._pending and _passed(self._pending[0][2]):
            self._add()

    def share(self) -> float | None:
        while self._pending:
            last = self._pending[0][2]
            if isinstance(last, torch.cuda.Event):
                last.synchronize()
            self._add()
        return round(self._waited / self._whole, 4) if self._count >= LEAST and self._whole > 0 else None

    def _add(self) -> None:
        before, ready, end = self._pending.popleft()
        if self._warm:
            self._warm -= 1
            return
        self._count += 1
        self._waited += _seconds(before, ready)
        self._whole += _seconds(before, end)


def _now(trainer: L.Trainer) -> Moment:
    if trainer.strategy.root_device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _passed(moment: Moment) -> bool:
    return moment.query() if isinstance(moment, torch.cuda.Event) else True


def _seconds(start: Moment, end: Moment) -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return start.elapsed_time(end) / 1000
    return end - start  # type: ignore[operator]  # both of the host
