"""A generative model that is split over the devices of its cell while it trains (torch's FSDP2, `fully_shard`).

Its unit is the single parameter, so that frozen weights in bfloat16 and adapters in float32 stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

_HELD = -1  # a module that is at work, to DeepSpeed; its own begin with 0


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield what is gathered and let go as one: the layers of each tower, members of the outermost module lists."""
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from (layer for layer in child if any(True for _ in layer.parameters()))
        else:
            yield from blocks(child)


def shard(model: nn.Module, mesh: Any) -> None:
    """Split the parameters of a network over a mesh of devices, in place: layer by layer, then what lies outside them.

    Args:
        model: What is called in each step.
        mesh: One dimension of a `DeviceMesh`.
    """
    for layer in blocks(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


@contextmanager
def gathered_whole(model: nn.Module) -> Iterator[None]:
    """Hold every parameter whole on every device for the block: processes may then call the model at will.

    Answers are generated token by token, in one process more of them than in another; gathering layers for each would
    let processes wait for each other forever.
    """
    with _gathered_by_deepspeed(model), _gathered_by_torch(model):
        yield


@contextmanager
def _gathered_by_torch(model: nn.Module) -> Iterator[None]:
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


@contextmanager
def _gathered_by_deepspeed(model: nn.Module) -> Iterator[None]:
    parts: list[Any] = [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]
    if not parts:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parts):
        for part in parts:
            part.ds_active_sub_modules.add(_HELD)  # or each layer would let its own go once it is done
        try:
            yield
        finally:
            for part in parts:
                part.ds_active_sub_modules.discard(_HELD)
