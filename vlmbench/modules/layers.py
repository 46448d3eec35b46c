"""What is done to each layer of a network for training: activations computed anew, kernels compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        _train_by(layer, partial(checkpoint, layer.forward, use_reentrant=False))


def compile_layers(model: nn.Module) -> None:
    """Compile each layer for training at its first call: alike layers share the code, and rows may have any length.

    Where the compiler fails, torch warns and computes as without it.
    """
    torch._dynamo.config.suppress_errors = True
    for layer in layers_of(model):
        _train_by(layer, torch.compile(layer.forward, dynamic=True))


def release_layers(model: nn.Module) -> None:
    """Undo all that was done to the layers."""
    for layer in layers_of(model):
        layer.__dict__.pop("forward", None)


def _train_by(layer: nn.Module, in_training: Callable[..., Any]) -> None:
    """Let a layer compute by a function in training, and as before in evaluation."""
    otherwise = layer.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        trains = layer.training and torch.is_grad_enabled()
        return (in_training if trains else otherwise)(*args, **kwargs)

    layer.forward = forward
