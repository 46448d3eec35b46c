"""What every backbone offers; `contrastive.dual.DualEncoder` and `generative.native.HfVlm` add what their kind does.

The shapes are the contract: B images, C texts, D the joint embedding, F the features a probe sees, T tokens, O options.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from PIL import Image
from torch import nn


class TooLongError(ValueError):
    """What is asked has more tokens than the model reads; nothing is cut."""


@dataclass(frozen=True)
class Conversation:
    """How a generative model is talked to.

    Attributes:
        chat_template: Jinja template; None takes the checkpoint's own.
        answer_prefix: What stands between the prompt and the answer's first token.
        max_length: Longest row in tokens, image tokens included.
        processor: Attributes of the processor that the checkpoint lacks or has wrong; under `image_processor` those of
            its image processor, such as `max_pixels`.
    """

    chat_template: str | None = None
    answer_prefix: str = ""
    max_length: int = 2048
    processor: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """One question put to a generative model, with the answer where it is known.

    Attributes:
        pixels: What the backbone's `preprocess` made of the image.
        prompt: What the user says, without image tokens or chat template.
        answer: Reference answer; supervised where the batch is.
        image: Name of the image within its domain. What is computed of an image alone is the same for turns of one
            name; an empty one shares nothing.
    """

    pixels: Any
    prompt: str
    answer: str = ""
    image: str = ""


class Backbone(Protocol):
    """What both families share.

    Attributes:
        model: The network that is trained; a tuner may replace it by a wrapper.
        part_prefixes: For each part, the prefixes of the parameter names that belong to it.
    """

    model: nn.Module
    part_prefixes: Mapping[str, tuple[str, ...]]

    def preprocess(self, image: Image.Image) -> Any:
        """Return what the model's own processor makes of an RGB image; it has a size in `nbytes`.

        A contrastive model's is a float32 tensor (3, H, W); the others' are only read by their own `collate`.
        """
        ...

    def lora_targets(self, scope: str) -> str:
        """Return a regular expression that fully matches the paths of the Linear layers LoRA adapts in `scope`.

        The empty string means that the scope has no such layer.
        """
        ...

    def trainable_parameters(self, scope: str) -> list[str]:
        """Return the names of the parameters of `scope` that the loss reaches."""
        ...


def named(model: nn.Module, part_prefixes: Mapping[str, tuple[str, ...]], parts: Iterable[str]) -> list[str]:
    """Return the names of the parameters that belong to `parts`."""
    wanted = tuple(prefix for part in parts for prefix in part_prefixes.get(part, ()))
    return [name for name, _ in model.named_parameters() if name.startswith(wanted)]


def joined(patterns: Iterable[str]) -> str:
    """Return one pattern for what any of `patterns` matches; empty ones are left out."""
    return "|".join(f"({pattern})" for pattern in patterns if pattern)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter."""
    return next(model.parameters()).device
