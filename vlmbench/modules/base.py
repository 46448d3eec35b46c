"""What both modules share: the optimiser, checkpoints of what trains alone, and the proof that training changed it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from vlmbench.domains.datamodule import Row
from vlmbench.modules import across
from vlmbench.modules.sharding import gathered_whole, shard

MOMENTUM = 0.9  # of SGD


@dataclass(frozen=True)
class Optimisation:
    """AdamW (Loshchilov and Hutter, ICLR 2019), or SGD with momentum, with linear warm-up.

    Attributes:
        lr: Peak learning rate.
        weight_decay: Decoupled in AdamW, a penalty of the loss in SGD; of matrices alone, not of biases, norms and
            scales.
        warmup: Share of the steps over which the learning rate rises.
        schedule: `cosine` or `linear` to zero, or `constant`.
        optimiser: `adamw`, or `sgd` with momentum 0.9.
    """

    lr: float
    weight_decay: float = 0.0
    warmup: float = 0.05
    schedule: str = "cosine"
    optimiser: str = "adamw"

    def factor(self, step: int, total: int) -> float:
        """Return the learning rate at an optimiser step as a share of the peak, in (0, 1]."""
        rise = max(1, round(self.warmup * total))
        if step < rise:
            return (step + 1) / rise
        progress = min(1.0, (step - rise) / max(1, total - rise))
        if self.schedule == "constant":
            return 1.0
        return 1.0 - progress if self.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


class TunedModule(L.LightningModule):
    """A backbone being adapted.

    Args:
        backbone: The pretrained model, already prepared by a tuner.
        optimisation: None where nothing is trained by gradient steps.
    """

    def __init__(self, backbone: Any, optimisation: Optimisation | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.optimisation = optimisation
        self.max_steps = -1  # most optimiser steps, which a callback keeps; the schedule ends there
        self._device_mesh: Any = None  # set by Lightning's strategies that split a model
        self._validating = ExitStack()
        # Checkpoints hold what trains and nothing else: the rest comes from the pretrained weights.
        self.strict_loading = False

    def configure_model(self) -> None:
        """Split the network over devices where the trainer's strategy does; called by Lightning before it trains."""
        if self._device_mesh is not None:
            shard(self.backbone.model, self._device_mesh["data_parallel"])

    def on_validation_epoch_start(self) -> None:
        """Hold a network that is split whole: see `gathered_whole`."""
        self._validating.enter_context(gathered_whole(self.backbone.model))

    def on_validation_end(self) -> None:
        """Split it again."""
        self._validating.close()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule over all optimiser steps of the run."""
        if self.optimisation is None:
            raise RuntimeError("this module was built without an optimiser: nothing in it trains")
        parameters = list(self.trainable().values())
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.optimisation.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimiser: torch.optim.Optimizer
        if self.optimisation.optimiser == "sgd":
            optimiser = torch.optim.SGD(groups, lr=self.optimisation.lr, momentum=MOMENTUM)
        else:
            optimiser = torch.optim.AdamW(groups, lr=self.optimisation.lr)
        total = int(self.trainer.estimated_stepping_batches)
        total = min(total, self.max_steps) if self.max_steps > 0 else total
        settings = self.optimisation
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: settings.factor(step, total))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @staticmethod
    def counted(index: Sequence[int] | Tensor) -> int:
        """Return how many rows of a batch count: all, or none where this process only keeps in step."""
        return 0 if across.world() > 1 and int(index[0]) < 0 else len(index)

    def train_loss(self, loss: Tensor, count: int, rows: int) -> Tensor:
        """Log the loss of a batch, which several processes may share, and return what this process differentiates.

        DDP and FSDP take the mean of the gradients over processes, whatever each of them has of the batch. Scaled by
        its count, each process's part makes that mean the gradient of the mean over the whole batch.

        Args:
            loss: Mean over this process's part of the batch.
            count: Of what it is the mean: rows or tokens, 0 where this process only keeps in step.
            rows: Of this process's part that count.

        Returns:
            The loss to differentiate.
        """
        whole, scaled = loss, loss
        if across.world() > 1:
            own = torch.tensor([float(loss.detach()) * count, count, rows], dtype=torch.float64, device=loss.device)
            summed, everything, all_rows = across.total(own).tolist()
            whole, rows = torch.tensor(summed / everything, device=loss.device), int(all_rows)
            scaled = loss * (across.world() * count / everything)
        self.log("train/loss", whole, on_step=False, on_epoch=True, batch_size=rows)
        return scaled

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what trains."""
        names = self.trainable().keys()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in names}

    def collate(self, rows: list[Row]) -> Any:
        """Return a supervised batch."""
        raise NotImplementedError

    def collate_eval(self, rows: list[Row]) -> Any:
        """Return a batch to predict on; by default the supervised one."""
        return self.collate(rows)

    def output(self, batch: Any) -> Tensor:
        """Return what the tuned backbone makes of a batch, without any head: the witness that tuning changed it."""
        raise NotImplementedError
