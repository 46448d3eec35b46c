"""QLoRA's frozen weights: 4-bit NormalFloat with double quantisation (Dettmers et al., NeurIPS 2023, arXiv 2305.14314).

A weight is cut into blocks of 64; each block is divided by its largest absolute value and rounded to the nearest of 16
levels (section 3 and appendix E). Those float32 scales, less their mean, are quantised to 8 bits in blocks of 256. That
is 4 + 8/64 + 32/(64 x 256) = 4.127 bits a weight. A layer puts its weight together for each product and forgets it;
nothing but the adapters on top of it trains.

bitsandbytes computes it, on NVIDIA, AMD and Intel GPUs and on CPUs.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import torch
from torch import nn

# Tells every process of a CPU with bfloat16 that a kernel which is not used here could be downloaded.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def quantise(model: nn.Module, targets: str, device: torch.device | None = None) -> list[str]:
    """Hold Linear layers in 4 bits, in place; products are computed in the type that their weights had.

    Layers go one by one, so that a device need never hold the network in full precision.

    Args:
        model: A pretrained network; float32, bfloat16 or float16.
        targets: Regular expression that fully matches the paths of those layers.
        device: What computes the 4 bits, many times faster on a GPU; the layers stay where they were.

    Returns:
        The paths of the layers.

    Raises:
        ValueError: No Linear layer matches.
    """
    found = [
        path for path, module in model.named_modules() if isinstance(module, nn.Linear) and re.fullmatch(targets, path)
    ]
    if not found:
        raise ValueError(f"no Linear layer to hold in 4 bits matches {targets!r}")
    for path in found:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, _in_four_bits(model.get_submodule(path), device))
    model.is_loaded_in_4bit = True  # type: ignore[assignment] # PEFT asks, and takes its layers for it
    return found


def _in_four_bits(layer: Any, device: torch.device | None) -> nn.Module:
    import bitsandbytes as bnb

    weight = layer.weight.detach()
    kind = {"quant_type": "nf4", "compress_statistics": True}
    small = bnb.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=weight.dtype,
        device="meta",
        **kind,
    )
    # It is the move to a device that quantises.
    held = bnb.nn.Params4bit(weight, requires_grad=False, module=small, **kind).to(device or weight.device)
    small.weight, small.bias = held.to(weight.device), layer.bias
    # Else a CPU with bfloat16 repacks the weight at the first answer, after which no gradient passes through it.
    small.support_avx512bf16_for_cpu = False
    return small.train(layer.training)
