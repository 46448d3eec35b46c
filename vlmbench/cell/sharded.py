"""Training of a model that is split over devices: Lightning's strategy for it, with the checkpoints of one device.

A cell that was interrupted on several devices goes on on one, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint import state_dict as distributed_state


class Sharded(ModelParallelStrategy):
    """FSDP2 over all devices of a cell; a checkpoint holds what trains, whole, and is written by rank 0.

    Args:
        world: Devices of the cell.
    """

    def __init__(self, world: int) -> None:
        super().__init__(data_parallel_size=world, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return what trains, whole, in rank 0; nothing in the others. What is frozen is not gathered."""
        options = distributed_state.StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        return distributed_state.get_model_state_dict(self._network, options=options)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return an optimiser's state with its parameters numbered as torch does on one device, in rank 0."""
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        options = distributed_state.StateDictOptions(full_state_dict=True, cpu_offload=True)
        named = distributed_state.get_optimizer_state_dict(self._network, optimizer, options=options)
        return _renamed(named, {name: number for number, name in enumerate(self._names(optimizer))}) if named else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, of whatever strategy with one file, and split it over the devices."""
        state: dict[str, Any] = torch.load(Path(checkpoint_path), map_location="cpu", weights_only=weights_only)
        options = distributed_state.StateDictOptions(full_state_dict=True, strict=False)
        distributed_state.set_model_state_dict(self._network, state["state_dict"], options=options)
        for optimizer, saved in zip(self.optimizers, state["optimizer_states"], strict=True):
            plain = getattr(optimizer, "_optimizer", optimizer)
            named = _renamed(saved, dict(enumerate(self._names(plain))))
            distributed_state.set_optimizer_state_dict(self._network, plain, named, options=options)
        return state

    @property
    def _network(self) -> torch.nn.Module:
        assert self.model is not None  # noqa: S101 - set before anything is saved or loaded
        return self.model

    def _names(self, optimizer: torch.optim.Optimizer) -> list[str]:
        names = {id(parameter): name for name, parameter in self._network.named_parameters()}
        return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _renamed(state: Mapping[str, Any], keys: Mapping[Any, Any]) -> dict[str, Any]:
    """Return an optimiser's state with other keys for its parameters."""
    return {
        "state": {keys[key]: value for key, value in state["state"].items()},
        "param_groups": [
            {**group, "params": [keys[key] for key in group["params"]]} for group in state["param_groups"]
        ],
    }
