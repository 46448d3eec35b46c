"""CONCH (Lu et al., Nature Medicine 2024): histology; a ViT with an attention pool, and CoCa's text tower.

The towers are timm's and open_clip's; weights for captions are left out. What the original computes was read in its
code at commit 141cc09, of which nothing is used: its licence allows no derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vlmbench.backbones.base import Release
from vlmbench.backbones.contrastive import released
from vlmbench.backbones.contrastive.attention import fused_state, unfuse
from vlmbench.backbones.contrastive.dual import DualEncoder, cast
from vlmbench.backbones.contrastive.open_clip import BLOCK

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

    def __init__(self, model: Any, tokenizer: Any) -> None:
        from open_clip.transform import image_transform

        width = model.visual.proj_contrast.shape[0]
        super().__init__(model, feature_dim=width, context_length=model.text.context_length)
        self.tokenizer = tokenizer
        self.transform: Any = image_transform(model.visual.trunk.patch_embed.img_size, is_train=False)

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return (3, H, W) by CLIP's evaluation transform: shorter side, centre crop, mean and deviation."""
        return self.transform(image)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `text` (C, 127), always padded: the class token has the position behind it.

        Raises:
            ValueError: A text is longer than that.
        """
        settings = {"padding": "max_length", "max_length": self.context_length, "return_tensors": "pt"}
        ids = self.tokenizer(list(texts), **settings)["input_ids"]
        self.check_length(texts, ids)
        return {"text": ids}

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to projected embeddings (B, D)."""
        return self.features(pixels) @ self.model.visual.proj_contrast

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D)."""
        return self.model.text(**self.placed(tokens))

    def features(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to the pooled features before the projection, which the authors probe, (B, F)."""
        visual = self.model.visual
        states = visual.trunk.forward_features(cast(pixels, visual))
        return visual.ln_contrast(visual.attn_pool_contrast(states)[:, 0])

    def save_pretrained(self, folder: str) -> None:
        """Write the weights as the release does, and the tokenizer's file in `tokenizer`."""
        (Path(folder) / "tokenizer").mkdir(parents=True, exist_ok=True)
        self.tokenizer.backend_tokenizer.save(str(Path(folder) / "tokenizer" / TOKENIZER))
        torch.save(fused_state(self.model), Path(folder) / WEIGHTS)


def load_conch(release: Release) -> Conch:
    """Load CONCH's release; the weights tell the sizes.

    Args:
        release: `pytorch_model.bin`; the companion `tokenizer` is the folder of `conch_byte_level_bpe_uncased.json`,
            from the code's repository.

    Raises:
        IncompatibleWeightsError: The file holds other weights.
    """
    from open_clip.transformer import AttentionalPooler, TextTransformer
    from timm.models.vision_transformer import VisionTransformer
    from transformers import PreTrainedTokenizerFast

    path = release.folder / WEIGHTS
    state = released.read(path, "visual.attn_pool_contrast.query", "text.positional_embedding", "logit_scale")
    state = {name: value for name, value in state.items() if not name.startswith(CAPTIONING)}
    width, _, _, patch = state["visual.trunk.patch_embed.proj.weight"].shape
    queries, dim = state["visual.attn_pool_contrast.query"].shape
    positions, text_width = state["text.positional_embedding"].shape
    network: Any = nn.Module()
    network.visual = nn.Module()
    network.visual.trunk = VisionTransformer(
        img_size=patch * round((state["visual.trunk.pos_embed"].shape[1] - 1) ** 0.5),
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
    released.fill(network, state, path)
    unfuse(network.text)
    tokenizer_file = released.companion(release, "tokenizer") / TOKENIZER
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file), **SPECIAL_TOKENS)
    return Conch(network.to(release.dtype), tokenizer)
