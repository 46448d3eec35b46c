"""A network that was never trained: what its features are good for, an image tower has not learned from any data.

Convolutions with random filters, rectified and averaged over the image, are features a linear classifier does
surprisingly well on (Jarrett et al., ICCV 2009; Saxe et al., ICML 2011, "On random weights and unsupervised feature
learning"). There is no text tower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vlmbench.backbones.contrastive.dual import DualEncoder
from vlmbench.weights.release import Release, described

KERNEL, STRIDE = 3, 2


class RandomFeatures(DualEncoder):
    """An image tower of random filters; `encode_image` is its pooled last layer.

    Args:
        widths: Filters of each layer; the last is the width D of the features.
        side: Of the image in pixels.
        seed: Of the filters.
        dtype: Type of the weights.
    """

    part_prefixes: Mapping[str, tuple[str, ...]] = {"vision": ("",)}
    linear: Mapping[str, str] = {}

    def __init__(self, widths: Sequence[int], side: int, seed: int, dtype: torch.dtype) -> None:
        tower = drawn_tower(widths, seed).to(dtype)
        super().__init__(tower, None, partial(pixels_at, side), feature_dim=widths[-1], context_length=0)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to features (B, D)."""
        return self.model(pixels).mean((2, 3))


def drawn_tower(widths: Sequence[int], seed: int) -> nn.Sequential:
    """Return strided convolutions, filters from N(0, 2 / fan-in): they keep the variance (He et al., ICCV 2015)."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after in pairwise([3, *widths]):
        layer = nn.Conv2d(before, after, KERNEL, STRIDE, padding=KERNEL // 2, bias=False)
        deviation = math.sqrt(2 / (before * KERNEL**2))
        drawn = torch.randn(layer.weight.shape, generator=generator) * deviation
        layer.weight = nn.Parameter(drawn, requires_grad=False)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)


def pixels_at(side: int, image: Image.Image) -> Tensor:
    """Return (3, side, side) in [-1, 1]."""
    resized: Any = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    return torch.from_numpy(resized / 127.5 - 1).permute(2, 0, 1).contiguous()


def load_random_features(release: Release, seed: int = 0) -> RandomFeatures:
    """Return the network that a `config.json` describes, its filters drawn by `seed`.

    Raises:
        CheckpointError: The description is not there.
    """
    told = described(release.folder / "config.json", "the description of a random network")
    return RandomFeatures(told["widths"], told["side"], seed, release.dtype)
