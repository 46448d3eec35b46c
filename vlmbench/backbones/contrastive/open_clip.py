"""Checkpoints in open_clip's format: BiomedCLIP (arXiv 2303.00915), QuiltNet, PMC ViT-L/14, BMC-CLIP."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from vlmbench.backbones.base import Release
from vlmbench.backbones.contrastive.attention import fused_state, unfuse
from vlmbench.backbones.contrastive.dual import DualEncoder, cast
from vlmbench.errors import UserError

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
BLOCK = r"resblocks\.\d+\.(attn\.(q|k|v|out)_proj|mlp\.c_(fc|proj))"


class CheckpointError(UserError):
    """A folder does not hold what a checkpoint in open_clip's format is made of."""


class OpenClip(DualEncoder):
    """A `CLIP` or `CustomTextCLIP` of open_clip.

    LoRA adapts the Linear layers of every block; those of a vision trunk by timm keep query, key and value in one.

    Args:
        model: The network.
        transform: The checkpoint's own preprocessing, PIL image to (3, H, W).
        tokenizer: open_clip's tokenizer, texts to (C, T).
        config: The checkpoint's `open_clip_config.json`.
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
        "text": rf"(text\.)?transformer\.({BLOCK}|encoder\.layer\.\d+\."
        r"(attention\.self\.(query|key|value)|(attention\.output|intermediate|output)\.dense))",
    }
    unreached = ("logit_bias",)

    def __init__(self, model: nn.Module, transform: Any, tokenizer: Any, config: Mapping[str, Any]) -> None:
        cfg = config["model_cfg"]
        super().__init__(
            model,
            feature_dim=int(cfg["embed_dim"]),
            # Not `model.text.context_length`: that is how many positions BERT has, not what it was trained on.
            context_length=int(cfg["text_cfg"].get("context_length", 77)),
        )
        self.transform = transform
        self.tokenizer = tokenizer
        self.config = config

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return (3, H, W): resized, cropped and normalised by the checkpoint's own constants."""
        return self.transform(image)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `text` (C, T), padded to the whole context, as open_clip's text towers read it.

        Raises:
            ValueError: A text is longer than the context.
        """
        # One more than the context, because the tokenizer cuts what is longer without a word.
        tokens = self.tokenizer(list(texts), context_length=self.context_length + 1)
        pad = getattr(getattr(self.tokenizer, "tokenizer", None), "pad_token_id", 0)
        self.check_length(texts, tokens if (tokens[:, -1] != pad).any() else tokens[:, :-1])
        return {"text": tokens[:, :-1]}

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to projected embeddings (B, D)."""
        return self.model.encode_image(cast(pixels, self.model))

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D)."""
        return self.model.encode_text(self.placed(tokens)["text"])

    def save_pretrained(self, folder: str) -> None:
        """Write the checkpoint in open_clip's format, with the configuration of a text tower of transformers."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / CONFIG).write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        save_file({name: value.contiguous() for name, value in fused_state(self.model).items()}, path / WEIGHTS[0])
        if "hf_model_name" in self.config["model_cfg"]["text_cfg"]:
            self.model.text.config.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


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
    cfg = copy.deepcopy(config["model_cfg"])
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text |= {"hf_model_name": _text_folder(release, text["hf_model_name"]), "hf_model_pretrained": False}
    custom = cfg.pop("custom_text", False) or "hf_model_name" in text
    model = (CustomTextCLIP if custom else CLIP)(**cfg)
    load_checkpoint(model, _weights(path, weights), weights_only=True)
    unfuse(model)
    size = {"size": model.visual.image_size}
    transform = image_transform_v2(
        PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), config.get("preprocess_cfg", {}) | size)), is_train=False
    )
    source = f"local-dir:{path}" if (path / CONFIG).is_file() else model_name
    return OpenClip(model.to(release.dtype), transform, get_tokenizer(source), config)


def _config(folder: Path, model_name: str) -> dict[str, Any]:
    if (folder / CONFIG).is_file():
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    from open_clip import get_model_config

    cfg = get_model_config(model_name) if model_name else None
    if cfg is None:
        raise CheckpointError(
            f"{folder} holds no {CONFIG}, and model.settings.model_name={model_name!r} is no architecture of "
            "open_clip's. Give the release's whole folder, or name the architecture, for example ViT-L-14."
        )
    return {"model_cfg": cfg, "preprocess_cfg": {}}


def _weights(folder: Path, name: str) -> str:
    candidates = [*([name] if name else []), *WEIGHTS]
    for candidate in candidates:
        if (folder / candidate).is_file():
            return str(folder / candidate)
    raise CheckpointError(
        f"{folder} holds none of {', '.join(candidates)}. Download the release's weights into it, or name their "
        "file in model.settings.weights."
    )


def _text_folder(release: Release, name: str) -> str:
    for candidate in (release.companions.get("text", release.folder), release.folder):
        if (candidate / "config.json").is_file():
            return str(candidate)
    raise CheckpointError(
        f"The text tower of {release.folder} is described by the config.json of {name}, which is not there. Put that "
        "file into a folder and name it in model.companions.text.source."
    )
