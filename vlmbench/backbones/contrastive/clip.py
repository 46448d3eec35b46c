"""CLIP (Radford et al., 2021, arXiv 2103.00020) and its descendants that keep transformers' `CLIPModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.backbones.contrastive.dual import HfDual, read_hf

TOWER_LINEAR = r"\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"


class HfClip(HfDual):
    """A `CLIPModel` with its own processor.

    Args:
        model: The network.
        processor: Its `CLIPProcessor`.
    """

    part_prefixes: Mapping[str, tuple[str, ...]] = {
        "vision": ("vision_model.", "visual_projection."),
        "text": ("text_model.", "text_projection."),
        "head": ("logit_scale",),
    }
    linear: Mapping[str, str] = {"vision": r"vision_model" + TOWER_LINEAR, "text": r"text_model" + TOWER_LINEAR}

    def __init__(self, model: nn.Module, processor: Any) -> None:
        config: Any = model.config
        super().__init__(
            model,
            processor,
            feature_dim=int(config.projection_dim),
            context_length=int(config.text_config.max_position_embeddings),
        )

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to projected embeddings (B, D)."""
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D)."""
        return self.model.get_text_features(**self.placed(tokens)).pooler_output


def load_clip(
    folder: str,
    *,
    dtype: torch.dtype,
    companions: Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
) -> HfClip:
    """Load a CLIP checkpoint.

    Args:
        folder: Where the checkpoint's files are.
        dtype: Type of the weights.
        companions: Not used: the checkpoint is complete.
        trust_remote_code: Not used: the classes are transformers' own.
    """
    from transformers import CLIPModel, CLIPProcessor

    model, image_processor, tokenizer = read_hf(folder, CLIPModel, dtype)
    return HfClip(model, CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer))
