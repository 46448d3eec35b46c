"""What is done to each layer of a network for training: activations computed anew, kernels compiled."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def layers_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of each tower: the alike members of the outermost lists and sequences of modules."""
    for child in model.children():
        members = list(child.children())
        listed = isinstance(child, nn.ModuleList | nn.Sequential) and len(members) > 1
        if listed and len({type(member) for member in members}) == 1 and any(True for _ in members[0].children()):
            yield from members
        else:
            yield from layers_of(child)


def checkpoint_layers(model: nn.Module) -> None:
    """Keep of each layer's activations in training its input alone, and compute the others anew in the backward pass.

    Chen et al., "Training deep nets with sublinear memory cost" (2016), without torch's reentrant way: that one gives
    no gradient to adapters behind embeddings that are frozen. Dropout is the same in both passes.
    """
    for layer in layers_of(model):
        if not isinstance(layer.forward, partial):
            layer.forward = partial(_checkpointed, layer, layer.forward)


def release_layers(model: nn.Module) -> None:
    """Undo `checkpoint_layers` and `compile_layers`."""
    for layer in layers_of(model):
        layer._compiled_call_impl = None
        if isinstance(layer.forward, partial):
            del layer.forward


def compile_layers(model: nn.Module) -> None:
    """Compile each layer when it is first called: alike layers share the code, and lengths of rows stay open.

    Where the compiler cannot be had or fails, torch warns and computes as without it.
    """
    torch._dynamo.config.suppress_errors = True
    for layer in layers_of(model):
        layer.compile(dynamic=True)


def _checkpointed(layer: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if layer.training and torch.is_grad_enabled():
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return forward(*args, **kwargs)
