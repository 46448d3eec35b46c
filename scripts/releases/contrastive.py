"""Dual encoders released in transformers' format: CLIP and its descendants, SigLIP, SigLIP 2, BLIP, BLIP-2."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    BlipConfig,
    BlipForImageTextRetrieval,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
)

from releases import Maker
from releases.common import fill, save_pickled, sentencepiece_model, wordpiece, write_bert_tokenizer, write_json
from releases.contrastive_tokenizers import write_clip_tokenizer, write_gemma_tokenizer

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def _save(folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any], *, pickled: bool) -> None:
    """Write the configuration and the weights, as one file of the older or the newer kind."""
    write_json(folder / "config.json", config)
    if pickled:
        save_pickled(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _images(folder: Path, kind: str, size: Any, mean: list[float], std: list[float], **settings: Any) -> None:
    """Write the preprocessor's configuration as releases since transformers 4.26 have it."""
    flags = dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True)
    constants = {"image_mean": mean, "image_std": std, "rescale_factor": 1 / 255}
    named = {"image_processor_type": f"{kind}ImageProcessor", "processor_class": f"{kind}Processor"}
    write_json(folder / "preprocessor_config.json", {**flags, **constants, **named, "size": size, **settings})


def _clip(folder: Path, *, patch: int, pickled: bool, positions: bool = False) -> None:
    """Write CLIP as OpenAI's repositories hold it.

    The text tower's `eos_token_id` is 2 there, which is not the tokenizer's: it means that the largest id is pooled.

    Args:
        folder: Where to.
        patch: Side of a patch in pixels.
        pickled: `pytorch_model.bin` instead of safetensors.
        positions: Whether the weights hold the buffers `position_ids`, as those saved before transformers 4.31 do.
    """
    main = folder / "main"
    size = write_clip_tokenizer(main)
    image = 2 * patch
    ids = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    text = {**SMALL, **ids, "vocab_size": size, "max_position_embeddings": 77, "hidden_act": "quick_gelu"}
    vision = {**SMALL, "image_size": image, "patch_size": patch, "hidden_act": "quick_gelu"}
    towers = {
        "text_config": {**text, "projection_dim": 8, "model_type": "clip_text_model", "layer_norm_eps": 1e-05},
        "vision_config": {**vision, "projection_dim": 8, "model_type": "clip_vision_model", "layer_norm_eps": 1e-05},
    }
    state = fill(CLIPModel(CLIPConfig(**towers, projection_dim=8)).state_dict())
    state["logit_scale"] = torch.tensor(4.6052)
    if positions:
        state["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    older = {"text_config_dict": text, "vision_config_dict": vision, "transformers_version": None}
    rest = {"model_type": "clip", "projection_dim": 8, "logit_scale_init_value": 2.6592, "torch_dtype": "float32"}
    _save(main, state, {"architectures": ["CLIPModel"], **older, **towers, **rest}, pickled=pickled)
    flags = dict.fromkeys(("do_resize", "do_center_crop", "do_normalize"), True)
    constants = {"image_mean": MEAN, "image_std": STD, "resample": 3, "size": image, "crop_size": image}
    named = {"feature_extractor_type": "CLIPFeatureExtractor"}
    write_json(main / "preprocessor_config.json", {**flags, **constants, **named})


def _siglip(folder: Path, *, patch: int, image: int, second: bool = False) -> None:
    """Write SigLIP, or SigLIP 2 of fixed resolution: the same class with Gemma's tokenizer and a bilinear resize."""
    main = folder / "main"
    special = {name: {"content": "</s>", "lstrip": True, "rstrip": True} for name in ("eos_token", "pad_token")}
    if second:
        size = write_gemma_tokenizer(main)
        text: dict[str, Any] = {"projection_size": 16}
    else:
        sentencepiece_model(
            main / "spiece.model",
            120,
            kind="unigram",
            byte_fallback=False,
            num_threads=1,
            **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        )
        special |= {"unk_token": {"content": "<unk>", "lstrip": True, "rstrip": True}}
        write_json(main / "special_tokens_map.json", special)
        flags = {"do_lower_case": True, "model_max_length": 64, "model_input_names": ["input_ids"]}
        named = {"tokenizer_class": "SiglipTokenizer", "processor_class": "SiglipProcessor", "sp_model_kwargs": {}}
        plain = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
        write_json(main / "tokenizer_config.json", {**flags, **named, **plain})
        size, text = 120, {}
    towers = {
        "text_config": {**SMALL, **text, "vocab_size": size, "model_type": "siglip_text_model"},
        "vision_config": {**SMALL, "image_size": image, "patch_size": patch, "model_type": "siglip_vision_model"},
    }
    state = fill(SiglipModel(SiglipConfig(**towers)).state_dict())
    state |= {"logit_scale": torch.tensor([4.7]), "logit_bias": torch.tensor([-16.5])}
    rest = {"architectures": ["SiglipModel"], "initializer_factor": 1.0, "model_type": "siglip"}
    _save(main, state, {**rest, **towers, "torch_dtype": "float32"}, pickled=False)
    convert = {"do_convert_rgb": None} if second else {}
    resample = 2 if second else 3
    _images(main, "Siglip", {"height": image, "width": image}, HALF, HALF, resample=resample, **convert)


def blip(folder: Path) -> None:
    """Write BLIP for image-text matching: pickled, BERT's tokenizer, two more entries in the vocabulary than it has."""
    main = folder / "main"
    size = write_bert_tokenizer(main)
    text = {**SMALL, "vocab_size": size + 2, "encoder_hidden_size": 16, "max_position_embeddings": 512}
    ids = {"bos_token_id": size, "eos_token_id": 2, "sep_token_id": 3, "pad_token_id": 0}
    towers = {
        "text_config": {**text, **ids, "projection_dim": 8, "model_type": "blip_text_model", "is_decoder": True},
        "vision_config": {**SMALL, "image_size": 32, "patch_size": 16, "model_type": "blip_vision_model"},
    }
    config = BlipConfig(**towers, projection_dim=8, image_text_hidden_size=8)
    state = fill(BlipForImageTextRetrieval(config).state_dict())
    state["text_encoder.embeddings.position_ids"] = torch.arange(512)[None]
    rest = {"architectures": ["BlipForImageTextRetrieval"], "model_type": "blip", "logit_scale_init_value": 2.6592}
    sizes = {"projection_dim": 8, "image_text_hidden_size": 8, "initializer_factor": 1.0, "torch_dtype": "float32"}
    _save(main, state, {**rest, **towers, **sizes}, pickled=True)
    _images(main, "Blip", {"height": 32, "width": 32}, MEAN, STD, resample=3)


def blip2(folder: Path) -> None:
    """Write BLIP-2 for image-text matching: BERT's tokenizer with [DEC] and the image's placeholder added."""
    main = folder / "main"
    size = write_bert_tokenizer(main)
    tokenizer = wordpiece()
    tokenizer.add_special_tokens(["[DEC]", "<image>"])
    tokenizer.save(str(main / "tokenizer.json"))
    special = {"bos_token": "[DEC]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    special |= {"unk_token": "[UNK]", "mask_token": "[MASK]"}
    named = {"tokenizer_class": "BertTokenizer", "processor_class": "Blip2Processor", "do_lower_case": True}
    write_json(main / "tokenizer_config.json", {**special, **named, "extra_special_tokens": {"image_token": "<image>"}})
    write_json(main / "processor_config.json", {"num_query_tokens": 4, "processor_class": "Blip2Processor"})
    small = {**SMALL, "layer_norm_eps": 1e-06}
    parts = {
        "vision_config": {**small, "image_size": 28, "patch_size": 14, "model_type": "blip_2_vision_model"},
        "qformer_config": {
            **{**SMALL, "vocab_size": size + 2, "encoder_hidden_size": 16, "cross_attention_frequency": 2},
            **{"use_qformer_text_input": True, "model_type": "blip_2_qformer"},
        },
        "text_config": {"model_type": "opt"},
    }
    sizes = {"num_query_tokens": 4, "image_text_hidden_size": 8, "image_token_index": size + 1}
    state = fill(Blip2ForImageTextRetrieval(Blip2Config(**parts, **sizes)).state_dict())
    rest = {"architectures": ["Blip2ForImageTextRetrieval"], "model_type": "blip-2", "torch_dtype": "float32"}
    _save(main, state, {**rest, **parts, **sizes, "use_decoder_only_language_model": True}, pickled=False)
    _images(main, "Blip", {"height": 28, "width": 28}, MEAN, STD, resample=3, processor_class="Blip2Processor")


MAKERS: dict[str, Maker] = {
    "clip": functools.partial(_clip, patch=32, pickled=True, positions=True),
    "clip_vit_b16": functools.partial(_clip, patch=16, pickled=True, positions=True),
    "clip_vit_l14": functools.partial(_clip, patch=14, pickled=False, positions=True),
    "plip": functools.partial(_clip, patch=32, pickled=True, positions=True),
    "pubmedclip": functools.partial(_clip, patch=32, pickled=True, positions=True),
    "monet": functools.partial(_clip, patch=14, pickled=False),
    "siglip": functools.partial(_siglip, patch=16, image=32),
    "siglip_so400m": functools.partial(_siglip, patch=14, image=28),
    "siglip2": functools.partial(_siglip, patch=16, image=32, second=True),
    "siglip2_so400m": functools.partial(_siglip, patch=14, image=28, second=True),
    "medsiglip": functools.partial(_siglip, patch=14, image=42),
    "blip": blip,
    "blip2": blip2,
}
