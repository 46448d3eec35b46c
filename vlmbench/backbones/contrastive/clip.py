"""CLIP (Radford et al., 2021, arXiv 2103.00020) and its descendants that keep transformers' `CLIPModel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vlmbench.backbones.base import device_of

_TOWER_LINEAR = r"\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"


class HfClip(nn.Module):
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

    def __init__(self, model: nn.Module, processor: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.processor = processor
        config: Any = self.model.config
        self.feature_dim = int(config.projection_dim)
        self.context_length = int(config.text_config.max_position_embeddings)

    @property
    def logit_scale(self) -> Tensor:
        """The learned inverse temperature, as a factor."""
        return self.model.logit_scale.exp()

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return (3, H, W): resized, cropped and normalised by the checkpoint's own constants."""
        return self.processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0]

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask`, each (C, T), padded to the longest.

        The text tower is causal and pools at the end token, so that padding does not change an embedding.

        Raises:
            ValueError: A text is longer than the context; a silently cut prompt is another prompt.
        """
        tokens = self.processor.tokenizer(list(texts), padding=True, return_tensors="pt")
        longest = tokens["input_ids"].shape[1]
        if longest > self.context_length:
            worst = max(texts, key=len)
            raise ValueError(f"{longest} tokens exceed the text tower's {self.context_length}: {worst!r}. Shorten it.")
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to projected embeddings (B, D)."""
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D)."""
        device = device_of(self.model)
        return self.model.get_text_features(**{key: value.to(device) for key, value in tokens.items()}).pooler_output

    def features(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to the projected embedding (B, D), what the study's probes see."""
        return self.encode_image(pixels)

    def lora_targets(self, scope: str) -> str:
        """Return the pattern of every Linear layer inside the towers of `scope`."""
        towers = [f"{tower}_model" for tower in ("vision", "text") if tower in scope.split("+")]
        return f"({'|'.join(towers)}){_TOWER_LINEAR}"

    def trainable_parameters(self, scope: str) -> list[str]:
        """Return the names under the towers of `scope`; the temperature is trained where both towers are."""
        wanted = [prefix for part in scope.split("+") for prefix in self.part_prefixes[part]]
        if set(scope.split("+")) == {"vision", "text"}:
            wanted.extend(self.part_prefixes["head"])
        return [name for name, _ in self.model.named_parameters() if name.startswith(tuple(wanted))]

    def save_pretrained(self, folder: str) -> None:
        """Write the checkpoint in the hub's format."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def load_clip(located: str, *, revision: str | None, dtype: torch.dtype, trust_remote_code: bool = False) -> HfClip:
    """Load a CLIP checkpoint.

    The image processor's backend is pinned: torchvision and PIL resize to different pixels, and whichever is
    installed would otherwise decide.

    Args:
        located: Folder or hub id.
        revision: Commit of the hub id.
        dtype: Type of the weights.
        trust_remote_code: Passed to the processor; refused by the configuration unless the commit is pinned.
    """
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, CLIPProcessor

    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    model = CLIPModel.from_pretrained(located, revision=revision, dtype=dtype, weights_only=True)
    image_processor = AutoImageProcessor.from_pretrained(located, backend="pil", **common)
    tokenizer = AutoTokenizer.from_pretrained(located, **common)
    return HfClip(model, CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer))
