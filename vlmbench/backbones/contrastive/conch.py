"""CONCH (Lu et al., Nature Medicine 2024): histology; a ViT with an attention pool, and CoCa's text tower.

The towers are timm's and open_clip's; weights for captions are left out. What the original computes was read in its
code at commit 141cc09, of which nothing is used: its licence allows no derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.backbones.contrastive.dual import DualEncoder, Encoded, cast
from vlmbench.backbones.contrastive.open_clip import BLOCK
from vlmbench.weights.release import Release, fill, need, unpickled

WEIGHTS, TOKENIZER = "pytorch_model.bin", "conch_byte_level_bpe_uncased.json"
CAPTIONING = ("text_decoder.", "visual.attn_pool_caption.", "visual.ln_caption.")
SPECIAL_TOKENS = {"bos_token": "<start_of_text>", "eos_token": "<end_of_text>", "pad_token": "<pad>"}
# Width of a transformer's head, and heads of the pool: the weights do not tell.
HEAD_WIDTH, POOL_HEADS = 64, 8


class Conch(DualEncoder):
    """The contrastive part of CONCH: `visual`, `text` and `logit_scale`, with its own byte-level tokenizer."""

    part_prefixes: Mapping[str, tuple[str, ...]] = {
        "vision": ("visual.trunk.", "visual.attn_pool_contrast.", "visual.ln_contrast."),
        "connector": ("visual.proj_contrast",),  # not reached by a head on the features before it
        "text": ("text.",),
        "head": ("logit_scale",),
    }
    linear: Mapping[str, str] = {
        "vision": r"visual\.trunk\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])",
        "text": rf"text\.transformer\.{BLOCK}",
    }

    # Always padded: the class token has the position behind the text's 127.
    token_inputs = ("input_ids",)
    whole_context = True

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to projected embeddings (B, D)."""
        return self.encode(pixels).embeddings

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D)."""
        return self.model.text(self.placed(tokens)["input_ids"])

    def features(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to the pooled features before the projection, which the authors probe, (B, F)."""
        visual = self.model.visual
        states = visual.trunk.forward_features(cast(pixels, visual))
        return visual.ln_contrast(visual.attn_pool_contrast(states)[:, 0])

    def encode(self, pixels: Tensor) -> Encoded:
        """Map (B, 3, H, W) to the pooled features before and behind the projection."""
        features = self.features(pixels)
        return Encoded(features, features @ self.model.visual.proj_contrast)


def load_conch(release: Release) -> Conch:
    """Load CONCH's release; the weights tell the sizes.

    Args:
        release: `pytorch_model.bin`; the companion `tokenizer` is the folder of `conch_byte_level_bpe_uncased.json`,
            from the code's repository.

    Raises:
        CheckpointError: The file holds other weights, or the companion is not there.
    """
    from open_clip.transform import image_transform
    from open_clip.transformer import AttentionalPooler, TextTransformer
    from timm.models.vision_transformer import VisionTransformer
    from transformers import PreTrainedTokenizerFast

    path = release.folder / WEIGHTS
    state = unpickled(path, "visual.attn_pool_contrast.query", "text.positional_embedding", "logit_scale")
    state = {name: value for name, value in state.items() if not name.startswith(CAPTIONING)}
    width, _, _, patch = state["visual.trunk.patch_embed.proj.weight"].shape
    queries, dim = state["visual.attn_pool_contrast.query"].shape
    positions, text_width = state["text.positional_embedding"].shape
    side = patch * round((state["visual.trunk.pos_embed"].shape[1] - 1) ** 0.5)
    network: Any = nn.Module()
    network.visual = nn.Module()
    network.visual.trunk = VisionTransformer(
        img_size=side,
        patch_size=patch,
        num_classes=0,
        embed_dim=width,
        depth=sum(name.endswith(".attn.qkv.weight") for name in state),
        num_heads=width // HEAD_WIDTH,
    )
    network.visual.attn_pool_contrast = AttentionalPooler(dim, width, POOL_HEADS, n_queries=queries)
    network.visual.ln_contrast = nn.LayerNorm(dim)
    network.visual.proj_contrast = nn.Parameter(torch.empty_like(state["visual.proj_contrast"]))
    network.text = TextTransformer(
        context_length=positions - 1,
        vocab_size=state["text.token_embedding.weight"].shape[0],
        width=text_width,
        heads=text_width // HEAD_WIDTH,
        layers=sum(name.startswith("text.") and name.endswith(".in_proj_weight") for name in state),
        output_dim=state["text.text_projection"].shape[1],
        embed_cls=True,
    )
    network.logit_scale = nn.Parameter(torch.empty(()))
    fill(network, state, path)
    words = need(release.companions.get("tokenizer"), "the folder of CONCH's tokenizer", "companions.tokenizer")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(words / TOKENIZER), **SPECIAL_TOKENS)
    return Conch(
        network.to(release.dtype),
        tokenizer,
        image_transform(side, is_train=False),  # CLIP's
        feature_dim=dim,
        context_length=positions - 1,
    )
