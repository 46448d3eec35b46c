"""MedCLIP, PMC-CLIP and CONCH against what their original code computes on the same small checkpoints.

The originals' outputs are in `golden/`, each file with how it was made.
"""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from releases import common, conversions_contrastive
from torch.nn import functional

from vlmbench.backbones.loaders import load
from vlmbench.config.store import conf_dir
from vlmbench.tuning.lora import targeted
from vlmbench.tuning.parameters import part_of, without_gradient
from vlmbench.tuning.tuners import Full, Lora
from vlmbench.weights.release import CheckpointError

NAMES = ("medclip", "medclip_resnet", "pmc_clip", "conch")
TOLERANCE = 1e-4
IMAGES = (common.sample_image(), common.sample_image(96, 120))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Write the small release of each model once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            conversions_contrastive.MAKERS[name](made[name])
        return made[name]

    return folder


@pytest.fixture
def backbone(folders):
    """Load a small release as the model's YAML says."""

    def make(name: str, folder: Path | None = None, dtype: torch.dtype = torch.float32, **settings):
        model: Any = OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")
        companions = {companion: str(folders(name) / companion) for companion in model.companions}
        settings = {**model.get("settings", {}), **settings}
        folder = folder or folders(name) / "main"
        return load(model.loader, str(folder), dtype=dtype, companions=companions, **settings).eval()

    return make


def golden(name):
    return json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text())


def outputs(model, texts):
    """Return normalised embeddings of the images and texts, with gradients."""
    pixels = torch.stack([model.preprocess(image) for image in IMAGES])
    embeddings = model.encode_image(pixels), model.encode_text(model.tokenize(texts))
    return [functional.normalize(value, dim=-1) for value in embeddings]


def difference(ours, theirs):
    return float((ours.detach() - torch.tensor(theirs)).abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_the_original_computes_the_same(backbone, name, record_property):
    model, expected = backbone(name), golden(name)
    pixels = torch.stack([model.preprocess(image) for image in IMAGES])
    step = expected["pixels"]["step"]
    assert list(pixels.shape) == expected["pixels"]["shape"]
    assert difference(pixels[0, 0, ::step, ::step], expected["pixels"]["values"]) < 1e-6
    assert float(pixels.double().mean()) == pytest.approx(expected["pixels"]["mean"], abs=1e-6)
    ids = next(iter(model.tokenize(expected["texts"]).values()))
    assert ids.tolist() == expected["ids"]
    image, text = outputs(model, expected["texts"])
    ours = {"image": image, "text": text, "logits": model.logit_scale * image @ text.T}
    for key, value in ours.items():
        record_property(key, difference(value, expected[key]))
        assert difference(value, expected[key]) < TOLERANCE, key


@pytest.mark.parametrize(
    ("name", "settings", "image", "text"),
    [
        ("pmc_clip", {"heads": 8}, "image_heads_8", "text"),
        ("pmc_clip", {"pooler": True}, "image", "text_pooler"),
    ],
)
def test_what_the_demonstration_of_pmc_clip_does_is_a_setting(backbone, name, settings, image, text):
    expected = golden(name)
    for ours, key in zip(outputs(backbone(name, **settings), expected["texts"]), (image, text), strict=True):
        assert difference(ours, expected[key]) < TOLERANCE, key
    assert difference(torch.tensor(expected["image"]), expected["image_heads_8"]) > 0.01
    assert difference(torch.tensor(expected["text"]), expected["text_pooler"]) > 0.01


@pytest.mark.parametrize("name", ["medclip", "medclip_resnet"])
def test_medclip_without_padding_is_the_original_on_one_text_alone(backbone, name):
    expected = golden(name)
    _, text = outputs(backbone(name, count_padding=False), expected["texts"])
    assert difference(text[1:], expected["text_alone"]) < TOLERANCE
    assert difference(text[1], expected["text"][1]) > 0.01


def test_conch_gives_a_probe_the_features_before_the_projection(backbone):
    model = backbone("conch")
    pixels = torch.stack([model.preprocess(image) for image in IMAGES])
    assert model.features(pixels).shape[1] == model.feature_dim
    assert difference(model.features(pixels), golden("conch")["features"]) < TOLERANCE
    Full("vision").apply(model)
    model.features(pixels).square().sum().backward()
    assert without_gradient(model.model.named_parameters()) == {}


def test_medclip_sees_a_grey_image_as_its_file_has_it(backbone):
    grey = IMAGES[0].convert("L")
    pixels = backbone("medclip").preprocess(grey.convert("RGB"))
    square = np.asarray(grey.resize(grey.size), dtype=np.float64).mean() / 255
    inside = pixels[:, 64:160, 52:172].double()  # 96 x 120 in the middle of 224 x 224, not resized
    assert float(inside.mean()) * 0.27950088968644304 + 0.5862785803043838 == pytest.approx(square, abs=1e-6)
    assert torch.equal(pixels[0], pixels[2])


@pytest.mark.parametrize("scope", ["vision", "text", "vision+text"])
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("name", NAMES)
def test_every_trainable_tensor_is_reached_and_comes_back(backbone, tmp_path, name, method, scope):
    tuner = Lora(scope, rank=2, alpha=4.0, dropout=0.0) if method == "lora" else Full(scope)
    model, texts = backbone(name), golden(name)["texts"]
    before = [value.detach() for value in outputs(model, texts)]
    tuner.apply(model)
    trained = [parameter for parameter in model.model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=0.05)
    # Not in training mode: Swin's stochastic depth can skip a block for both images.
    for _ in range(2):  # half of every LoRA pair has no gradient in the first step
        optimiser.zero_grad()
        image, text = outputs(model, texts)
        logits = model.logit_scale * image @ text.T
        functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
        faults = without_gradient(model.model.named_parameters())
        optimiser.step()
    assert faults == {}
    parts = {part_of(n, model.part_prefixes) for n, p in model.model.named_parameters() if p.requires_grad}
    assert parts - {"connector", "head"} == set(scope.split("+"))
    tuner.save(model, tmp_path)
    with torch.no_grad():
        after = outputs(model.eval(), texts)
    changed = [not torch.allclose(new, old, atol=1e-6) for new, old in zip(after, before, strict=True)]
    assert changed == ["vision" in scope, "text" in scope]
    fresh = backbone(name)
    tuner.load(fresh, tmp_path)
    with torch.no_grad():
        restored = outputs(fresh.eval(), texts)
    for value, again in zip(after, restored, strict=True):
        assert torch.allclose(value, again, atol=1e-6)


def test_lora_in_a_residual_network_adapts_its_convolutions(backbone):
    for name, tower in (("medclip_resnet", "vision_model.model"), ("pmc_clip", "image_encoder")):
        model = backbone(name)
        Lora("vision", rank=2, alpha=4.0, dropout=0.0).apply(model)
        places = targeted(model.model)
        assert len(places) == 16  # three convolutions and a shortcut in each of four blocks
        assert all(place.startswith(f"{tower}.layer") for place in places)


def test_training_leaves_the_statistics_of_batch_norms(backbone):
    for name in ("medclip_resnet", "pmc_clip"):
        model = backbone(name)
        before = {key: value.clone() for key, value in model.model.named_buffers()}
        outputs(model.train(), golden(name)["texts"])
        assert any(module.training for module in model.model.modules())
        for key, value in model.model.named_buffers():
            assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_weights_give_nearly_the_same(backbone, name):
    texts = golden(name)["texts"]
    whole, half = outputs(backbone(name), texts), outputs(backbone(name, dtype=torch.bfloat16), texts)
    for value, other in zip(whole, half, strict=True):
        assert other.dtype == torch.bfloat16
        assert float((value * other.float()).sum(-1).detach().min()) > 0.98


@pytest.mark.parametrize("name", NAMES)
def test_a_text_that_is_too_long_is_refused(backbone, name):
    with pytest.raises(ValueError, match="exceed the text tower's"):
        backbone(name).tokenize(["a photo of a nodule " * 40])


@pytest.mark.parametrize("change", [lambda state: {"state_dict": state}, lambda state: dict(list(state.items())[:-5])])
@pytest.mark.parametrize("name", NAMES)
def test_other_weights_are_refused_in_one_line(folders, backbone, tmp_path, name, change):
    for source in (folders(name) / "main").iterdir():
        state = torch.load(source, weights_only=True)
        torch.save(state if torch.is_tensor(state) else change(state), tmp_path / source.name)
    with pytest.raises(CheckpointError, match="is not the release that this loader reads") as error:
        backbone(name, tmp_path)
    assert "\n" not in str(error.value)


def full_size(name):
    """Return names and shapes of a release in its real size, from the published sizes of its towers."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import AttentionalPooler, TextTransformer
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn
    from torchvision.models import resnet50
    from transformers import BertConfig, BertModel, SwinConfig, SwinModel

    text = BertConfig(vocab_size=30522 if name == "pmc_clip" else 28996)
    with torch.device("meta"):
        if name == "conch":
            visual = nn.Module()
            visual.trunk = VisionTransformer(img_size=448, num_classes=0)
            visual.attn_pool_contrast = AttentionalPooler(512, 768, n_queries=1)
            visual.ln_contrast = nn.LayerNorm(512)
            visual.proj_contrast = nn.Parameter(torch.empty(512, 512))
            towers = {"visual": visual, "text": TextTransformer(127, 32007, 768, heads=12, embed_cls=True)}
        else:
            bert = SimpleNamespace(model=BertModel(text), projection_head=nn.Linear(768, 512, bias=False))
        if name == "pmc_clip":
            towers = {"image": ModifiedResNet([3, 4, 6, 3], 768, heads=32), "text": bert.model}
        if name.startswith("medclip"):
            towers = {"text_model": nn.ModuleDict(vars(bert))}
            swin = nn.ModuleDict({"model": SwinModel(SwinConfig()), "projection_head": nn.Linear(768, 512, bias=False)})
            resnet = resnet50()
            resnet.fc = nn.Linear(2048, 512, bias=False)
            towers["vision_model"] = swin if name == "medclip" else nn.ModuleDict({"model": resnet})
    shapes = {tower: {n: v.shape for n, v in module.state_dict().items()} for tower, module in towers.items()}
    return shapes, text


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("medclip", 136.62),  # the study's table of models
        # torchvision counts 25,557,032 in its ResNet-50, 2,049,000 of them in the layer that is exchanged
        ("medclip_resnet", (25_557_032 - 2_049_000 + 2048 * 512 + 108_310_272 + 768 * 512 + 1) / 1e6),
        # open_clip's table of models (docs/model_profile.csv, RN50): 38.32 M with 1,024 outputs instead of 768
        ("pmc_clip", 38.3169 - 256 * 2049 / 1e6 + 109.4822 + 768 * 768 / 1e6),
        # timm's ViT-B/16 without a head and 588 more positions at 448 pixels; pool and projection; twelve layers of
        # GPT-2's width (7,087,872 each) over 32,007 words, with what stands before and behind them
        ("conch", (85_798_656 + 588 * 768 + 1_578_496 + 12 * 7_087_872 + (32_007 + 128 + 3 + 512) * 768) / 1e6),
    ],
)
def test_the_real_sizes_are_read_from_the_weights(monkeypatch, folders, tmp_path, name, count):
    """The loader gets weights of the real shapes that take no memory: one zero, seen many times."""
    shapes, text = full_size(name)
    seen = {tower: {n: torch.zeros(()).expand(shape) for n, shape in part.items()} for tower, part in shapes.items()}
    whole = {f"{tower}.{n}": value for tower, part in seen.items() for n, value in part.items()}
    whole["logit_scale"] = torch.zeros(())
    by_file = {
        "image_encoder(resnet50).pth": seen.get("image"),
        "text_encoder.pth": seen.get("text"),
        "text_projection_layer.pth": torch.zeros(()).expand(768, 768),
    }
    module = importlib.import_module(f"vlmbench.backbones.contrastive.{name.removesuffix('_resnet')}")
    monkeypatch.setattr(module, "unpickled", lambda path, *_: by_file.get(path.name, whole))
    common.write_bert_tokenizer(tmp_path)
    text.save_pretrained(tmp_path)
    model = OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")
    companion = folders(name) / "tokenizer" if name == "conch" else tmp_path
    companions = dict.fromkeys(model.companions, str(companion))
    loaded = load(model.loader, str(tmp_path), dtype=torch.float32, companions=companions)
    parts: dict[str, int] = {}
    for key, parameter in loaded.model.named_parameters():
        part = part_of(key, loaded.part_prefixes)
        parts[part] = parts.get(part, 0) + parameter.numel()
    assert sum(parts.values()) / 1e6 == pytest.approx(count, abs=0.005)
    assert {part: round(n / 1e6, 2) for part, n in parts.items() if part != "head"} == dict(model.parameters)
    assert loaded.preprocess(IMAGES[0]).shape == (3, model.image_size, model.image_size)


@pytest.mark.parametrize(
    ("name", "finetune"),
    [("medclip", "lora"), ("medclip_resnet", "lora"), ("pmc_clip", "linear_probe"), ("conch", "full")],
)
def test_a_cell_runs_from_end_to_end(train, folders, name, finetune):
    model: Any = OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")
    where = [f"model={name}", f"model.source={folders(name) / 'main'}", "domain=phantom_radiograph"]
    for companion in model.companions:
        where.append(f"model.companions.{companion}.source={folders(name) / companion}")
        where += [f"model.companions.{companion}.{pin}=null" for pin in ("revision", "sha256")]
    ran = train(*where, "model.revision=null", "model.sha256=null", f"finetune={finetune}", "trainer.max_epochs=1")
    assert ran.status == 0, ran.err
    assert ran.record["status"] == "done"
