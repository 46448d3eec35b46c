"""Models of real and of small sizes with random weights, behind the project's own interfaces: for speed alone."""

from __future__ import annotations

import copy
from typing import Any

import torch

from vlmbench.backbones.generative.native import HfVlm
from vlmbench.backbones.loaders import load
from vlmbench.weights.source import ASSETS

VIT_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
VICUNA_7B = {
    "vocab_size": 32064,  # of llava-hf/llava-1.5-7b-hf, as all sizes here
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "max_position_embeddings": 4096,
}
SMALL_TOWER = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
SMALL_TEXT = {
    "vocab_size": 32000,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "head_dim": 64,
}


def random_clip(size: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """Return a CLIP with a tower of ViT-L/14 (`large`, 224 pixels), or of six layers (`small`, 64 pixels)."""
    tiny = load("hf_clip", str(ASSETS / "tiny_clip"), dtype=torch.float32)
    config = copy.deepcopy(tiny.model.config)
    config.vision_config.update(VIT_L | {"image_size": 224, "patch_size": 14} if size == "large" else SMALL_TOWER)
    return type(tiny)(made(type(tiny.model), config, device, dtype), tiny.processor)


def random_llava(size: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> HfVlm:
    """Return LLaVA 1.5 of 7B size (`large`: 576 tokens an image), or a small one with its vocabulary (`small`: 64)."""
    tiny = load("hf_vlm", str(ASSETS / "tiny_llava"), dtype=torch.float32, answer_prefix=" ", max_length=2048)
    config, processor = copy.deepcopy(tiny.config), tiny.processor
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    if size == "large":
        config.text_config.update(VICUNA_7B)
        config.vision_config.update(VIT_L | {"image_size": 336, "patch_size": 14})
        config.image_seq_length = 576
        processor.patch_size = 14
        images = processor.image_processor
        images.size, images.crop_size = {"shortest_edge": 336}, {"height": 336, "width": 336}
    else:
        config.text_config.update(SMALL_TEXT)
        config.vision_config.update(SMALL_TOWER)
    return HfVlm(made(type(tiny.model), config, device, dtype), processor)


def made(kind: Any, config: Any, device: str, dtype: torch.dtype) -> Any:
    """Return a network of a class of transformers with random weights, made on the device in its type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return kind(config).eval()
    finally:
        torch.set_default_dtype(before)
