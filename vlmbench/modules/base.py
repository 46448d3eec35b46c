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

from vlmbench.domains.base import Example
from vlmbench.domains.datamodule import Row
from vlmbench.modules import across
from vlmbench.modules.layers import checkpoint_layers
from vlmbench.modules.micro import STATE, MicroBatches
from vlmbench.modules.optimiser import optimiser_of
from vlmbench.modules.sharding import gathered_whole, shard


@dataclass(frozen=True)
class Optimisation:
    """AdamW (Loshchilov and Hutter, ICLR 2019), or SGD with momentum, with linear warm-up.

    Attributes:
        lr: Peak learning rate.
        weight_decay: Decoupled in AdamW, a penalty of the loss in SGD; of matrices alone, not of biases, norms and
            scales.
        warmup: Share of the steps over which the learning rate rises.
        schedule: `cosine` or `linear` to zero, or `constant`.
        optimiser: `adamw`; `sgd` with momentum 0.9; or `paged_adamw`, whose moments may go to the host's memory.
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
        self.micro = MicroBatches()
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

    def arrange(self, examples: Sequence[Example]) -> Sequence[int]:
        """Return the order in which examples are validated and predicted on, which changes no result."""
        return range(len(examples))

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
        optimiser = optimiser_of(
            self.optimisation.optimiser, groups, self.optimisation.lr, precision=str(self.trainer.precision)
        )
        total = int(self.trainer.estimated_stepping_batches)
        total = min(total, self.max_steps) if self.max_steps > 0 else total
        settings = self.optimisation
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: settings.factor(step, total))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Begin a step without gradients; Lightning would drop them between the forward and the backward pass."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            for optimiser in self.trainer.optimizers:
                optimiser.zero_grad()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Keep the gradients of the parts of a batch that are done: `on_train_batch_start` has dropped the old ones."""

    def training_step(self, batch: Any, _: int) -> Tensor:
        """Return the loss of one batch, as far as it is not differentiated yet: see `MicroBatches.step`."""
        return self.micro.step(self, batch)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Differentiate what `training_step` has left to differentiate."""
        if loss.requires_grad:
            super().backward(loss, *args, **kwargs)

    @staticmethod
    def counted(index: Sequence[int] | Tensor) -> int:
        """Return how many rows of a batch count: all, or none where this process only keeps in step."""
        return 0 if across.world() > 1 and int(index[0]) < 0 else len(index)

    def lengths(self, batch: Any) -> list[int]:
        """Return the length of each row that the network sees, of those by which a batch can be cut."""
        raise NotImplementedError

    def part(self, batch: Any, rows: Sequence[int]) -> Any:
        """Return a batch of some of those rows."""
        raise NotImplementedError

    def part_loss(self, batch: Any) -> Tensor:
        """Return the mean loss over what is supervised in a batch."""
        raise NotImplementedError

    def supervised(self, batch: Any) -> int:
        """Return of how many rows or tokens `part_loss` is the mean; 0 where this process only keeps in step."""
        raise NotImplementedError

    def counted_rows(self, batch: Any) -> int:
        """Return how many rows of the training split count in a batch."""
        raise NotImplementedError

    def checkpoint_activations(self) -> None:
        """Compute activations anew in the backward pass from now on."""
        checkpoint_layers(self.backbone.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what trains, and how batches are cut."""
        names = self.trainable().keys()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in names}
        checkpoint[STATE] = self.micro.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with parts of the size that memory allowed."""
        for name, value in checkpoint.get(STATE, {}).items():
            setattr(self.micro, name, value)
        if self.micro.checkpointed and self.micro.checkpointing == "auto":
            self.checkpoint_activations()

    def collate(self, rows: list[Row]) -> Any:
        """Return a supervised batch."""
        raise NotImplementedError

    def collate_eval(self, rows: list[Row]) -> Any:
        """Return a batch to predict on; by default the supervised one."""
        return self.collate(rows)

    def output(self, batch: Any) -> Tensor:
        """Return what the tuned backbone makes of a batch, without any head: the witness that tuning changed it."""
        raise NotImplementedError
