"""Checkpoints in the formats that the hub holds, the older ones included, load and compute what the new ones do."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from conftest import SMALL
from PIL import Image
from releases import makers
from safetensors.torch import save_file

from vlmbench.backbones.base import Turn
from vlmbench.backbones.loaders import load
from vlmbench.weights.locate import content_digest, locate
from vlmbench.weights.processor import complete_processor
from vlmbench.weights.source import ASSETS, Source


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 120, 3), dtype=np.uint8))


def write(path, value):
    path.write_text(json.dumps(value))


def released_clip(folder):
    """Write tiny_clip as CLIP was released: pickled half weights with position ids, vocabulary and merges apart."""
    source = ASSETS / "tiny_clip"
    state = load("hf_clip", str(source), dtype=torch.float32).model.state_dict()
    state = {name: value.half() for name, value in state.items()}
    state["vision_model.embeddings.position_ids"] = torch.arange(65)[None]
    state["text_model.embeddings.position_ids"] = torch.arange(64)[None]
    torch.save(state, folder / "pytorch_model.bin")
    config = json.loads((source / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in ("transformers_version", "dtype")}
    write(folder / "config.json", {**config, "torch_dtype": "float32"})
    bpe = json.loads((source / "tokenizer.json").read_text())["model"]
    write(folder / "vocab.json", bpe["vocab"])
    merges = [row if isinstance(row, str) else " ".join(row) for row in bpe["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    special = {
        "bos_token": "<|startoftext|>",
        **dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>"),
    }
    write(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 64, "do_lower_case": True}
    write(folder / "tokenizer_config.json", {**special, **settings})
    images = json.loads((source / "processor_config.json").read_text())["image_processor"]
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 64, "crop_size": 64, "resample": 3}
    flags = dict.fromkeys(("do_resize", "do_center_crop", "do_normalize"), True)
    constants = {key: images[key] for key in ("image_mean", "image_std")}
    write(folder / "preprocessor_config.json", {**old, **flags, **constants})


def released_llava(folder):
    """Write tiny_llava as LLaVA's conversions are: sharded, the older key names, template and processors apart."""
    source = ASSETS / "tiny_llava"
    renamed = {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "lm_head.": "language_model.lm_head.",
    }
    state = {}
    for name, value in load("hf_vlm", str(source), dtype=torch.float32).model.state_dict().items():
        (new,) = (name.replace(old, to, 1) for old, to in renamed.items() if name.startswith(old))
        state[new] = value.contiguous().clone()
    index: dict[str, str] = {}
    for number, names in enumerate(np.array_split(sorted(state), 2), start=1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file({str(name): state[name] for name in names}, folder / shard, metadata={"format": "pt"})
        index |= {str(name): shard for name in names}
    write(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": index})
    config = json.loads((source / "config.json").read_text())
    gone = ("transformers_version", "dtype", "image_seq_length")
    write(folder / "config.json", {key: value for key, value in config.items() if key not in gone})
    processor = json.loads((source / "processor_config.json").read_text())
    images = processor.pop("image_processor")
    write(folder / "preprocessor_config.json", {**images, "processor_class": "LlavaProcessor"})
    write(folder / "processor_config.json", {"processor_class": "LlavaProcessor", "image_token": "<image>"})
    template = (source / "chat_template.jinja").read_text()
    write(folder / "chat_template.json", {"chat_template": template})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)


def test_clip_as_it_was_released(tmp_path, image):
    released_clip(tmp_path)
    new = load("hf_clip", str(ASSETS / "tiny_clip"), dtype=torch.float32).eval()
    old = load("hf_clip", locate(Source(str(tmp_path))), dtype=torch.float32).eval()
    tokens = [model.tokenize(["a photo of a nodule", "consolidation on a chest radiograph"]) for model in (new, old)]
    for name, value in tokens[0].items():
        assert torch.equal(value, tokens[1][name])
    pixels = new.preprocess(image)
    assert torch.equal(pixels, old.preprocess(image))
    with torch.no_grad():
        assert torch.equal(new.encode_image(pixels[None]), old.encode_image(pixels[None]))
        assert torch.equal(new.encode_text(tokens[0]), old.encode_text(tokens[1]))
    before = content_digest(Source(str(tmp_path)), str(tmp_path))
    with (tmp_path / "merges.txt").open("a") as merges:
        merges.write("\n")
    assert content_digest(Source(str(tmp_path)), str(tmp_path)) != before


def test_llava_as_its_conversions_are(tmp_path, image):
    released_llava(tmp_path)
    new = load("hf_vlm", str(ASSETS / "tiny_llava"), dtype=torch.float32).eval()
    old = load("hf_vlm", str(tmp_path), dtype=torch.float32).eval()
    pixels = new.preprocess(image)
    assert torch.equal(pixels.tensors["pixel_values"], old.preprocess(image).tensors["pixel_values"])
    assert pixels.tokens == old.preprocess(image).tokens == 64
    asked = [Turn(pixels, "is there a nodule?", "yes"), Turn(pixels, "on which side is it?", "left")]
    ours, theirs = new.collate(asked, supervise=True), old.collate(asked, supervise=True)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    with torch.no_grad():
        assert torch.equal(new.forward(ours)[1], old.forward(theirs)[1])


@pytest.mark.parametrize(("tower", "strategy", "expected"), [
    ("clip_vision_model", "default", 64),
    ("clip_vision_model", "full", 65),
    ("siglip_vision_model", "full", 64),
])  # fmt: skip
def test_the_image_takes_as_many_tokens_as_the_tower_gives(image, tower, strategy, expected):
    backbone = load("hf_vlm", str(ASSETS / "tiny_llava"), dtype=torch.float32)
    backbone.config.vision_config.model_type = tower
    backbone.config.vision_feature_select_strategy = strategy
    complete_processor(backbone.processor, backbone.config)
    assert backbone.preprocess(image).tokens == expected


@pytest.mark.parametrize(("like", "loader", "words"), [
    ("tiny_llava", "hf_clip", "would stay random"),
    ("tiny_clip", "hf_vlm", "cannot read"),
    ("tiny_clip", "llava_original", "mlp2x_gelu"),
])  # fmt: skip
def test_another_models_checkpoint_is_one_line(train, tmp_path, like, loader, words):
    kind = "generative" if loader in ("hf_vlm", "llava_original") else "contrastive"
    task = "  - override /task@_global_.task: vqa\n  - _self_\n" if kind == "generative" else ""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "wrong.yaml").write_text(
        f"# A mistake. Used by: train\ndefaults:\n  - /schema/model/{kind}@_here_\n{task}name: wrong\n"
        f"loader: {loader}\nsource: package:{like}\nrole: generalist\n"
    )
    own = ("--config-dir", str(tmp_path / "conf"), "model=wrong", "finetune=zero_shot")
    ran = train(*own, *SMALL, small=False)
    assert ran.status == 1
    assert words in ran.record["error"]["message"]
    assert "\n" not in ran.record["error"]["message"]
    assert ran.record["error"]["mendable"]


def test_a_pickle_that_holds_code_is_one_line_and_is_not_run(train, tmp_path):
    makers()["medclip"](tmp_path)
    (tmp_path / "main" / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
    ran = train(
        "model=medclip",
        f"model.source={tmp_path / 'main'}",
        f"model.companions.text.source={tmp_path / 'text'}",
        "finetune=zero_shot",
    )
    assert ran.status == 1
    assert "Nothing in it was executed" in ran.record["error"]["message"]
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))
