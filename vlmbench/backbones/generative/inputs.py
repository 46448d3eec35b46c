"""What goes into a generative model: its processor, what that makes of an image, and how rows become a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlmbench.weights.release import CheckpointError


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """What a processor makes of one image.

    Attributes:
        tensors: The model's inputs, with the leading dimension that the processor gives them.
        tokens: Tokens that the image takes in the text.
    """

    tensors: dict[str, Tensor]
    tokens: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(value.nbytes for value in self.tensors.values())


def pad_rows(rows: Sequence[Sequence[int]], fill: int, *, left: bool) -> Tensor:
    """Return rows of numbers as one tensor (B, T), the shorter ones filled up on one side."""
    length = max(len(row) for row in rows)
    blanks = [[fill] * (length - len(row)) for row in rows]
    joined = [[*blank, *row] if left else [*row, *blank] for row, blank in zip(rows, blanks, strict=True)]
    return torch.tensor(joined, dtype=torch.long)


def join_images(images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join the tensors of several images along their first dimension; tiles are padded to the most that one has."""
    joined = {}
    for key in images[0]:
        values = [image[key] for image in images]
        if len({value.shape[1:] for value in values}) > 1:
            most = max(value.shape[1] for value in values)
            blank = [value.new_zeros((value.shape[0], most - value.shape[1], *value.shape[2:])) for value in values]
            values = [torch.cat(pair, dim=1) for pair in zip(values, blank, strict=True)]
        joined[key] = torch.cat(values)
    return joined


def complete_processor(processor: Any, config: Any) -> None:
    """Set from the model's configuration how many tokens an image takes: older processors do not say it."""
    vision = config.vision_config
    if hasattr(processor, "num_query_tokens"):
        processor.num_query_tokens = config.num_query_tokens
    if hasattr(processor, "vision_feature_select_strategy"):
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    if hasattr(processor, "num_image_tokens"):
        processor.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
    if hasattr(processor, "num_additional_image_tokens"):
        processor.patch_size = vision.patch_size
        # "default" drops the first token, whatever it is; SigLIP's towers have no class token.
        processor.num_additional_image_tokens = 0 if vision.model_type.startswith("siglip") else 1


def load_processor(folder: Path, config: Any, settings: Mapping[str, Any]) -> Any:
    """Load a checkpoint's processor.

    Args:
        folder: Where the checkpoint's files are.
        config: The model's configuration.
        settings: As `Conversation.processor`.

    Raises:
        CheckpointError: The processor has no such setting.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    of_images = settings.get("image_processor", {})
    # Pinned: torchvision and PIL resize to different pixels, and whichever is installed would otherwise decide.
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **of_images)
    complete_processor(processor, config)
    for key, value in settings.items():
        if not hasattr(processor, key):
            raise CheckpointError(f"model.processor.{key}: {type(processor).__name__} has no such setting.")
        if key != "image_processor":
            setattr(processor, key, value)
    return processor
