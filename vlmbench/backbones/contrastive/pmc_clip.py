"""PMC-CLIP (Lin et al., MICCAI 2023, arXiv 2303.07240): figures of PubMed Central; CLIP's ResNet-50 and PubMedBERT.

The release is three files. What the training computes was read in its code at commit b0b81e3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.backbones.contrastive import released
from vlmbench.backbones.contrastive.dual import DualEncoder, cast
from vlmbench.weights.release import Release, depths, fill, unpickled

IMAGE, TEXT, PROJECTION = "image_encoder(resnet50).pth", "text_encoder.pth", "text_projection_layer.pth"
# Not released: the logarithm of the inverse temperature, here as the authors' demonstration sets it.
LOG_SCALE = 4.4292
CONTEXT = 77


class PmcClip(DualEncoder):
    """The contrastive part of PMC-CLIP.

    Args:
        model: The network: `image_encoder`, `text_encoder`, `text_projection_layer`, `logit_scale`.
        tokenizer: PubMedBERT's.
        pooler: Whether a text is BERT's pooler output instead of the last state of [CLS].
    """

    part_prefixes: Mapping[str, tuple[str, ...]] = {
        "vision": ("image_encoder.",),
        "text": ("text_encoder.", "text_projection_layer"),
        "head": ("logit_scale",),
    }
    # The attention pool is left out: it reads its layers' weights past any adapter.
    linear: Mapping[str, str] = {
        "vision": r"image_encoder" + released.RESNET_CONVOLUTION,
        "text": r"text_encoder" + released.BERT_LINEAR,
    }

    # The training had no mask, so that padding is part of what the tower reads.
    token_inputs = ("input_ids",)
    whole_context = True

    def __init__(self, model: Any, tokenizer: Any, *, pooler: bool) -> None:
        from open_clip.transform import image_transform

        tower = model.image_encoder
        transform = image_transform(tower.image_size, is_train=False)
        super().__init__(model, tokenizer, transform, feature_dim=tower.output_dim, context_length=CONTEXT)
        self.pooler = pooler
        self.unreached = () if pooler else ("text_encoder.pooler.",)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to embeddings (B, D)."""
        return self.model.image_encoder(cast(pixels, self.model.image_encoder))

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D)."""
        ids = self.placed(tokens)["input_ids"]
        output = self.model.text_encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
        pooled = output.pooler_output if self.pooler else output.last_hidden_state[:, 0]
        return pooled @ self.model.text_projection_layer


def load_pmc_clip(release: Release, *, heads: int = 32, pooler: bool = False) -> PmcClip:
    """Load the original PMC-CLIP.

    Two things are not in the weights, and the authors' later demonstration contradicts their training code in both.
    The defaults are the training's: weights trained with 32 heads are another function with 8, and no loss of the
    training reached the pooler that the demonstration reads.

    Args:
        release: The three files; the companion `text` is PubMedBERT's `config.json` and `vocab.txt`.
        heads: Of the attention pool: 32 in the training code, 8 in the demonstration.
        pooler: Take the pooler's output for a text, as the demonstration does.

    Raises:
        CheckpointError: A file holds other weights, or the companion is not there.
    """
    from open_clip.modified_resnet import ModifiedResNet

    image = unpickled(release.folder / IMAGE, "attnpool.c_proj.weight", "attnpool.positional_embedding")
    text, projection = (unpickled(release.folder / name) for name in (TEXT, PROJECTION))
    network: Any = nn.Module()
    network.image_encoder = ModifiedResNet(
        layers=depths(image, r"layer(\d)\.(\d+)\."),
        output_dim=image["attnpool.c_proj.weight"].shape[0],
        heads=heads,
        image_size=32 * round((image["attnpool.positional_embedding"].shape[0] - 1) ** 0.5),
        width=image["layer1.0.conv1.weight"].shape[0],
    )
    fill(network.image_encoder, image, release.folder / IMAGE)
    network.text_encoder, tokenizer = released.bert(text, release, release.folder / TEXT)
    network.text_projection_layer = nn.Parameter(projection.detach().clone())
    network.logit_scale = nn.Parameter(torch.tensor(LOG_SCALE))
    return PmcClip(network.to(release.dtype), tokenizer, pooler=pooler)
