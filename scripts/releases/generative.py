"""Small checkpoints of the generative models that transformers has a class for, as their owners released them.

Weights are under the names that the files on the hub have, which are older than the modules' names in all but Qwen3-VL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from releases import Maker
from releases import generative_text as text
from releases.common import fill, save_sharded, write_json

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]
WIDTH = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TOWER = {**WIDTH, "num_hidden_layers": 3, "patch_size": 14}
CLIP = {**TOWER, "model_type": "clip_vision_model", "image_size": 28, "projection_dim": 16, "vocab_size": 32000}

LLAVA_NAMES = {
    r"^model\.language_model\.": "language_model.model.",
    r"^model\.vision_tower\.": "vision_tower.vision_model.",
    r"^lm_head\.": "language_model.lm_head.",
    r"^model\.": "",
}
INTERNVL_NAMES = {**LLAVA_NAMES, r"^model\.vision_tower\.": "vision_tower."}
QWEN2_NAMES = {r"^model\.visual\.": "visual.", r"^model\.language_model\.": "model."}


def write_weights(folder: Path, config: Mapping[str, Any], names: Mapping[str, str], left_out: Sequence[str]) -> None:
    """Write `config.json` and the weights of the model it describes, renamed, in two shards.

    Args:
        folder: Where to.
        config: In the release's own fields.
        names: Patterns of the modules' names and what the release calls them; the first that matches counts.
        left_out: Names of tensors that are tied to others and therefore not in the files.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    write_json(folder / "config.json", config)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    state = {}
    for name, value in model.state_dict().items():
        pattern = next((pattern for pattern in names if re.search(pattern, name)), None)
        if name not in left_out:
            state[re.sub(pattern, names[pattern], name) if pattern else name] = value
    save_sharded({name: value.to(torch.bfloat16) for name, value in fill(state, scale=0.2).items()}, folder)


def write_images(folder: Path, kind: str, processor: str, mean: list[float], std: list[float], **more: Any) -> None:
    """Write `preprocessor_config.json`."""
    flags = dict.fromkeys(("do_convert_rgb", "do_normalize", "do_rescale", "do_resize"), True)
    constants = {"image_mean": mean, "image_std": std, "resample": 3, "rescale_factor": 1 / 255}
    classes = {"image_processor_type": kind, "processor_class": processor}
    write_json(folder / "preprocessor_config.json", {**flags, **constants, **classes, **more})


def write_template(folder: Path, template: str, *, jinja: bool = False) -> None:
    """Write the chat template in the older file or the newer one."""
    if jinja:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    else:
        write_json(folder / "chat_template.json", {"chat_template": template})


def llava(root: Path, *, text_model: str = "llama", complete: bool = True) -> None:
    """Write LLaVA 1.5, or LLaVA-Med's conversion, whose processor files say neither tokens nor template."""
    folder = root / "main"
    size = text.write_llama_tokenizer(folder, ["<image>", "<pad>"])
    kind = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}[text_model]
    language = {**WIDTH, "architectures": [kind], "model_type": text_model, "max_position_embeddings": 4096}
    language |= {"rms_norm_eps": 1e-05, "vocab_size": size, "torch_dtype": "float16"}
    language |= {"num_key_value_heads": 1, "rope_theta": 1e6, "sliding_window": None} if text_model == "mistral" else {}
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_token_index": size - 2,
        "model_type": "llava",
        "pad_token_id": size - 1,
        "projector_hidden_act": "gelu",
        "text_config": language,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vision_config": CLIP,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "vocab_size": size,
    }
    write_weights(folder, config, LLAVA_NAMES, ())
    square = {"crop_size": {"height": 28, "width": 28}, "do_center_crop": True, "size": {"shortest_edge": 28}}
    write_images(folder, "CLIPImageProcessor", "LlavaProcessor", CLIP_MEAN, CLIP_STD, **square)
    counted = {"num_additional_image_tokens": 1, "patch_size": 14, "vision_feature_select_strategy": "default"}
    named = {"image_token": "<image>", "processor_class": "LlavaProcessor"}
    write_json(folder / "processor_config.json", {**named, **(counted if complete else {})})
    generation = {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": size - 1}
    write_json(folder / "generation_config.json", generation)
    if complete:
        write_template(folder, text.VICUNA)


def llava_next(root: Path) -> None:
    """Write LLaVA-NeXT on Mistral: tiles by the image's shape, a learned line break."""
    folder = root / "main"
    size = text.write_llama_tokenizer(folder, ["<image>", "<pad>"])
    grid = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    language = {**WIDTH, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "num_key_value_heads": 1}
    language |= {"max_position_embeddings": 32768, "rms_norm_eps": 1e-05, "rope_theta": 1e6, "vocab_size": size}
    config = {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "ignore_index": -100,
        "image_grid_pinpoints": grid,
        "image_token_index": size - 2,
        "model_type": "llava_next",
        "projector_hidden_act": "gelu",
        "text_config": {**language, "sliding_window": None, "torch_dtype": "bfloat16"},
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_image_newline_parameter": True,
        "vision_config": CLIP,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "vocab_size": size,
    }
    write_weights(folder, config, LLAVA_NAMES, ())
    square = {"crop_size": {"height": 28, "width": 28}, "do_center_crop": True, "size": {"shortest_edge": 28}}
    tiles = {"aspect_ratio_setting": "anyres", "do_pad": True, "image_grid_pinpoints": grid}
    write_images(folder, "LlavaNextImageProcessor", "LlavaNextProcessor", CLIP_MEAN, CLIP_STD, **square, **tiles)
    counted = {"num_additional_image_tokens": 1, "patch_size": 14, "vision_feature_select_strategy": "default"}
    named = {"image_token": "<image>", "processor_class": "LlavaNextProcessor"}
    write_json(folder / "processor_config.json", {**named, **counted})
    generation = {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2}
    write_json(folder / "generation_config.json", generation)
    write_template(folder, text.MISTRAL)


def llava_onevision(root: Path) -> None:
    """Write LLaVA-OneVision on Qwen2: a SigLIP tower without its head, read to its last layer."""
    folder = root / "main"
    ids = text.write_qwen_tokenizer(folder, ["<image>", "<video>"])
    size = max(ids.values()) + 1
    grid = [[28 * h, 28 * w] for h in range(1, 4) for w in range(1, 4)]
    language = {**WIDTH, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_key_value_heads": 1}
    language |= {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "vocab_size": size}
    config = {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "ignore_index": -100,
        "image_grid_pinpoints": grid,
        "image_token_index": ids["<image>"],
        "model_type": "llava_onevision",
        "projector_hidden_act": "gelu",
        "text_config": {**language, "rope_theta": 1e6, "torch_dtype": "bfloat16", "tie_word_embeddings": False},
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_image_newline_parameter": True,
        "video_token_index": ids["<video>"],
        "vision_aspect_ratio": "anyres_max_9",
        "vision_config": {**TOWER, "image_size": 28, "model_type": "siglip_vision_model", "vision_use_head": False},
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }
    write_weights(folder, config, LLAVA_NAMES, ())
    tiles = {"do_pad": True, "image_grid_pinpoints": grid, "size": {"height": 28, "width": 28}}
    write_images(folder, "LlavaOnevisionImageProcessor", "LlavaOnevisionProcessor", HALF, HALF, **tiles)
    counted = {"num_image_tokens": 4, "vision_feature_select_strategy": "full", "video_token": "<video>"}
    named = {"image_token": "<image>", "processor_class": "LlavaOnevisionProcessor"}
    write_json(folder / "processor_config.json", {**named, **counted, "vision_aspect_ratio": "anyres_max_9"})
    ends = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]]}
    sampling = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20, "top_p": 0.8}
    write_json(folder / "generation_config.json", {**ends, **sampling, "pad_token_id": ids["<|endoftext|>"]})
    write_template(folder, text.ONEVISION)


def blip2_opt(root: Path) -> None:
    """Write BLIP-2 on OPT: a Q-Former, no chat template, a line break as the end token."""
    folder = root / "main"
    ids = text.write_opt_tokenizer(folder)
    language = {"architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": 32, "ffn_dim": 48}
    language |= {"num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 32, "bos_token_id": 2}
    language |= {"eos_token_id": ids["Ċ"], "pad_token_id": 1, "vocab_size": len(ids), "torch_dtype": "float16"}
    config = {
        "architectures": ["Blip2ForConditionalGeneration"],
        "image_text_hidden_size": 256,
        "image_token_index": ids["<image>"],
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "model_type": "blip-2",
        "num_query_tokens": 8,
        "qformer_config": {**WIDTH, "encoder_hidden_size": 32, "model_type": "blip_2_qformer", "vocab_size": 60},
        "text_config": {**language, "prefix": "</s>", "activation_function": "relu", "do_layer_norm_before": True},
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_decoder_only_language_model": True,
        "vision_config": {**TOWER, "image_size": 28, "model_type": "blip_2_vision_model", "qkv_bias": True},
    }
    write_weights(folder, config, {}, ("language_model.lm_head.weight",))
    square = {"size": {"height": 28, "width": 28}}
    write_images(folder, "BlipImageProcessor", "Blip2Processor", CLIP_MEAN, CLIP_STD, **square)
    write_json(folder / "processor_config.json", {"num_query_tokens": 8, "processor_class": "Blip2Processor"})
    generation = {"_from_model_config": True, "bos_token_id": 2, "eos_token_id": ids["Ċ"], "pad_token_id": 1}
    write_json(folder / "generation_config.json", generation)


MAKERS: dict[str, Maker] = {
    "llava": llava,
    "llava_13b": llava,
    "llava_med_hf": partial(llava, text_model="mistral", complete=False),
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "blip2_opt": blip2_opt,
}
