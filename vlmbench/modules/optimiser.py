"""The optimisers: AdamW by the kernel that does a whole step at once, where there is one, and others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from vlmbench.errors import UserError

FUSED_ON = ("cpu", "cuda")
MOMENTUM = 0.9  # of SGD


def optimiser_of(name: str, groups: Sequence[dict[str, Any]], lr: float, *, precision: str) -> torch.optim.Optimizer:
    """Return an optimiser by its name: `adamw`, `paged_adamw`, or `sgd` with momentum.

    Args:
        name: Which.
        groups: Parameters, on their device, and their weight decay.
        lr: Learning rate.
        precision: Lightning's name.

    Raises:
        UserError: The device has no memory that is paged.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM)
    parameters = [parameter for group in groups for parameter in group["params"]]
    if name == "paged_adamw":
        return paged_adamw(groups, lr, parameters[0].device)
    return adamw(groups, lr, fused=can_be_fused(parameters, precision))


def can_be_fused(parameters: Iterable[Tensor], precision: str) -> bool:
    """Return whether torch's fused kernel steps on these parameters.

    Not where a strategy splits them over devices, and not in float16: the kernel then undoes the scale of the loss
    itself, after the point at which gradients are clipped.

    Args:
        parameters: What trains, on its device.
        precision: Lightning's name.
    """
    return precision != "16-mixed" and all(
        p.device.type in FUSED_ON and p.is_floating_point() and not isinstance(p, DTensor) and not hasattr(p, "ds_id")
        for p in parameters
    )


def adamw(groups: Sequence[dict[str, Any]], lr: float, *, fused: bool) -> torch.optim.AdamW:
    """Return AdamW whose kernel stays the one of this machine when a state from another one is loaded.

    Args:
        groups: Parameters and their weight decay.
        lr: Learning rate.
        fused: Take the fused kernel; else torch chooses.
    """
    optimiser = torch.optim.AdamW(groups, lr=lr, fused=fused or None)
    # Lightning refuses to clip gradients where this is set, although no loss is scaled but in float16.
    optimiser._step_supports_amp_scaling = False

    def keep_kernel(loaded: torch.optim.Optimizer) -> None:
        for group in loaded.param_groups:
            group["fused"], group["foreach"] = fused or None, None
            for parameter in group["params"]:
                # The fused kernel counts steps where the parameter is, the others in the host's memory.
                kept = loaded.state.get(parameter, {})
                if "step" in kept:
                    kept["step"] = kept["step"].to(parameter.device if fused else "cpu")

    optimiser.register_load_state_dict_post_hook(keep_kernel)
    return optimiser


def paged_adamw(groups: Sequence[dict[str, Any]], lr: float, device: torch.device) -> torch.optim.Optimizer:
    """Return AdamW of bitsandbytes, which keeps its moments in memory that a GPU pages to the host.

    Args:
        groups: Parameters and their weight decay.
        lr: Learning rate.
        device: Where they are.

    Raises:
        UserError: The device is no GPU of NVIDIA or AMD.
    """
    if device.type != "cuda":
        raise UserError(
            f"finetune.optimiser=paged_adamw pages a GPU's memory, and this cell is computed on {device}. "
            "Set finetune.optimiser=adamw, which computes the same."
        )
    import bitsandbytes as bnb

    return bnb.optim.PagedAdamW32bit(groups, lr=lr)
