"""Small checkpoints of the generative models of Qwen, Google and OpenGVLab, as their owners released them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from releases import Maker
from releases import generative_text as text
from releases.common import write_json
from releases.generative import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    INTERNVL_NAMES,
    LLAVA_NAMES,
    QWEN2_NAMES,
    TOWER,
    WIDTH,
    write_images,
    write_template,
    write_weights,
)

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
QWEN_TOKENS = [
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
QWEN_TEXT = {**WIDTH, "num_key_value_heads": 1, "hidden_act": "silu", "max_position_embeddings": 32768}
# Rotary frequencies of an axis: a head of 16 has 8 of them, shared among time, height and width.
SECTIONS = {"type": "mrope", "mrope_section": [2, 3, 3]}


def qwen2_vl(root: Path) -> None:
    """Write Qwen2-VL: text fields on the top level of the configuration."""
    folder, ids = root / "main", _qwen_files(root / "main", "Qwen2VLProcessor")
    vision = {"depth": 3, "embed_dim": 32, "hidden_size": 32, "in_chans": 3, "mlp_ratio": 2, "num_heads": 2}
    vision |= {"patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2}
    config = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        **QWEN_TEXT,
        **_qwen_ids(ids),
        "model_type": "qwen2_vl",
        "rms_norm_eps": 1e-06,
        "rope_scaling": SECTIONS,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vision_config": vision,
    }
    write_weights(folder, config, QWEN2_NAMES, ())
    _qwen_generation(folder, ids, top_k=1, top_p=0.001)
    write_template(folder, text.QWEN2_VL)


def qwen25_vl(root: Path, *, jinja: bool = False) -> None:
    """Write Qwen2.5-VL or a model grown from it."""
    folder, ids = root / "main", _qwen_files(root / "main", "Qwen2_5_VLProcessor")
    vision = {"depth": 3, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48, "num_heads": 2}
    vision |= {"in_chans": 3, "out_hidden_size": 32, "patch_size": 14, "spatial_merge_size": 2}
    vision |= {"spatial_patch_size": 14, "temporal_patch_size": 2, "tokens_per_second": 2, "window_size": 112}
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        **QWEN_TEXT,
        **_qwen_ids(ids),
        "model_type": "qwen2_5_vl",
        "rms_norm_eps": 1e-06,
        "rope_scaling": SECTIONS,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vision_config": {**vision, "fullatt_block_indexes": [1], "model_type": "qwen2_5_vl"},
    }
    write_weights(folder, config, QWEN2_NAMES, ())
    _qwen_generation(folder, ids, repetition_penalty=1.05)
    write_template(folder, text.QWEN2_VL, jinja=jinja)


def qwen3_vl(root: Path) -> None:
    """Write Qwen3-VL: features of several layers enter the language model's first layers."""
    folder, ids = root / "main", _qwen_files(root / "main", "Qwen3VLProcessor")
    vision = {"deepstack_visual_indexes": [0, 1], "depth": 3, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 32}
    vision |= {"in_channels": 3, "intermediate_size": 48, "model_type": "qwen3_vl", "num_heads": 2}
    vision |= {"num_position_embeddings": 16, "out_hidden_size": 32, "patch_size": 16, "spatial_merge_size": 2}
    language = {**QWEN_TEXT, "model_type": "qwen3_vl_text", "head_dim": 16, "vocab_size": max(ids.values()) + 1}
    language |= {"num_hidden_layers": 3}  # one more than features enter: nothing would follow from the last
    language |= {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "rope_theta": 5000000}
    scaling = {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"}
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "image_token_id": ids["<|image_pad|>"],
        "model_type": "qwen3_vl",
        "text_config": {**language, "dtype": "bfloat16", "rms_norm_eps": 1e-06, "rope_scaling": scaling},
        "tie_word_embeddings": False,
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": {**vision, "temporal_patch_size": 2},
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
    }
    write_weights(folder, config, {}, ())
    _qwen_generation(folder, ids, top_k=20, top_p=0.8)
    write_template(folder, text.QWEN3_VL)


def gemma3(root: Path, *, jinja: bool = False) -> None:
    """Write Gemma 3, or MedGemma, which is grown from it."""
    folder = root / "main"
    ids = text.write_gemma_tokenizer(folder)
    language = {**WIDTH, "model_type": "gemma3_text", "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 16}
    language |= {"num_hidden_layers": 6, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
    ends = [ids["<eos>"], ids["<end_of_turn>"]]
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
        "eos_token_id": ends,
        "image_token_index": ids["<image_soft_token>"],
        "initializer_range": 0.02,
        "mm_tokens_per_image": 4,
        "model_type": "gemma3",
        "text_config": {**language, "vocab_size": max(ids.values()) + 1},
        "torch_dtype": "bfloat16",
        "vision_config": {**TOWER, "image_size": 56, "model_type": "siglip_vision_model", "vision_use_head": False},
    }
    write_weights(folder, config, LLAVA_NAMES, ("lm_head.weight",))
    unset = ("do_convert_rgb", "do_pan_and_scan", "pan_and_scan_max_num_crops", "pan_and_scan_min_crop_size")
    crops = dict.fromkeys((*unset, "pan_and_scan_min_ratio_to_activate"))
    square = {"image_seq_length": 4, "resample": 2, "size": {"height": 56, "width": 56}}
    write_images(folder, "Gemma3ImageProcessor", "Gemma3Processor", HALF, HALF, **{**square, **crops})
    write_json(folder / "processor_config.json", {"image_seq_length": 4, "processor_class": "Gemma3Processor"})
    sampling = {"cache_implementation": "hybrid", "do_sample": True, "top_k": 64, "top_p": 0.95}
    named = {"bos_token_id": ids["<bos>"], "eos_token_id": ends, "pad_token_id": ids["<pad>"]}
    write_json(folder / "generation_config.json", {**named, **sampling})
    write_template(folder, text.GEMMA3, jinja=jinja)


def internvl3(root: Path) -> None:
    """Write InternVL3 in transformers' own format: tiles of one size, an output layer of its own."""
    folder = root / "main"
    images = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    extra = {**images, "video_token": "<video>"}
    tokens = [*QWEN_TOKENS, *extra.values(), "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
    ids = text.write_qwen_tokenizer(folder, tokens, extra_special_tokens=extra, **extra)
    language = {**QWEN_TEXT, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_theta": 1000000.0}
    language |= {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
    vision = {**TOWER, "attention_bias": True, "image_size": [56, 56], "model_type": "internvl_vision"}
    vision |= {"norm_type": "layer_norm", "patch_size": [14, 14], "use_mean_pooling": True, "use_qk_norm": False}
    config = {
        "architectures": ["InternVLForConditionalGeneration"],
        "downsample_ratio": 0.5,
        "image_seq_length": 4,
        "image_token_id": ids["<IMG_CONTEXT>"],
        "model_type": "internvl",
        "projector_hidden_act": "gelu",
        "text_config": {**language, "tie_word_embeddings": False, "vocab_size": max(ids.values()) + 1},
        "torch_dtype": "bfloat16",
        "vision_config": vision,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    }
    write_weights(folder, config, INTERNVL_NAMES, ())
    tiles = {"crop_to_patches": False, "max_patches": 12, "min_patches": 1, "size": {"height": 56, "width": 56}}
    kind = "GotOcr2ImageProcessorFast"
    write_images(folder, kind, "InternVLProcessor", IMAGENET_MEAN, IMAGENET_STD, **tiles)
    write_json(folder / "processor_config.json", {"image_seq_length": 4, "processor_class": "InternVLProcessor"})
    named = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
    write_json(folder / "generation_config.json", {"_from_model_config": True, **named})
    write_template(folder, text.INTERNVL, jinja=True)


def _qwen_files(folder: Path, processor: str) -> dict[str, int]:
    ids = text.write_qwen_tokenizer(folder, QWEN_TOKENS)
    three = processor == "Qwen3VLProcessor"
    mean, std = (HALF, HALF) if three else (CLIP_MEAN, CLIP_STD)
    kind = "Qwen2VLImageProcessorFast" if three else "Qwen2VLImageProcessor"
    sizes = {"merge_size": 2, "patch_size": 16 if three else 14, "temporal_patch_size": 2}
    edges = {"size": {"longest_edge": 16777216, "shortest_edge": 65536}}
    limits = edges if three else {"max_pixels": 12845056, "min_pixels": 3136}
    write_images(folder, kind, processor, mean, std, **{**sizes, **limits})
    return ids


def _qwen_ids(ids: dict[str, int]) -> dict[str, int]:
    named: dict[str, str] = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    named |= {f"vision_{which}_token_id": f"<|vision_{which}|>" for which in ("start", "end")}
    # Qwen2-VL writes the token between the two as well.
    named |= {"vision_token_id": "<|vision_pad|>", "bos_token_id": "<|endoftext|>", "eos_token_id": "<|im_end|>"}
    return {"vocab_size": max(ids.values()) + 1, **{key: ids[token] for key, token in named.items()}}


def _qwen_generation(folder: Path, ids: dict[str, int], **more: float) -> None:
    ends = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    named = {"bos_token_id": ends[1], "eos_token_id": ends, "pad_token_id": ends[1]}
    write_json(folder / "generation_config.json", {**named, "do_sample": True, "temperature": 0.01, **more})


MAKERS: dict[str, Maker] = {
    "qwen2_vl": qwen2_vl,
    "qwen25_vl": qwen25_vl,
    "lingshu": qwen25_vl,
    "huatuogpt_vision": partial(qwen25_vl, jinja=True),
    "qwen3_vl": qwen3_vl,
    "gemma3": gemma3,
    "medgemma": partial(gemma3, jinja=True),
    "medgemma_15": partial(gemma3, jinja=True),
    "internvl3": internvl3,
}
