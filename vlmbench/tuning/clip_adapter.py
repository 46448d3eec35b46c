"""CLIP-Adapter: a bottleneck on the image embedding (Gao et al., IJCV 2024, arXiv 2110.04544, section 3.2)."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn


class TextSide(Protocol):
    """What makes logits (B, C) of image embeddings by the prompts of the classes."""

    def __call__(self, backbone: Any, embeddings: Tensor) -> Tensor:
        """Return the logits."""
        ...


class AdaptedClassifier(nn.Module):
    """The zero-shot classifier on f* = r A(f) + (1 - r) f, with A(f) = ReLU(W2 ReLU(W1 f)).

    The text side compares directions alone, and A without biases scales as f does: it makes no difference whether f is
    normalised. A ratio of 0 is zero-shot. Of an image with several embeddings, as BLIP-2 gives, each is adapted.

    Args:
        text: The zero-shot classifier, frozen.
        width: Of the image embedding, D.
        reduction: W1 is D/reduction x D, W2 the reverse; 4 in the paper.
        ratio: r, how much of the adapter's output is mixed in; 0.2 in the authors' code.
    """

    def __init__(self, text: TextSide, width: int, *, reduction: int = 4, ratio: float = 0.2) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.adapter = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, width, bias=False), nn.ReLU()
        )
        self.ratio = ratio
        self.text = text

    def adapted(self, embeddings: Tensor) -> Tensor:
        """Return f* for embeddings (B, D) or (B, Q, D), not normalised."""
        embeddings = embeddings.float()  # as the adapter's weights are, whatever the tower's
        return self.ratio * self.adapter(embeddings) + (1 - self.ratio) * embeddings

    def forward(self, backbone: Any, embeddings: Tensor) -> Tensor:
        """Return logits (B, C) for what `backbone.encode_image` gives."""
        return self.text(backbone, self.adapted(embeddings))
