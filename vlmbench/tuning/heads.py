"""Classifiers on top of a contrastive backbone: a linear layer, or text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

HEAD, CLASSIFIER = "head.safetensors", "classifier.safetensors"


class LinearHead(nn.Module):
    """Standardisation by fixed statistics, then a linear layer: (B, F) to (B, C) logits.

    The statistics are those of the frozen features of the training split. They bring every backbone's features to one
    scale, so that one learning rate and one range of penalties suit all of them.

    Args:
        mean: Feature means, (F,).
        std: Feature standard deviations, (F,); constant features are left unscaled.
        classes: Number of outputs C.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", torch.where(std > 0, std, torch.ones_like(std)).float())
        self.linear = nn.Linear(mean.numel(), classes)
        # Small but not zero: at zero no gradient would reach the backbone in the first step.
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, C)."""
        return self.linear((features.float() - self.mean) / self.std)

    def save(self, folder: Path) -> None:
        """Write `head.safetensors`."""
        save_file({name: value.cpu().contiguous() for name, value in self.state_dict().items()}, folder / HEAD)

    @classmethod
    def load(cls, folder: Path) -> LinearHead:
        """Read what `save` wrote."""
        tensors = load_file(folder / HEAD)
        head = cls(tensors["mean"], tensors["std"], tensors["linear.bias"].numel())
        head.load_state_dict(tensors)
        return head


def save_classifier(classifier: nn.Module, folder: Path) -> None:
    """Write what a classifier other than a linear head has learned to `classifier.safetensors`."""
    save_file({name: value.cpu().contiguous() for name, value in classifier.state_dict().items()}, folder / CLASSIFIER)


def load_classifier(classifier: nn.Module, folder: Path) -> None:
    """Put back what `save_classifier` wrote."""
    classifier.load_state_dict(load_file(folder / CLASSIFIER))


def class_embeddings(encoded: Tensor, owners: Sequence[int]) -> Tensor:
    """Average the normalised embeddings of each class's prompts and normalise the mean.

    Prompt ensembling in embedding space, as in Radford et al. (2021), section 3.1.4.

    Args:
        encoded: Text embeddings of all prompts, (P, D).
        owners: For each prompt the class it belongs to, 0..C-1.

    Returns:
        Unit vectors, (C, D).
    """
    unit = functional.normalize(encoded.float(), dim=-1)
    index = torch.as_tensor(owners, device=unit.device)
    sums = torch.zeros(int(index.max()) + 1, unit.shape[1], device=unit.device).index_add(0, index, unit)
    return functional.normalize(sums, dim=-1)


def text_logits(embeddings: Tensor, classes: Tensor, scale: Tensor) -> Tensor:
    """Return scaled cosine similarities (B, C) of image embeddings and class embeddings (C, D).

    Args:
        embeddings: (B, D); or (B, Q, D), of which the most similar of Q counts, as BLIP-2 is trained
            (Li et al., 2023, arXiv 2301.12597, section 3.2).
        classes: Unit vectors (C, D).
        scale: Inverse temperature.
    """
    similarities = functional.normalize(embeddings.float(), dim=-1) @ classes.T
    return scale * (similarities.amax(1) if similarities.ndim == 3 else similarities)


def flatten_prompts(prompts: Mapping[str, Sequence[str]], labels: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return all prompts in the labels' order and, for each, the index of its label."""
    texts, owners = [], []
    for index, label in enumerate(labels):
        for prompt in prompts[label]:
            texts.append(prompt)
            owners.append(index)
    return texts, owners
