"""Releases of MedCLIP, PMC-CLIP and CONCH in small: pickled weights of codes that no longer install."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from releases import Maker, common

WIDTH, DIM = 32, 16
# How transformers 4 named what 5 renamed, in Swin.
SWIN_NAMES = {
    ".attention.q_proj.": ".attention.self.query.",
    ".attention.k_proj.": ".attention.self.key.",
    ".attention.v_proj.": ".attention.self.value.",
    ".attention.o_proj.": ".attention.output.dense.",
    ".attention.relative_position_bias.": ".attention.self.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}


def medclip(folder: Path) -> None:
    """Write MedCLIP with its Swin tower."""
    from transformers import SwinConfig, SwinModel

    sizes: dict[str, Any] = {"embed_dim": 8, "depths": [2, 1, 1, 1], "num_heads": [1, 2, 2, 4]}
    state = SwinModel(SwinConfig(**sizes)).state_dict()
    swin = {_old_name(name): value for name, value in state.items() if not name.endswith("relative_position_index")}
    for name in [name for name in swin if name.endswith("bias_table")]:
        swin[name.replace("bias_table", "index")] = _relative_positions(window=7)
    vision = {f"model.{name}": value for name, value in swin.items()}
    _write_medclip({**vision, "projection_head.weight": torch.empty(DIM, 64)}, folder)


def medclip_resnet(folder: Path) -> None:
    """Write MedCLIP with its ResNet tower."""
    from torchvision.models.resnet import Bottleneck, ResNet

    tower = ResNet(Bottleneck, [1, 1, 1, 1], width_per_group=4)
    tower.fc = nn.Linear(tower.fc.in_features, DIM, bias=False)
    _write_medclip({f"model.{name}": value for name, value in tower.state_dict().items()}, folder)


def pmc_clip(folder: Path) -> None:
    """Write the three files of the original PMC-CLIP."""
    from open_clip.modified_resnet import ModifiedResNet

    tower = ModifiedResNet([1, 1, 1, 1], output_dim=WIDTH, heads=8, image_size=64, width=8)
    main = folder / "main"
    common.save_pickled(_filled(tower.state_dict()), main / "image_encoder(resnet50).pth")
    common.save_pickled(_filled(_bert(folder / "text")), main / "text_encoder.pth")
    projection = common.fill({"text_projection": torch.empty(WIDTH, WIDTH)}, scale=0.2)["text_projection"]
    torch.save(nn.Parameter(projection), main / "text_projection_layer.pth")


def conch(folder: Path) -> None:
    """Write CONCH's contrastive and captioning weights, as far as they are released, and its tokenizer."""
    from open_clip.transformer import AttentionalPooler, TextTransformer
    from timm.models.vision_transformer import VisionTransformer

    width, dim = 128, 64
    tokenizer = folder / "tokenizer" / "conch_byte_level_bpe_uncased.json"
    size = _write_conch_tokenizer(tokenizer)
    trunk = VisionTransformer(img_size=64, num_classes=0, embed_dim=width, depth=2, num_heads=width // 64)
    # 127 tokens and the class token that is put behind them.
    text = TextTransformer(127, size, width, heads=width // 64, layers=2, output_dim=dim, embed_cls=True)
    visual: dict[str, nn.Module] = {
        "trunk": trunk,
        "attn_pool_contrast": AttentionalPooler(dim, width, n_queries=1),
        "ln_contrast": nn.LayerNorm(dim),
        "attn_pool_caption": AttentionalPooler(width, width, n_queries=4),
        "ln_caption": nn.LayerNorm(width),
    }
    state = {f"visual.{part}.{name}": v for part, module in visual.items() for name, v in module.state_dict().items()}
    state["visual.proj_contrast"] = torch.empty(dim, dim)
    state |= {f"text.{name}": value for name, value in text.state_dict().items()}
    filled = _filled(state) | {"logit_scale": torch.tensor(4.0)}
    common.save_pickled(filled, folder / "main" / "pytorch_model.bin")


def _old_name(name: str) -> str:
    for new, old in SWIN_NAMES.items():
        name = name.replace(new, old)
    return name


def _relative_positions(window: int) -> Tensor:
    """Return Swin's index (window^2, window^2) into the table of biases, which old releases hold as a buffer."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()])
    offsets = places[:, :, None] - places[:, None, :] + window - 1
    return offsets[0] * (2 * window - 1) + offsets[1]


def _bert(folder: Path) -> dict[str, Tensor]:
    """Write `config.json` and `vocab.txt` of a BERT of 2019 into `folder`; returns its weights, old buffer included."""
    from transformers import BertConfig, BertModel

    settings = {
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "model_type": "bert",
        "num_attention_heads": 2,
        "num_hidden_layers": 4,
        "type_vocab_size": 2,
        "vocab_size": common.write_bert_tokenizer(folder),
    }
    (folder / "tokenizer_config.json").unlink()
    common.write_json(folder / "config.json", settings)
    state = BertModel(BertConfig(**settings)).state_dict()
    return {**state, "embeddings.position_ids": torch.arange(128)[None]}


def _write_medclip(vision: Mapping[str, Tensor], folder: Path) -> None:
    state = {f"vision_model.{name}": value for name, value in vision.items()}
    state |= {f"text_model.model.{name}": value for name, value in _bert(folder / "text").items()}
    state["text_model.projection_head.weight"] = torch.empty(DIM, WIDTH)
    filled = _filled(state) | {"logit_scale": torch.tensor(2.8)}
    common.save_pickled(filled, folder / "main" / "pytorch_model.bin")


def _filled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return seeded weights that keep signals of order one: variances positive, convolutions by their fan-in."""
    filled = common.fill(state, scale=0.2)
    for name, value in filled.items():
        if name.endswith("running_var"):
            filled[name] = value.abs() + 0.5
        elif value.ndim == 4:
            filled[name] = value * 5 / value[0].numel() ** 0.5
    return filled


def _write_conch_tokenizer(path: Path) -> int:
    """Write one file: byte-level BPE, lower case, the special tokens first; returns the vocabulary's size."""
    special = ["<pad>", "<start_of_text>", "<end_of_text>", "<|person|>", "<|mrn|>", "<|specimen_id|>", "<|date|>"]
    vocab, merges = common.byte_bpe()
    ids = {word: number for number, word in enumerate([*special, *sorted(vocab, key=vocab.__getitem__)])}
    lower = {"type": "Sequence", "normalizers": [{"type": kind} for kind in ("NFD", "StripAccents", "Lowercase")]}
    marks = {word: {"id": word, "ids": [ids[word]], "tokens": [word]} for word in special[1:3]}
    sides = [{"SpecialToken": {"id": word, "type_id": 0}} for word in special[1:3]]
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    value = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[word], "content": word, **flags, "special": True} for word in special],
        "normalizer": lower,
        "pre_tokenizer": bytes_,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [sides[0], sequence, sides[1]],
            "pair": [sequence, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": marks,
        },
        "decoder": bytes_,
        "model": {"type": "BPE", "vocab": ids, "merges": merges},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return len(ids)


MAKERS: dict[str, Maker] = {
    "medclip": medclip,
    "medclip_resnet": medclip_resnet,
    "pmc_clip": pmc_clip,
    "conch": conch,
}
