"""The processor of a release: completed from the model's configuration, set as the user wants, its backend pinned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmbench.weights.release import CheckpointError


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
        settings: Attributes that the checkpoint lacks or has wrong; under `image_processor` those of images.

    Raises:
        CheckpointError: The processor has no such setting.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    of_images = settings.get("image_processor", {})
    check_settings(processor.image_processor, of_images)
    # Pinned: torchvision and PIL resize to different pixels, and whichever is installed would otherwise decide.
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **of_images)
    complete_processor(processor, config)
    for key, value in settings.items():
        if not hasattr(processor, key):
            raise CheckpointError(f"model.processor.{key}: {type(processor).__name__} has no such setting.")
        if key != "image_processor":
            setattr(processor, key, value)
    return processor


def check_settings(image_processor: Any, settings: Mapping[str, Any]) -> None:
    """Check that an image processor has what is set of it: it would take a misspelt name without a word.

    Raises:
        CheckpointError: It has no such setting.
    """
    # Names of Qwen's that reach it under others.
    known = {*dir(image_processor), "min_pixels", "max_pixels"}
    if foreign := sorted(settings.keys() - known):
        raise CheckpointError(
            f"model.processor.image_processor.{foreign[0]}: {type(image_processor).__name__} has no such setting."
        )
