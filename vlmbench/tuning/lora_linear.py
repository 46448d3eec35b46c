"""LoRA's forward pass with fewer passes over memory than PEFT's own."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn


class QuickLinear(Linear):
    """PEFT's Linear layer with an update, computed as one product that is added to the layer's output.

    PEFT scales the update and adds it in passes of their own over a tensor as wide as the output, and scales once more
    in the backward pass; under autocast it also casts the input to the adapter's type and back. Here the narrow product
    is scaled, and the wide one adds.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return base(x) + B A x alpha / r."""
        if args or kwargs or self.disable_adapters or self.merged or x.ndim < 2 or len(self.active_adapters) != 1:
            return super().forward(x, *args, **kwargs)
        (name,) = self.active_adapters
        down: Any = self.lora_A[name]
        up: Any = self.lora_B[name]
        if x.dtype != down.weight.dtype and not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        base = self.base_layer(x)
        drop: Any = self.lora_dropout[name]
        narrow = down(drop(x)) * self.scaling[name]
        return torch.addmm(base.flatten(0, -2), narrow.flatten(0, -2), up.weight.T).view_as(base)


def quicken(model: nn.Module) -> None:
    """Let every plain layer of PEFT's that carries an update compute it so; in place, and nothing else changes."""
    for module in model.modules():
        if type(module) is Linear and not module.lora_variant:
            ups: Any = module.lora_B
            if all(up.bias is None for up in ups.values()):
                module.__class__ = QuickLinear
