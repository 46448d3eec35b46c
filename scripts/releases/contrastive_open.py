"""Dual encoders released in open_clip's format: BiomedCLIP, QuiltNet, PMC ViT-L/14, BMC-CLIP."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP, CustomTextCLIP
from safetensors.torch import save_file

from releases import Maker
from releases.common import fill, save_pickled, wordpiece, write_bert_tokenizer, write_json

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
BERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"


def biomedclip(folder: Path) -> None:
    """Write BiomedCLIP: a timm trunk and a BERT whose configuration is in a repository of its own.

    The trunk is timm's smallest, in place of `vit_base_patch16_224`; its sizes are not in the checkpoint's file.
    """
    main, text = folder / "main", folder / "text"
    size = write_bert_tokenizer(main)
    wordpiece().save(str(main / "tokenizer.json"))
    heads = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    bert = {"architectures": ["BertForMaskedLM"], "model_type": "bert", **heads, "vocab_size": size}
    rest = {"max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0, "hidden_act": "gelu"}
    write_json(text / "config.json", {**bert, **rest, "layer_norm_eps": 1e-12, "transformers_version": "4.5.0"})
    cfg: dict[str, Any] = {
        "embed_dim": 8,
        "vision_cfg": {
            **{"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear"},
            "image_size": 160,
        },
        "text_cfg": {
            **{"hf_model_name": BERT, "hf_tokenizer_name": BERT, "hf_proj_type": "mlp"},
            **{"hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 256},
        },
    }
    here = {**cfg["text_cfg"], "hf_model_name": str(text), "hf_model_pretrained": False}
    state = fill(CustomTextCLIP(**{**cfg, "text_cfg": here}).state_dict())
    state |= {"logit_scale": torch.tensor(4.4454)}
    state["text.transformer.embeddings.position_ids"] = torch.arange(512)[None]
    write_json(main / "open_clip_config.json", {"model_cfg": cfg, "preprocess_cfg": {"mean": MEAN, "std": STD}})
    save_pickled(state, main / "open_clip_pytorch_model.bin")


def _vit(folder: Path, *, patch: int, weights: str = "open_clip_pytorch_model.bin", distributed: bool = False) -> None:
    """Write a CLIP of open_clip's own towers, with the vocabulary of open_clip's own tokenizer.

    BMC-CLIP's release is one file that training left, of the architecture ViT-L-14 by name; a small one of that name
    does not exist, so that its sizes are written beside it.

    Args:
        folder: Where to.
        patch: Side of a patch in pixels.
        weights: Name of the file.
        distributed: Whether the file is a training checkpoint, its names as data-parallel training leaves them.
    """
    main = folder / "main"
    vision = {"image_size": 2 * patch, "layers": 2, "width": 16, "head_width": 8, "patch_size": patch}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    cfg: dict[str, Any] = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    state = fill(CLIP(**cfg).state_dict())
    state |= {"logit_scale": torch.tensor(4.6052)}
    write_json(main / "open_clip_config.json", {"model_cfg": cfg, "preprocess_cfg": {"mean": MEAN, "std": STD}})
    if distributed:
        trained = {f"module.{name}": value for name, value in state.items()}
        torch.save({"epoch": 1, "name": "small", "state_dict": trained}, main / weights)
    elif weights.endswith(".safetensors"):
        save_file(state, main / weights)
    else:
        save_pickled(state, main / weights)


MAKERS: dict[str, Maker] = {
    "biomedclip": biomedclip,
    "quiltnet": functools.partial(_vit, patch=32),
    "quiltnet_b16": functools.partial(_vit, patch=16),
    "pmc_clip_vit_l14": functools.partial(_vit, patch=14, weights="open_clip_model.safetensors"),
    "bmc_clip": functools.partial(_vit, patch=14, weights="BMC_CLIP_CF.pt", distributed=True),
}
