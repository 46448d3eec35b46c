"""Sizes of the real models, counted without a weight: each published configuration is built on the meta device.

The counts are held against totals that others published, against what each model's YAML declares by part, and against
the numbers of LoRA parameters that the study gives.
"""

import importlib
import json
import math
from collections import Counter
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from vlmbench.backbones.generative.family import FAMILIES
from vlmbench.config.store import conf_dir
from vlmbench.tuning.lora import add_lora
from vlmbench.tuning.parameters import part_of
from vlmbench.weights.source import ASSETS

ARCHITECTURES = sorted(path.stem for path in (ASSETS / "architectures").glob("*.json"))
MODELS: dict[str, Any] = {path.stem: OmegaConf.load(path) for path in sorted((conf_dir() / "model").glob("*.yaml"))}
COUNTED = sorted(name for name, model in MODELS.items() if model.get("architecture"))
# The backbone of each class; one of a generative model is told by its configuration (`family.FAMILIES`).
BACKBONES = {
    "CLIPModel": "clip:HfClip",
    "SiglipModel": "clip:HfSiglip",
    "BlipForImageTextRetrieval": "blip:HfBlip",
    "Blip2ForImageTextRetrieval": "blip:HfBlip2",
    "CLIP": "open_clip:OpenClip",
    "CustomTextCLIP": "open_clip:OpenClip",
}
# Parameters in all: exact where others counted the loaded weights or quote the hub's own count, in millions where the
# source rounds.
PUBLISHED: dict[str, int | float] = {
    "clip-vit-base-patch32": 151.28,  # the study's table of models
    "clip-vit-base-patch16": 149.62,  # open_clip's docs/model_profile.csv, as the next four
    "clip-vit-large-patch14": 427.62,
    "open-clip-vit-b-32": 151.28,
    "open-clip-vit-b-16": 149.62,
    "open-clip-vit-l-14": 427.62,
    "biomedclip": 195.90,  # the study's table of models
    "siglip-base-patch16-224": 203_155_970,  # mteb's model registry, as the next three
    "siglip-so400m-patch14-384": 877_960_498,
    "siglip2-base-patch16-224": 375_187_970,
    "siglip2-so400m-patch14-384": 1_136_008_498,
    "medsiglip-448": 878.30,  # the study's table of models
    "blip-itm-base": 223_744_258,  # a public package that pins Salesforce/blip-itm-base-coco
    "blip2-itm-vit-g": 1172.0,  # 4.69 GB of weights in four bytes each, on the model's page
    "blip2-opt-2.7b": 3_744_761_856,  # keras-hub's preset
    "llava-1.5-7b": 7_063_427_072,  # public training code that asserts it on llava-hf/llava-1.5-7b-hf
    # Vicuna 13B's 13,015.9, 64 more rows of two embeddings, the tower, the projector.
    "llava-1.5-13b": 13_015.9 + 0.7 + 303.5 + 31.5,
    "llava-v1.6-mistral-7b": 7_570.0,  # shown on the hub's pages of its like
    "llava-med-v1.5-mistral-7b": 7_570.0,  # 15.13 GB of weights in two bytes each, on the model's page
    "llava-med-v1.5-mistral-7b-hf": 7_570.0,
    "llava-onevision-qwen2-7b": 8_030.0,  # counted before with another program
    "qwen2-vl-7b": 8_291_375_616,  # a public table of the hub's counts
    "qwen2.5-vl-7b": 8_292_166_656,  # counted on the loaded weights in several public reports
    "qwen3-vl-8b": 8_767_123_696,  # the hub's count of commit 0c351dd
    "gemma-3-4b": 4_300_079_472,  # keras-hub's preset of MedGemma, and public checks of gemma-3-4b-it
    # 15.89 GB of weights in two bytes each, on the model's page: embeddings and head are two matrices, although the
    # released configuration says outside of `text_config` that they are one.
    "internvl3-8b": 7_945.0,
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """BERT base's configuration, of which BiomedBERT keeps every size."""
    from transformers import BertConfig

    folder = str(tmp_path_factory.mktemp("bert"))
    BertConfig().save_pretrained(folder)
    return folder


@cache
def build(architecture: str, bert: str) -> tuple[Any, dict[str, Any]]:
    """Return a network of a published configuration on the meta device, and the configuration."""
    raw = json.loads((ASSETS / "architectures" / f"{architecture}.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        if "model_cfg" in raw:
            import open_clip

            cfg = json.loads(json.dumps(raw["model_cfg"]))
            if "hf_model_name" not in cfg["text_cfg"]:
                return open_clip.CLIP(**cfg), raw
            cfg["text_cfg"] |= {"hf_model_name": bert, "hf_model_pretrained": False}
            return open_clip.CustomTextCLIP(**cfg), raw
        import transformers

        config = transformers.CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
        return getattr(transformers, raw["architectures"][0])(config), raw


def table(model: Any, raw: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the prefixes of a network's parts, as its backbone has them."""
    if type(model).__name__ not in BACKBONES:
        family = FAMILIES[raw["model_type"]]
        return {part: getattr(family, part) for part in ("vision", "connector", "language")}
    module, _, name = BACKBONES[type(model).__name__].partition(":")
    backbone = getattr(importlib.import_module(f"vlmbench.backbones.contrastive.{module}"), name)
    if "model_cfg" in raw:
        return backbone.part_prefixes
    return backbone(model, SimpleNamespace(tokenizer=None)).part_prefixes


def millions(model: nn.Module) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_configuration_has_the_published_number_of_parameters(architecture, bert):
    expected = PUBLISHED[architecture]
    count = sum(p.numel() for p in build(architecture, bert)[0].parameters())
    if isinstance(expected, int):
        assert count == expected
    else:
        assert count / 1e6 == pytest.approx(expected, rel=6e-4)


@pytest.mark.parametrize("name", COUNTED)
def test_a_model_declares_the_sizes_of_its_parts(name, bert):
    model, raw = build(MODELS[name].architecture, bert)
    prefixes = table(model, raw)
    counts: Counter[str] = Counter()
    for path, parameter in model.named_parameters():
        counts[part_of(path, prefixes)] += parameter.numel() / 1e6
    counts.pop("head", None)
    assert dict(MODELS[name].parameters) == pytest.approx(dict(counts), abs=0.1)


def lora_parameters(model: nn.Module, targets: str, rank: int) -> int:
    """Return the trainable parameters that the project's own LoRA adds, without keeping them."""
    wrapped: Any = add_lora(model, targets, rank=rank, alpha=rank, dropout=0.0)
    count = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    wrapped.unload()
    return count


def test_the_first_version_of_the_study_is_counted_alike(bert):
    """Its table: LoRA of rank 8 on query, key and value with one logit: 443,137 (CLIP) and 1,758,593 (BLIP-2)."""
    clip, _ = build("clip-vit-base-patch32", bert)
    assert lora_parameters(clip, r"vision_model\.encoder\.layers\.\d+\.self_attn\.[qkv]_proj", 8) == 442_368
    assert 442_368 + clip.config.vision_config.hidden_size + 1 == 443_137
    assert clip.config.projection_dim + 1 == 513
    blip2, _ = build("blip2-itm-vit-g", bert)
    width = blip2.config.vision_config.hidden_size
    assert width + 1 == 1_409
    assert lora_parameters(blip2, r"vision_model\.encoder\.layers\.\d+\.self_attn\.qkv", 8) + width + 1 == 1_758_593


# Millions of parameters of LoRA with rank 16 on every Linear layer of vision, connector and language, counted before
# with another program; a None is a connector without a Linear layer.
LORA = {
    "blip2-opt-2.7b": (14.7, 3.4, 23.6),
    "gemma-3-4b": (8.7, None, 29.8),
    "llava-1.5-7b": (7.1, 0.2, 40.0),
    "llava-v1.6-mistral-7b": (7.1, 0.2, 41.9),
    "llava-med-v1.5-mistral-7b": (7.1, 0.2, 41.9),
    "llava-onevision-qwen2-7b": (8.4, 0.2, 40.4),
    "qwen2-vl-7b": (10.5, 0.3, 40.4),
    "qwen2.5-vl-7b": (11.2, 0.3, 40.4),
    "qwen3-vl-8b": (7.7, 1.1, 43.6),
    "internvl3-8b": (7.1, 0.2, 40.4),
}


@pytest.mark.parametrize("architecture", LORA)
def test_the_patterns_of_a_family_find_every_linear_layer(architecture, bert):
    model, raw = build(architecture, bert)
    family = FAMILIES[raw["model_type"]]
    patterns = (family.vision_linear.replace("{layers}", r"\d+"), family.connector_linear, family.language_linear)
    for pattern, expected in zip(patterns, LORA[architecture], strict=True):
        if expected is None:
            assert not pattern
        else:
            assert lora_parameters(model, pattern, 16) / 1e6 == pytest.approx(expected, abs=0.05)


def test_the_published_adapter_of_internvl3_is_rank_16_on_every_layer_of_its_language_model(bert):
    model, raw = build("internvl3-8b", bert)
    assert lora_parameters(model, FAMILIES[raw["model_type"]].language_linear, 16) == 40_370_176  # the study's file


@pytest.mark.parametrize("name", COUNTED)
def test_a_download_is_as_large_as_the_weights(name, bert):
    """Within a tenth of the parameters in two or four bytes each, whichever the release has."""
    total = millions(build(MODELS[name].architecture, bert)[0]) * 1e6
    sizes = [total * width / 2**30 for width in (2, 4)]
    assert min(abs(math.log(MODELS[name].download_gib / size)) for size in sizes) < 0.1
