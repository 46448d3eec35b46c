"""MedCLIP (Wang et al., EMNLP 2022, arXiv 2210.10163): chest radiographs; a Swin or ResNet-50 tower and ClinicalBERT.

Modules have the names of the release; transformers and torchvision give the towers. What the original computes was read
in its code, version 0.0.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vlmbench.backbones.contrastive import released
from vlmbench.backbones.contrastive.dual import DualEncoder, cast
from vlmbench.weights.release import Release, depths, fill, linear, native, under, unpickled

WEIGHTS = "pytorch_model.bin"
# The original's constants: side of the input, mean and deviation of its grey values, tokens of the longest text.
SIDE, MEAN, STD, CONTEXT = 224, np.float32(0.5862785803043838), np.float32(0.27950088968644304), 77
MAX_LOG_SCALE = 4.6052
# Both names that Swin's layers have had in transformers 5.
SWIN_LINEAR = (
    r"\.encoder\.layers\.\d+\.blocks\.\d+\."
    r"(attention\.([qkvo]_proj|self\.(query|key|value)|output\.dense)|mlp\.fc[12]|(intermediate|output)\.dense)"
)


class MedClip(DualEncoder):
    """A MedCLIP network with its preprocessing.

    Args:
        model: The network: `vision_model` and `text_model`, each with a `model`, and `logit_scale`.
        tokenizer: ClinicalBERT's.
        count_padding: Whether the mean over a text's tokens counts the padding.
    """

    part_prefixes: Mapping[str, tuple[str, ...]] = {
        "vision": ("vision_model.",),
        "text": ("text_model.",),
        "head": ("logit_scale",),
    }
    linear: Mapping[str, str] = {
        "vision": rf"vision_model\.model({SWIN_LINEAR}|{released.RESNET_CONVOLUTION})",
        "text": r"text_model\.model" + released.BERT_LINEAR,
    }
    unreached = ("text_model.model.pooler.",)

    def __init__(self, model: Any, tokenizer: Any, *, count_padding: bool) -> None:
        width = model.text_model.projection_head.out_features
        super().__init__(model, tokenizer, grey_square, feature_dim=width, context_length=CONTEXT)
        self.count_padding = count_padding

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to projected embeddings (B, D)."""
        tower = self.model.vision_model
        output = tower.model(cast(pixels, tower))
        return output if isinstance(output, Tensor) else tower.projection_head(output.pooler_output)

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D): layers 1, 2 and the last, averaged over the tokens.

        The original counts padding among them, so that a text's embedding depends on the longest one beside it.
        """
        placed, tower = self.placed(tokens), self.model.text_model
        states = tower.model(**placed, output_hidden_states=True).hidden_states
        layers = torch.stack([states[1], states[2], states[-1]]).mean(0)
        mask = placed["attention_mask"][..., None].to(layers.dtype)
        counted = torch.ones_like(mask) if self.count_padding else mask
        return tower.projection_head((layers * counted).sum(1) / counted.sum(1))


def grey_square(image: Image.Image) -> Tensor:
    """Return (3, 224, 224): grey, padded to a square with black, resized, normalised, one channel thrice."""
    grey = image.convert("L")
    side = max(SIDE, *grey.size)
    square = Image.new("L", (side, side))
    square.paste(grey, ((side - grey.width) // 2, (side - grey.height) // 2))
    resized = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    return torch.from_numpy((resized * np.float32(1 / 255) - MEAN) / STD).repeat(3, 1, 1)


def load_medclip(release: Release, *, count_padding: bool = True) -> MedClip:
    """Load a MedCLIP release; the weights tell which image tower it has, and its sizes.

    Args:
        release: `pytorch_model.bin`; the companion `text` is ClinicalBERT's `config.json` and `vocab.txt`.
        count_padding: As the original does; false averages a text's own tokens, whatever stands beside it.

    Raises:
        CheckpointError: The file holds other weights, or a companion is not there.
    """
    path = release.folder / WEIGHTS
    state = unpickled(path, "text_model.projection_head.weight", "logit_scale")
    vision, text = (under(state, f"{tower}_model.") for tower in ("vision", "text"))
    bert, tokenizer = released.bert(under(text, "model."), release, path)
    tower = swin if "projection_head.weight" in vision else resnet
    network: Any = nn.ModuleDict({"vision_model": tower(vision, path), "text_model": projected(bert, text)})
    network.logit_scale = nn.Parameter(state["logit_scale"].clamp(0, MAX_LOG_SCALE))
    return MedClip(network.to(release.dtype), tokenizer, count_padding=count_padding)


def projected(model: nn.Module, state: Mapping[str, Tensor]) -> nn.ModuleDict:
    """Return a tower: a model, and the Linear layer behind it."""
    return nn.ModuleDict({"model": model, "projection_head": linear(state["projection_head.weight"])})


def swin(state: Mapping[str, Tensor], path: Path) -> nn.ModuleDict:
    """Return a Swin tower with weights (of `path`) that tell its sizes."""
    from transformers import SwinConfig, SwinModel

    weights = under(state, "model.")
    patches = weights["embeddings.patch_embeddings.projection.weight"]
    tables = {n: v for n, v in weights.items() if "blocks.0." in n and n.endswith("relative_position_bias_table")}
    config = SwinConfig(
        embed_dim=patches.shape[0],
        patch_size=patches.shape[-1],
        depths=depths(weights, r"encoder\.layers\.(\d+)\.blocks\.(\d+)\."),
        num_heads=[tables[name].shape[1] for name in sorted(tables)],
    )
    return projected(native(SwinModel, config, weights, path), state)


def resnet(state: Mapping[str, Tensor], path: Path) -> nn.ModuleDict:
    """Return a residual tower; the projection is the network's own last layer, without its bias."""
    from torchvision.models.resnet import Bottleneck, ResNet

    stages = depths(state, r"model\.layer(\d)\.(\d+)\.")
    model = ResNet(Bottleneck, stages, width_per_group=state["model.layer1.0.conv1.weight"].shape[0])
    model.fc = linear(state["model.fc.weight"])
    tower = nn.ModuleDict({"model": model})
    fill(tower, state, path)
    return tower
