"""CLIP (Radford et al., 2021, arXiv 2103.00020) and its descendants that keep transformers' `CLIPModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vlmbench.backbones.contrastive.dual import HfDual, hf_loader

TOWER_LINEAR = r"\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"


class HfClip(HfDual):
    """A `CLIPModel` with its `CLIPProcessor`."""

    part_prefixes: Mapping[str, tuple[str, ...]] = {
        "vision": ("vision_model.", "visual_projection."),
        "text": ("text_model.", "text_projection."),
        "head": ("logit_scale",),
    }
    linear: Mapping[str, str] = {"vision": r"vision_model" + TOWER_LINEAR, "text": r"text_model" + TOWER_LINEAR}

    def __init__(self, model: nn.Module, processor: Any) -> None:
        config: Any = model.config
        super().__init__(model, processor, feature_dim=config.projection_dim)


load_clip = hf_loader(HfClip, "CLIPModel", "CLIPProcessor")
