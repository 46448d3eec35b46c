"""Checkpoints in open_clip's format: BiomedCLIP (arXiv 2303.00915), QuiltNet, PMC ViT-L/14, BMC-CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vlmbench.backbones.contrastive.dual import DualEncoder, cast
from vlmbench.backbones.contrastive.released import BERT_LINEAR
from vlmbench.weights.release import CheckpointError, Release, described, first_of, need

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
BLOCK = r"resblocks\.\d+\.(attn\.(q|k|v|out)_proj|mlp\.c_(fc|proj))"


class OpenClip(DualEncoder):
    """A `CLIP` or `CustomTextCLIP` of open_clip.

    LoRA adapts the Linear layers of every block; those of a vision trunk by timm keep query, key and value in one.
    """

    part_prefixes: Mapping[str, tuple[str, ...]] = {
        "vision": ("visual.",),
        "text": (
            *("text.", "text_projection"),
            *("transformer.", "token_embedding.", "positional_embedding", "ln_final."),
        ),
        "head": ("logit_scale", "logit_bias"),
    }
    linear: Mapping[str, str] = {
        "vision": rf"visual\.(transformer\.{BLOCK}|trunk\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12]))",
        "text": rf"(text\.)?transformer(\.{BLOCK}|{BERT_LINEAR})",
    }
    unreached = ("logit_bias",)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `text` (C, T), padded to the whole context, as open_clip's text towers read it.

        Raises:
            ValueError: A text is longer than the context.
        """
        # One more than the context, because the tokenizer cuts what is longer without a word.
        tokens = self.tokenizer(list(texts), context_length=self.context_length + 1)
        pad = getattr(getattr(self.tokenizer, "tokenizer", None), "pad_token_id", 0)
        self.check_length(texts, self.context_length + int((tokens[:, -1] != pad).any()))
        return {"text": tokens[:, :-1]}

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to projected embeddings (B, D)."""
        return self.model.encode_image(cast(pixels, self.model))

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D)."""
        return self.model.encode_text(self.placed(tokens)["text"])


def load_open_clip(release: Release, *, model_name: str = "", weights: str = "") -> OpenClip:
    """Load a checkpoint in open_clip's format; nothing asks the network.

    Args:
        release: The companion `text` holds the configuration of a text tower of transformers (BiomedCLIP's BERT), which
            the checkpoint itself does not.
        model_name: Name of an architecture of open_clip's, for a folder without `open_clip_config.json`.
        weights: Name of the file of weights, where it is none of open_clip's own.

    Raises:
        CheckpointError: A file that the checkpoint needs is not there.
    """
    from open_clip import CLIP, CustomTextCLIP, get_tokenizer, load_checkpoint
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    path = release.folder
    config = _config(path, model_name)
    cfg = config["model_cfg"]
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        what = f"which describes the text tower as {text['hf_model_name']} has it"
        file = need(release.companions.get("text", path) / "config.json", what, "companions.text.source")
        text |= {"hf_model_name": str(file.parent), "hf_model_pretrained": False}
    custom = cfg.pop("custom_text", False) or "hf_model_name" in text
    model = (CustomTextCLIP if custom else CLIP)(**cfg)
    names = [weights, *WEIGHTS] if weights else WEIGHTS
    load_checkpoint(model, str(first_of(path, names, "settings.weights")), weights_only=True)
    size = {"size": model.visual.image_size}
    transform = image_transform_v2(
        PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), config.get("preprocess_cfg", {}) | size)), is_train=False
    )
    source = f"local-dir:{path}" if (path / CONFIG).is_file() else model_name
    return OpenClip(
        model.to(release.dtype),
        get_tokenizer(source),
        transform,
        feature_dim=cfg["embed_dim"],
        # Not `model.text.context_length`: that is how many positions BERT has, not what it was trained on.
        context_length=text.get("context_length", 77),
    )


def _config(folder: Path, model_name: str) -> dict[str, Any]:
    from open_clip import get_model_config

    if (folder / CONFIG).is_file() or not model_name:
        return described(folder / CONFIG, "the model's configuration")
    if (cfg := get_model_config(model_name)) is None:
        raise CheckpointError(f"model.settings.model_name={model_name!r} is no architecture of open_clip's.")
    return {"model_cfg": cfg}
