"""CLIP (Radford et al., 2021, arXiv 2103.00020) and its descendants that keep transformers' `CLIPModel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vlmbench.backbones.contrastive.dual import DualEncoder

TOWER_LINEAR = r"\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"


class HfClip(DualEncoder):
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
            feature_dim=int(config.projection_dim),
            context_length=int(config.text_config.max_position_embeddings),
        )
        self.processor = processor

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return (3, H, W): resized, cropped and normalised by the checkpoint's own constants."""
        return self.processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0]

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask`, each (C, T), padded to the longest.

        The text tower is causal and pools at the end token, so that padding does not change an embedding.

        Raises:
            ValueError: A text is longer than the context.
        """
        tokens = self.processor.tokenizer(list(texts), padding=True, return_tensors="pt")
        self.check_length(texts, tokens["input_ids"])
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to projected embeddings (B, D)."""
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D)."""
        return self.model.get_text_features(**self.placed(tokens)).pooler_output

    def save_pretrained(self, folder: str) -> None:
        """Write the checkpoint in the hub's format."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def load_clip(
    folder: str,
    *,
    dtype: torch.dtype,
    companions: Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
) -> HfClip:
    """Load a CLIP checkpoint.

    The image processor's backend is pinned: torchvision and PIL resize to different pixels, and whichever is
    installed would otherwise decide.

    Args:
        folder: Where the checkpoint's files are.
        dtype: Type of the weights.
        companions: Not used: the checkpoint is complete.
        trust_remote_code: Passed to the processor; refused by the configuration unless the commit is pinned.
    """
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(folder, dtype=dtype, weights_only=True)
    image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=trust_remote_code)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return HfClip(model, CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer))
