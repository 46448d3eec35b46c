"""Training of a model that DeepSpeed's ZeRO splits over devices, with the checkpoints of one device, as in `sharded`.

DeepSpeed's own checkpoint is a directory with a file for each device, which goes on on as many devices alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW


class Zero(DeepSpeedStrategy):
    """ZeRO stage 3; a checkpoint holds what trains, whole and in float32, and is written by rank 0."""

    def __init__(self) -> None:
        super().__init__(stage=3)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return what trains, whole. What is frozen is not gathered."""
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: safe_get_full_fp32_param(parameter).cpu() for name, parameter in self._trainable()}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return an optimiser's state with its parameters numbered as torch does on one device."""
        from deepspeed.utils import safe_get_full_optimizer_state

        inner, state, first = optimizer.optimizer, {}, 0
        step = next((torch.as_tensor(kept["step"]) for kept in inner.state.values() if "step" in kept), None)
        for number, (_, parameter) in enumerate(self._ordered()):
            state[number] = {"step": step} | {
                key: safe_get_full_optimizer_state(parameter, key).cpu() for key in MOMENTS
            }
        groups = []
        for group, size in zip(inner.param_groups, self._sizes(), strict=True):
            kept = {key: value for key, value in group.items() if key != "params"}
            groups.append({**kept, "params": list(range(first, first + size))})
            first += size
        return {"state": state, "param_groups": groups}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write one file, in rank 0, as strategies do that split nothing."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, of whatever strategy with one file, and split it over the devices."""
        import deepspeed
        from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

        saved: dict[str, Any] = torch.load(Path(checkpoint_path), map_location="cpu", weights_only=weights_only)
        (optimizer,), (adam,) = self.optimizers, saved["optimizer_states"]
        for number, (name, parameter) in enumerate(self._ordered()):
            whole = saved["state_dict"][name]
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.data.copy_(whole)
            # The optimiser steps on copies in float32 of what the network computes with.
            self._split(whole, safe_get_local_fp32_param(parameter))
            for key in MOMENTS:
                self._split(adam["state"][number][key], safe_get_local_optimizer_state(parameter, key))
        inner: torch.optim.Optimizer = optimizer.optimizer  # type: ignore[attr-defined]
        for kept in inner.state.values():
            kept["step"] = torch.as_tensor(adam["state"][0]["step"]).clone()
        for group, told in zip(inner.param_groups, adam["param_groups"], strict=True):
            group.update({key: value for key, value in told.items() if key not in ("params", "fused", "foreach")})
        return saved

    def _split(self, whole: Tensor, own: Tensor) -> None:
        """Copy this rank's part of a tensor, the last of which may be shorter than the others."""
        part = whole.flatten()[own.numel() * self.global_rank :][: own.numel()]
        own[: part.numel()].copy_(part)

    def _trainable(self) -> list[tuple[str, nn.Parameter]]:
        assert self.lightning_module is not None  # noqa: S101 - set before anything is saved or loaded
        return [(name, p) for name, p in self.lightning_module.named_parameters() if p.requires_grad]

    def _ordered(self) -> list[tuple[str, nn.Parameter]]:
        """Return what trains in the order of `TunedModule.configure_optimizers`: matrices, then vectors."""
        return sorted(self._trainable(), key=lambda pair: len(_shape(pair[1])) < 2)

    def _sizes(self) -> list[int]:
        """Return how many parameters each group of the optimiser has."""
        matrices = sum(len(_shape(parameter)) >= 2 for _, parameter in self._trainable())
        return [size for size in (matrices, len(self._trainable()) - matrices) if size]


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(parameter.ds_shape)  # its own is that of nothing while it is split
