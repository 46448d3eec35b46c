"""Releases whose weights are converted on load: LLaVA's own format, VILA's folders, XrayGPT's separate files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sentencepiece
import torch

from releases import Maker
from releases.common import byte_bpe, fill, save_pickled, save_sharded, sentencepiece_model, write_json

Shapes = dict[str, tuple[int, ...]]
SCALE = 0.1  # large enough that a wrong rotary base, epsilon or layer shows in the logits
WIDTH, MLP, LAYERS, HEADS, KV_HEADS = 32, 48, 2, 4, 2  # of every language model here
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def weights(shapes: Shapes, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return filled tensors of these shapes."""
    return fill({name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()}, SCALE)


def decoder(vocabulary: int, *, kv_heads: int = KV_HEADS, qkv_bias: bool = False) -> Shapes:
    """Return the tensors of a LLaMA, Mistral or Qwen2 language model."""
    kv = WIDTH // HEADS * kv_heads
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, WIDTH), "model.norm.weight": (WIDTH,)}
    for number in range(LAYERS):
        layer = f"model.layers.{number}."
        for name, rows in (("q", WIDTH), ("k", kv), ("v", kv), ("o", WIDTH)):
            shapes[f"{layer}self_attn.{name}_proj.weight"] = (rows, WIDTH)
            if qkv_bias and name != "o":
                shapes[f"{layer}self_attn.{name}_proj.bias"] = (rows,)
        shapes |= {f"{layer}mlp.{name}_proj.weight": (MLP, WIDTH) for name in ("gate", "up")}
        shapes[f"{layer}mlp.down_proj.weight"] = (WIDTH, MLP)
        shapes |= {f"{layer}{name}.weight": (WIDTH,) for name in ("input_layernorm", "post_attention_layernorm")}
    return shapes | {"lm_head.weight": (vocabulary, WIDTH)}


def linear(name: str, rows: int, columns: int) -> Shapes:
    """Return a Linear layer's tensors."""
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name: str, width: int) -> Shapes:
    """Return a LayerNorm's tensors."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def tower_layers(prefix: str, width: int, mlp: int, layers: int) -> Shapes:
    """Return the encoder layers of CLIP's and SigLIP's towers."""
    shapes: Shapes = {}
    for number in range(layers):
        layer = f"{prefix}encoder.layers.{number}."
        for name in ("q", "k", "v", "out"):
            shapes |= linear(f"{layer}self_attn.{name}_proj", width, width)
        shapes |= linear(f"{layer}mlp.fc1", mlp, width) | linear(f"{layer}mlp.fc2", width, mlp)
        shapes |= norm(f"{layer}layer_norm1", width) | norm(f"{layer}layer_norm2", width)
    return shapes


def clip_tower(prefix: str, width: int = 128, mlp: int = 96, layers: int = 3, patches: int = 16) -> Shapes:
    """Return the tensors of CLIP's vision tower; heads are 64 wide in all of them."""
    return {
        f"{prefix}embeddings.class_embedding": (width,),
        f"{prefix}embeddings.patch_embedding.weight": (width, 3, 14, 14),
        f"{prefix}embeddings.position_embedding.weight": (patches + 1, width),
        **norm(f"{prefix}pre_layrnorm", width),
        **tower_layers(prefix, width, mlp, layers),
        **norm(f"{prefix}post_layernorm", width),
    }


def decoder_config(model_type: str, architecture: str, **more: Any) -> dict[str, Any]:
    """Return the fields that the configurations of LLaMA, Mistral and Qwen2 share."""
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": True,
        **more,
    }


def llava_fields(tower: str, width: int = 128) -> dict[str, Any]:
    """Return what LLaVA's code adds to a language model's configuration."""
    return {
        "image_aspect_ratio": "pad",
        "mm_hidden_size": width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": tower,
        "tokenizer_model_max_length": 2048,
        "tokenizer_padding_side": "right",
        "unfreeze_mm_vision_tower": True,
        "use_mm_proj": True,
    }


def write_llama_tokenizer(folder: Path, **more: Any) -> int:
    """Write `tokenizer.model` and its settings as LLaMA and Mistral have them; returns the vocabulary's size."""
    # LLaMA's model changes no character: line breaks and repeated spaces reach the vocabulary as they are.
    sentencepiece_model(folder / "tokenizer.model", normalization_rule_name="identity", remove_extra_whitespaces=False)
    settings = {"add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False, "legacy": True}
    write_json(
        folder / "tokenizer_config.json",
        {**SPECIAL, **settings, "model_max_length": 2048, "tokenizer_class": "LlamaTokenizer", **more},
    )
    write_json(folder / "special_tokens_map.json", {**SPECIAL, **more})
    return int(sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).vocab_size())


def byte_tokenizer(special: tuple[str, ...]) -> tuple[dict[str, Any], int]:
    """Return `tokenizer.json` of a byte-level BPE with special tokens after its words, and its size."""
    vocab, merges = byte_bpe()
    added = [
        {"id": len(vocab) + n, "content": token, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for n, token in enumerate(special)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": False, "ignore_merges": False}
    parts = {"normalizer": None, "pre_tokenizer": level, "post_processor": level, "decoder": level, "model": model}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **parts}, len(vocab) + len(
        special
    )


def write_preprocessor(folder: Path, size: int) -> None:
    """Write `preprocessor_config.json` as CLIP's towers have it."""
    constants = {
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": size,
        "crop_size": size,
    }
    flags = dict.fromkeys(("do_resize", "do_center_crop", "do_normalize"), True)
    write_json(
        folder / "preprocessor_config.json", {"feature_extractor_type": "CLIPFeatureExtractor", **flags, **constants}
    )


def llava_med(folder: Path) -> None:
    """Write LLaVA-Med v1.5: Mistral, the tower's weights among the model's, a slow tokenizer's files alone."""
    main = folder / "main"
    vocabulary = write_llama_tokenizer(main, pad_token="<unk>")
    config = decoder_config("llava_mistral", "LlavaMistralForCausalLM", vocab_size=vocabulary, sliding_window=None)
    config |= {"rope_theta": 1000000.0, "bos_token_id": 1, "eos_token_id": 2, "transformers_version": "4.36.2"}
    write_json(main / "config.json", config | llava_fields("openai/clip-vit-large-patch14-336"))
    write_json(main / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    projector = linear("model.mm_projector.0", WIDTH, 128) | linear("model.mm_projector.2", WIDTH, WIDTH)
    tower = clip_tower("model.vision_tower.vision_tower.vision_model.")
    save_sharded(weights(decoder(vocabulary) | projector | tower), main)


def llava_vicuna(folder: Path) -> None:
    """Write LLaVA-1.5 7B as its owners did: Vicuna, pickled shards, the tower in OpenAI's own repository."""
    main, tower = folder / "main", folder / "tower"
    vocabulary = write_llama_tokenizer(main, pad_token="<unk>")
    config = decoder_config("llava", "LlavaLlamaForCausalLM", vocab_size=vocabulary, num_key_value_heads=HEADS)
    config |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "transformers_version": "4.31.0"}
    fields = llava_fields("openai/clip-vit-large-patch14-336") | {"unfreeze_mm_vision_tower": False}
    write_json(main / "config.json", config | fields)
    projector = linear("model.mm_projector.0", WIDTH, 128) | linear("model.mm_projector.2", WIDTH, WIDTH)
    save_pickled_shards(weights(decoder(vocabulary, kv_heads=HEADS) | projector), main)
    write_clip(tower)


def write_clip(folder: Path) -> None:
    """Write a CLIP as OpenAI's repositories hold it; its text half is left out, no vision tower reads it."""
    vision: dict[str, Any] = {
        "hidden_size": 128,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    }
    vision |= {"num_attention_heads": 2, "image_size": 56, "patch_size": 14, "projection_dim": 16}
    vision["model_type"] = "clip_vision_model"
    write_json(folder / "config.json", {"model_type": "clip", "architectures": ["CLIPModel"], "vision_config": vision})
    write_preprocessor(folder, 56)
    save_pickled(weights(clip_tower("vision_model.")), folder / "pytorch_model.bin")


def huatuogpt_vision_llava(folder: Path) -> None:
    """Write HuatuoGPT-Vision 7B: Qwen2, a byte-level tokenizer, the tower's files in a folder of the release."""
    main = folder / "main"
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer, size = byte_tokenizer(special)
    vocabulary = -(-size // 64) * 64  # the matrix has more rows than the vocabulary has words
    write_json(main / "tokenizer.json", tokenizer)
    write_json(main / "vocab.json", tokenizer["model"]["vocab"])
    merges = [" ".join(row) if isinstance(row, list) else row for row in tokenizer["model"]["merges"]]
    (main / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    added = {str(row["id"]): {key: row[key] for key in row if key != "id"} for row in tokenizer["added_tokens"]}
    settings: dict[str, Any] = {"add_prefix_space": False, "bos_token": None, "unk_token": None, "errors": "replace"}
    settings |= {"model_max_length": 32768, "tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added}
    write_json(main / "tokenizer_config.json", {**names, **settings, "additional_special_tokens": list(special[1:])})
    write_json(main / "special_tokens_map.json", {**names, "additional_special_tokens": list(special[1:])})
    tower = "vit/clip_vit_large_patch14_336"
    config = decoder_config("llava_qwen2", "LlavaQwen2ForCausalLM", vocab_size=vocabulary, rms_norm_eps=1e-06)
    config |= {"rope_theta": 1000000.0, "sliding_window": 131072, "use_sliding_window": False, "max_window_layers": 28}
    end = tokenizer["added_tokens"][0]["id"]
    config |= {"bos_token_id": end, "eos_token_id": end, "transformers_version": "4.40.0"}
    write_json(main / "config.json", config | llava_fields(tower))
    write_json(main / "generation_config.json", {"bos_token_id": end, "eos_token_id": end})
    projector = linear("model.mm_projector.0", WIDTH, 128) | linear("model.mm_projector.2", WIDTH, WIDTH)
    tensors = decoder(vocabulary, qkv_bias=True) | projector
    save_sharded(weights(tensors | clip_tower("model.vision_tower.vision_tower.vision_model.")), main)
    write_clip(main / tower)


def vila(folder: Path) -> None:
    """Write VILA1.5 with Llama-3 (and VILA-M3, the same): three folders under one configuration."""
    main, width = folder / "main", 36
    special: tuple[str, ...] = (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|start_header_id|>",
    )
    special += ("<|end_header_id|>", "<|eot_id|>")
    tokenizer, vocabulary = byte_tokenizer(special)
    first, end = (row["id"] for row in tokenizer["added_tokens"][:2])
    begin = {"SpecialToken": {"id": special[0], "type_id": 0}}
    pieces = [begin, {"Sequence": {"id": "A", "type_id": 0}}]
    second = [{name: {**value, "type_id": 1} for name, value in piece.items()} for piece in pieces]
    known = {special[0]: {"id": special[0], "ids": [first], "tokens": [special[0]]}}
    template = {"type": "TemplateProcessing", "single": pieces, "pair": pieces + second, "special_tokens": known}
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    tokenizer["post_processor"] = {"type": "Sequence", "processors": [level, template]}
    llm = main / "llm"
    write_json(llm / "tokenizer.json", tokenizer)
    names = {"bos_token": special[0], "eos_token": special[1]}
    added = {str(row["id"]): {key: row[key] for key in row if key != "id"} for row in tokenizer["added_tokens"]}
    settings = {"clean_up_tokenization_spaces": True, "model_max_length": 4096, "padding_side": "right"}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    write_json(llm / "tokenizer_config.json", {**names, **settings, "added_tokens_decoder": added})
    write_json(llm / "special_tokens_map.json", names)
    decoder_fields = decoder_config("llama", "LlamaForCausalLM", vocab_size=vocabulary, rope_theta=500000.0)
    decoder_fields |= {"bos_token_id": first, "eos_token_id": end, "attention_bias": False, "rope_scaling": None}
    write_json(llm / "config.json", decoder_fields)
    write_json(llm / "generation_config.json", {"bos_token_id": first, "eos_token_id": end})
    save_sharded(weights(decoder(vocabulary)), llm)

    vision: dict[str, Any] = {
        "architectures": ["SiglipVisionModel"],
        "model_type": "siglip_vision_model",
        "hidden_size": width,
    }
    vision |= {"hidden_act": "gelu_pytorch_tanh", "image_size": 42, "patch_size": 14, "num_attention_heads": 3}
    vision |= {"intermediate_size": 40, "layer_norm_eps": 1e-06, "num_channels": 3, "num_hidden_layers": 3}
    vision["num_attention_heads"] = 3
    write_json(main / "vision_tower" / "config.json", vision)
    constants = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "resample": 3}
    flags = dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True)
    images: dict[str, Any] = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 42, "width": 42}}
    write_json(main / "vision_tower" / "preprocessor_config.json", {**images, **flags, **constants})
    head = "vision_model.head."
    tower = {
        "vision_model.embeddings.patch_embedding.weight": (width, 3, 14, 14),
        "vision_model.embeddings.patch_embedding.bias": (width,),
        "vision_model.embeddings.position_embedding.weight": (9, width),
        **tower_layers("vision_model.", width, 40, 3),
        **norm("vision_model.post_layernorm", width),
        f"{head}probe": (1, 1, width),
        f"{head}attention.in_proj_weight": (3 * width, width),
        f"{head}attention.in_proj_bias": (3 * width,),
        **linear(f"{head}attention.out_proj", width, width),
        **norm(f"{head}layernorm", width),
        **linear(f"{head}mlp.fc1", 40, width),
        **linear(f"{head}mlp.fc2", width, 40),
    }
    save_whole(weights(tower), main / "vision_tower")

    projector = {"architectures": ["MultimodalProjector"], "model_type": "v2l_projector"}
    projector |= {"mm_projector_type": "mlp_downsample"}
    write_json(main / "mm_projector" / "config.json", projector)
    layers = norm("layers.1", 4 * width) | linear("layers.2", WIDTH, 4 * width) | linear("layers.4", WIDTH, WIDTH)
    save_whole(weights(layers), main / "mm_projector")

    fields: dict[str, Any] = {"architectures": ["LlavaLlamaModel"], "model_type": "llava_llama"}
    fields |= {"model_dtype": "torch.float32"}
    fields |= {"hidden_size": WIDTH, "mm_hidden_size": width, "image_aspect_ratio": "resize", "resume_path": "./vlm"}
    fields |= {"mm_vision_select_feature": "cls_patch", "mm_vision_select_layer": -2, "num_video_frames": 8}
    fields |= {"mm_use_im_patch_token": False, "mm_use_im_start_end": False, "vision_resolution": -1, "s2": False}
    parts = {"llm_cfg": decoder_fields, "vision_tower_cfg": vision, "mm_projector_cfg": projector}
    write_json(main / "config.json", {**fields, **parts, "transformers_version": "4.36.2"})


def xraygpt(folder: Path) -> None:
    """Write XrayGPT: a Vicuna's folder and three files, of LAVIS's tower and Q-Former and of its own projection."""
    main = folder / "main"
    vocabulary = write_llama_tokenizer(main)
    config = decoder_config("llama", "LlamaForCausalLM", vocab_size=vocabulary, rms_norm_eps=1e-06)
    del config["num_key_value_heads"]  # older than grouped queries
    config |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "transformers_version": "4.28.1"}
    write_json(main / "config.json", config)
    write_json(main / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    tensors = weights(decoder(vocabulary, kv_heads=HEADS))
    rotary = 1.0 / 10000 ** (torch.arange(0, WIDTH // HEADS, 2).float() / (WIDTH // HEADS))
    tensors |= {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": rotary for n in range(LAYERS)}
    save_pickled_shards(tensors, main)

    # The published tower has 40 blocks, of which BLIP-2 and all its descendants use 39.
    width, mlp, blocks = 88, 384, 40
    tower: Shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 5, width), "mask_token": (1, 1, width)}
    tower |= {"patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,)}
    for number in range(blocks):
        block = f"blocks.{number}."
        tower |= norm(f"{block}norm1", width) | norm(f"{block}norm2", width)
        tower |= {f"{block}attn.q_bias": (width,), f"{block}attn.v_bias": (width,)}
        tower |= {f"{block}attn.qkv.weight": (3 * width, width)} | linear(f"{block}attn.proj", width, width)
        tower |= linear(f"{block}mlp.fc1", mlp, width) | linear(f"{block}mlp.fc2", width, mlp)
    tower |= norm("norm", width)
    save_pickled(fill({k: torch.zeros(v) for k, v in tower.items()}, 0.05), folder / "vit" / "eva_vit_g.pth")

    hidden, bert_mlp, bert = 128, 160, "Qformer.bert."
    former: Shapes = {"query_tokens": (1, 32, hidden)} | norm("ln_vision", width)
    former |= norm(f"{bert}embeddings.LayerNorm", hidden)
    for number in range(3):
        layer = f"{bert}encoder.layer.{number}."
        sources = {"attention": hidden} | ({"crossattention": width} if number % 2 == 0 else {})
        for name, source in sources.items():
            former |= linear(f"{layer}{name}.self.query", hidden, hidden)
            former |= linear(f"{layer}{name}.self.key", hidden, source)
            former |= linear(f"{layer}{name}.self.value", hidden, source)
            former |= linear(f"{layer}{name}.output.dense", hidden, hidden)
            former |= norm(f"{layer}{name}.output.LayerNorm", hidden)
        former |= linear(f"{layer}intermediate_query.dense", bert_mlp, hidden)
        former |= linear(f"{layer}output_query.dense", hidden, bert_mlp)
        former |= norm(f"{layer}output_query.LayerNorm", hidden)
    former |= linear("t5_proj", 24, hidden)  # of the language model that the Q-Former was trained with
    state: dict[str, Any] = {"model": weights(former)}
    state["model"][f"{bert}embeddings.position_ids"] = torch.arange(16)[None]
    save_pickled(state, folder / "qformer" / "blip2_pretrained_flant5xxl.pth")
    projection: dict[str, Any] = {"model": weights(linear("llama_proj", WIDTH, hidden)), "epoch": 2, "scaler": None}
    projection["model"]["Qformer.bert.embeddings.position_ids"] = torch.arange(16)[None]
    save_pickled(projection, folder / "projection" / "xraygpt_pretrained1.pth")


def save_whole(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write `model.safetensors`."""
    from safetensors.torch import save_file

    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def save_pickled_shards(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write two `pytorch_model-0000i-of-00002.bin` and their index."""
    names = sorted(state)
    index: dict[str, str] = {}
    for number, chunk in enumerate((names[::2], names[1::2]), start=1):
        shard = f"pytorch_model-{number:05}-of-00002.bin"
        save_pickled({name: state[name] for name in chunk}, folder / shard)
        index |= dict.fromkeys(chunk, shard)
    size = sum(value.nbytes for value in state.values())
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": size}, "weight_map": index})


MAKERS: dict[str, Maker] = {
    "llava_med": llava_med,
    "llava15_original": llava_vicuna,
    "huatuogpt_vision_llava": huatuogpt_vision_llava,
    "vila15": vila,
    "vila_m3": vila,
    "xraygpt": xraygpt,
}
