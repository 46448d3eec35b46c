"""What dual encoders share: features, temperature, and the table that says which layers belong to which tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vlmbench.backbones.base import device_of


class DualEncoder(nn.Module):
    """A dual encoder; a family gives `preprocess`, `tokenize`, `encode_image`, `encode_text` and the tables.

    Attributes:
        part_prefixes: For each part the prefixes of its parameters.
        linear: For each tower (vision, text) the pattern of its Linear layers, matched against whole module paths.
        unreached: Prefixes of parameters that no loss reaches: heads of other tasks, poolers that are not read.

    Args:
        model: The network.
        feature_dim: Width F of what `features` gives.
        context_length: Most tokens of a text.
    """

    part_prefixes: Mapping[str, tuple[str, ...]]
    linear: Mapping[str, str]
    unreached: tuple[str, ...] = ()

    def __init__(self, model: nn.Module, *, feature_dim: int, context_length: int) -> None:
        super().__init__()
        self.model: Any = model
        self.feature_dim = feature_dim
        self.context_length = context_length

    @property
    def logit_scale(self) -> Tensor:
        """The learned inverse temperature, as a factor."""
        return self.model.logit_scale.exp()

    def train(self, mode: bool = True) -> DualEncoder:
        """Set the mode, except that batch norms keep their statistics: buffers are not among what tuning saves."""
        super().train(mode)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return (3, H, W) by the checkpoint's own preprocessing."""
        raise NotImplementedError

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the text encoder's inputs, each (C, T)."""
        raise NotImplementedError

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to embeddings (B, D), or (B, Q, D) of which the best of Q counts."""
        raise NotImplementedError

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to embeddings (C, D)."""
        raise NotImplementedError

    def features(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to what a probe sees, (B, F); the projected embedding unless a family says otherwise."""
        return self.encode_image(pixels)

    def lora_targets(self, scope: str) -> str:
        """Return the pattern of every Linear layer inside the towers of `scope`."""
        return "|".join(f"({self.linear[tower]})" for tower in ("vision", "text") if tower in scope.split("+"))

    def trainable_parameters(self, scope: str) -> list[str]:
        """Return the names under the towers of `scope`; the temperature is trained where both towers are."""
        wanted = [prefix for part in scope.split("+") for prefix in self.part_prefixes[part]]
        if set(scope.split("+")) == {"vision", "text"}:
            wanted.extend(self.part_prefixes.get("head", ()))
        names = [name for name, _ in self.model.named_parameters() if name.startswith(tuple(wanted))]
        return [name for name in names if not name.startswith(self.unreached)] if self.unreached else names

    def check_length(self, texts: Sequence[str], tokens: Tensor) -> None:
        """Refuse tokens (C, T) that exceed the context; a silently cut prompt is another prompt.

        Raises:
            ValueError: Naming the longest text.
        """
        if tokens.shape[1] > self.context_length:
            worst = max(texts, key=len)
            raise ValueError(
                f"{tokens.shape[1]} tokens exceed the text tower's {self.context_length}: {worst!r}. Shorten it."
            )

    def placed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return `tokens` where the model is."""
        device = device_of(self.model)
        return {key: value.to(device) for key, value in tokens.items()}


def cast(pixels: Tensor, model: nn.Module) -> Tensor:
    """Return pixels in the type of the model's weights, where they are."""
    first = next(model.parameters())
    return pixels.to(first.device, first.dtype if first.is_floating_point() else torch.float32)
