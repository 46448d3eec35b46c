"""Every contrastive release, as a small checkpoint of its own format: loaded, equal to upstream, tuned, put back."""

import gzip
import json
import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from releases import contrastive, contrastive_open, makers
from releases.common import sample_image
from safetensors.torch import load_file
from torch.nn import functional

from vlmbench.backbones.loaders import load
from vlmbench.reporting.tables import PARTS
from vlmbench.tuning.attention import Attention
from vlmbench.tuning.heads import text_logits
from vlmbench.tuning.lora import targeted
from vlmbench.tuning.parameters import part_of, without_gradient
from vlmbench.tuning.tuners import Full, Lora
from vlmbench.weights.release import CheckpointError

MAKERS = contrastive.MAKERS | contrastive_open.MAKERS
CONF = Path(__file__).parents[1] / "conf" / "model"
GOLDEN = Path(__file__).parent / "golden" / "contrastive_tokens.json"
SCOPES = ("vision", "text", "vision+text")
PROMPTS = ["a photo of a nodule in the upper left lung", "histology of adenocarcinoma"]
TEXTS = ["A photo of a Nodule, in the upper-left lung.", "is there a pleural effusion? Yes", "glaucoma  13"]
# Which tokenizer a release has; the tokens of each are kept in the golden file.
TOKENIZERS = {
    "clip": ["clip", "clip_vit_b16", "clip_vit_l14", "plip", "pubmedclip", "monet"],
    "siglip": ["siglip", "siglip_so400m", "medsiglip"],
    "siglip2": ["siglip2", "siglip2_so400m"],
    "bert": ["blip", "blip2", "biomedclip"],
    "open_clip": ["quiltnet", "quiltnet_b16", "pmc_clip_vit_l14", "bmc_clip"],
}
KIND = {name: kind for kind, names in TOKENIZERS.items() for name in names}
FAMILIES = ["clip", "siglip", "siglip2", "blip", "blip2", "biomedclip", "quiltnet"]


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Return the folder of a release, written once."""
    written = {}

    def folder_of(name):
        if name not in written:
            written[name] = tmp_path_factory.mktemp(name)
            MAKERS[name](written[name])
        return written[name]

    return folder_of


@pytest.fixture
def loaded(releases):
    """Load a release as its YAML says, or another folder in its place."""

    def load_it(name, folder=None, dtype=torch.float32):
        config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
        companions = {key: str(releases(name) / key) for key in config.get("companions", {})}
        source = str(folder or releases(name) / "main")
        settings = config.get("settings", {})
        loader = config.get("loader", "hf_clip")
        return load(loader, source, dtype=dtype, companions={} if folder else companions, **settings).eval()

    return load_it


def batch_of(backbone):
    turned = sample_image().rotate(180)
    return torch.stack([backbone.preprocess(image) for image in (sample_image(), turned)]), backbone.tokenize(PROMPTS)


def logits_of(backbone, pixels, tokens):
    classes = functional.normalize(backbone.encode_text(tokens).float(), dim=-1)
    return text_logits(backbone.encode_image(pixels), classes, backbone.logit_scale.float())


def outputs_of(backbone, pixels, tokens):
    with torch.no_grad():
        return torch.cat([part.flatten() for part in (logits_of(backbone, pixels, tokens), backbone.features(pixels))])


def descend(backbone, loss_of):
    """Take two optimiser steps; the gradients of the second are left."""
    optimiser = torch.optim.AdamW([p for p in backbone.model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        loss_of().backward()
        optimiser.step()


def test_every_release_has_a_tokenizer_here_and_a_yaml():
    assert KIND.keys() == MAKERS.keys()
    assert all((CONF / f"{name}.yaml").is_file() for name in MAKERS)


@pytest.mark.parametrize("name", MAKERS)
def test_it_loads_and_a_batch_is_its_rows(loaded, name):
    backbone = loaded(name)
    pixels, tokens = batch_of(backbone)
    assert pixels.dtype == torch.float32
    assert pixels.shape[1] == 3
    with torch.no_grad():
        images, texts, features = backbone.encode_image(pixels), backbone.encode_text(tokens), backbone.features(pixels)
        one_by_one = [torch.cat([f(x[None]) for x in pixels]) for f in (backbone.encode_image, backbone.features)]
        text_by_text = torch.cat([backbone.encode_text(backbone.tokenize([text])) for text in PROMPTS])
    assert features.shape == (2, backbone.feature_dim)
    assert texts.shape == (2, images.shape[-1])
    for value in (images, texts, features):
        assert value.isfinite().all()
        assert not torch.allclose(value[0], value[1])
    torch.testing.assert_close(one_by_one, [images, features], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(text_by_text, texts, atol=1e-6, rtol=1e-5)
    parameters = [parameter for parameter, _ in backbone.model.named_parameters()]
    assert {part_of(parameter, backbone.part_prefixes) for parameter in parameters} <= {*PARTS}


@pytest.mark.parametrize("name", MAKERS)
def test_both_outputs_come_from_one_pass_of_the_image_tower(loaded, name):
    backbone, passes = loaded(name), []
    for module in backbone.model.modules():
        module.register_forward_hook(lambda *_: passes.append(1))
    pixels, _ = batch_of(backbone)
    with torch.no_grad():
        images, features = backbone.encode_image(pixels), backbone.features(pixels)
        passes.clear()
        backbone.encode_image(pixels)
        alone = len(passes)
        both = backbone.encode(pixels)
    assert len(passes) == 2 * alone > 0
    assert torch.equal(both.embeddings, images)
    assert torch.equal(both.features, features)


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_weights_compute(loaded, name):
    backbone = loaded(name, dtype=torch.bfloat16)
    whole = loaded(name)
    pixels, tokens = batch_of(backbone)
    with torch.no_grad():
        for half, full in (
            (backbone.encode_image(pixels), whole.encode_image(pixels)),
            (backbone.encode_text(tokens), whole.encode_text(tokens)),
            (backbone.features(pixels), whole.features(pixels)),
        ):
            assert functional.cosine_similarity(half.float(), full, dim=-1).min() > 0.99
    Lora("vision+text", 4, 8.0, 0.0).apply(backbone)
    descend(backbone, lambda: functional.cross_entropy(logits_of(backbone, pixels, tokens), torch.arange(2)))
    assert without_gradient(backbone.model.named_parameters()) == {}


@pytest.mark.parametrize("name", MAKERS)
def test_no_weight_is_missing_and_none_but_positions_is_left_over(loaded, releases, name):
    folder = releases(name) / "main"
    if KIND[name] == "open_clip" or name == "biomedclip":
        (file,) = [file for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".safetensors")]
        ours = loaded(name).model.state_dict()
        stored: Any = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
        state = {key.removeprefix("module."): value for key, value in stored.get("state_dict", stored).items()}
        fused = {key for key in state if ".attn.in_proj_" in key}
        assert {key for key in state.keys() - ours.keys() - fused if not key.endswith("position_ids")} == set()
        assert {key for key in ours.keys() - state.keys() if ".attn." not in key} == set()
        return
    model_class = type(loaded(name).model)
    _, report = model_class.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert all(key.endswith("position_ids") for key in report["unexpected_keys"])


# ------------------------------------------------------------------------------- what upstream computes, we compute


def upstream_open_clip(folder, name):
    """Return open_clip's own model and preprocessing of a small checkpoint."""
    here = f"local-dir:{folder / 'main'}"
    if name == "bmc_clip":  # as its authors load it
        model = open_clip.create_model(here, load_weights=False)
        state = torch.load(folder / "main" / "BMC_CLIP_CF.pt", weights_only=True)["state_dict"]
        model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
        own = open_clip.transform
        return model.eval(), own.image_transform_v2(own.PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    override = {}
    if name == "biomedclip":
        text = json.loads((folder / "main" / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
        override = {"text_cfg": {**text, "hf_model_name": str(folder / "text"), "hf_model_pretrained": False}}
    return open_clip.create_model_from_pretrained(here, **override)


def upstream_logits(model, name, pixels, input_ids):
    """Return the logits or cosines of the class's own forward, and what turns ours into them."""
    mask = (input_ids != 0).long()
    if name.startswith("siglip") or name == "medsiglip":
        return model(pixel_values=pixels, input_ids=input_ids).logits_per_image, lambda ours: ours + model.logit_bias
    if name == "blip":
        out = model(pixel_values=pixels, input_ids=input_ids, attention_mask=mask, use_itm_head=False)
        return out.itm_score, lambda ours: ours * 0.07
    if name == "blip2":  # the placeholders of the image go before the text, and the class cuts them off
        placeholders = torch.full((len(input_ids), model.config.num_query_tokens), model.config.image_token_index)
        out = model(
            pixel_values=pixels,
            input_ids=torch.cat([placeholders, input_ids], 1),
            attention_mask=torch.cat([torch.ones_like(placeholders), mask], 1),
            use_image_text_matching_head=False,
        )
        return out.logits_per_image, lambda ours: ours * 0.07
    # CLIP pads with the end token: mask what follows the first.
    ends = (input_ids == input_ids.max()).long().cumsum(1).cumsum(1)
    out = model(pixel_values=pixels, input_ids=input_ids, attention_mask=(ends <= 1).long())
    return out.logits_per_image, lambda ours: ours


@pytest.mark.parametrize("name", MAKERS)
def test_logits_are_those_of_the_upstream_class(loaded, releases, name):
    backbone = loaded(name)
    pixels, tokens = batch_of(backbone)
    with torch.no_grad():
        ours = logits_of(backbone, pixels, tokens)
        if "text" in tokens:
            model, _ = upstream_open_clip(releases(name), name)
            fused = any(isinstance(module, torch.nn.MultiheadAttention) for module in model.modules())
            assert fused == (name != "biomedclip")
            images = model.eval().encode_image(pixels, normalize=True)
            texts = model.encode_text(tokens["text"], normalize=True)
            theirs, turned = model.logit_scale.exp() * images @ texts.T, ours
        else:
            model = type(backbone.model).from_pretrained(releases(name) / "main").eval()
            theirs, turn = upstream_logits(model, name, pixels, tokens["input_ids"])
            turned = turn(ours)
    torch.testing.assert_close(turned, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_pixels_are_those_of_the_models_own_processor(loaded, releases, name):
    ours = loaded(name).preprocess(sample_image())
    if KIND[name] == "open_clip" or name == "biomedclip":
        theirs = upstream_open_clip(releases(name), name)[1](sample_image())
    else:
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(releases(name) / "main", backend="pil")
        theirs = processor(sample_image(), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ours, theirs)


def test_siglip_resizes_without_cropping_and_siglip2_by_another_filter(loaded):
    image = sample_image()
    for name, resample in (("siglip", 3), ("siglip2", 2)):
        pixels = np.asarray(image.resize((32, 32), resample=resample), dtype=np.float32) / 255
        expected = torch.from_numpy((pixels - 0.5) / 0.5).permute(2, 0, 1)
        torch.testing.assert_close(loaded(name).preprocess(image), expected, atol=1e-6, rtol=0)


# ---------------------------------------------------------------------------------------------- prompts, token by token


def independent(kind, folder):
    """Tokenise `TEXTS` by another program than the loader's."""
    if kind == "clip":
        merges = (folder / "main" / "merges.txt").read_text().rstrip("\n")
        with gzip.open(folder / "merges.gz", "wt") as packed:
            packed.write(merges)
        own = open_clip.SimpleTokenizer(bpe_path=str(folder / "merges.gz"))
        return [[own.sot_token_id, *own.encode(text), own.eot_token_id] for text in TEXTS]
    if kind == "siglip":
        import sentencepiece

        own = sentencepiece.SentencePieceProcessor(model_file=str(folder / "main" / "spiece.model"))
        plain = str.maketrans("", "", string.punctuation)
        return [[*own.encode(" ".join(text.lower().translate(plain).split())), own.eos_id()] for text in TEXTS]
    if kind == "siglip2":
        import tokenizers

        own = tokenizers.Tokenizer.from_file(str(folder / "main" / "tokenizer.json"))
        own.no_padding()
        return [own.encode(text.lower()).ids for text in TEXTS]
    if kind == "bert":
        import tokenizers

        own = tokenizers.BertWordPieceTokenizer(str(folder / "main" / "vocab.txt"), lowercase=True)
        return [own.encode(text).ids for text in TEXTS]
    from transformers import CLIPTokenizer

    words = open_clip.SimpleTokenizer()
    named = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {named.get(piece, piece): index for piece, index in words.encoder.items()}
    own = CLIPTokenizer(vocab=vocab, merges=list(words.bpe_ranks))
    return [own(text)["input_ids"] for text in TEXTS]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_golden_tokens_are_those_of_another_program(releases, kind):
    assert independent(kind, releases(TOKENIZERS[kind][0])) == json.loads(GOLDEN.read_text())[kind]


@pytest.mark.parametrize("name", MAKERS)
def test_prompts_are_tokenised_as_the_release_does(loaded, name):
    golden = json.loads(GOLDEN.read_text())[KIND[name]]
    tokens = loaded(name).tokenize(TEXTS)
    ids = tokens["text"] if "text" in tokens else tokens["input_ids"]
    width = {"siglip": 64, "siglip2": 64, "open_clip": 77}.get(KIND[name], max(map(len, golden)))
    assert ids.shape == (len(TEXTS), 256 if name == "biomedclip" else width)
    padding = {"clip": golden[0][-1], "siglip": 1}.get(KIND[name], 0)
    for row, expected in zip(ids.tolist(), golden, strict=True):
        assert row == expected + [padding] * (len(row) - len(expected))
    if "attention_mask" in tokens:
        assert tokens["attention_mask"].sum(1).tolist() == [len(row) for row in golden]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_that_is_too_long_is_refused(loaded, name):
    backbone = loaded(name)
    with pytest.raises(ValueError, match=rf"exceed the text tower's {backbone.context_length}"):
        backbone.tokenize(["lung", "lung " * 600])


# ------------------------------------------------------------------------------------------------ tuning and saving


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("method", [Lora, Full])
def test_each_scope_trains_is_saved_and_put_back(loaded, tmp_path, name, scope, method):
    torch.manual_seed(0)
    backbone = loaded(name)
    pixels, tokens = batch_of(backbone)
    before = outputs_of(backbone, pixels, tokens)
    tuner = Lora(scope, 4, 8.0, 0.1) if method is Lora else Full(scope)
    tuner.apply(backbone)
    backbone.train()
    descend(backbone, lambda: functional.cross_entropy(logits_of(backbone, pixels, tokens), torch.arange(2)))
    assert without_gradient(backbone.model.named_parameters()) == {}
    if scope == "vision":  # a linear head reads features, not embeddings
        descend(backbone, lambda: (backbone.features(pixels) * torch.randn(backbone.feature_dim)).sum())
        missed = without_gradient(backbone.model.named_parameters())
        assert missed == {}
    backbone.eval()
    after = outputs_of(backbone, pixels, tokens)
    assert not torch.allclose(before, after, atol=1e-3)
    trained = {part_of(n, backbone.part_prefixes) for n, p in backbone.model.named_parameters() if p.requires_grad}
    towers = set(scope.split("+"))
    assert towers <= trained <= towers | ({"connector", "head"} if len(towers) == 2 else set())
    tuner.save(backbone, tmp_path)
    fresh = loaded(name)
    tuner.load(fresh, tmp_path)
    # On some processors other kernels, of other rounding, run where a weight asks for a gradient.
    backbone.model.requires_grad_(False)
    torch.testing.assert_close(outputs_of(backbone, pixels, tokens), after, atol=1e-4, rtol=1e-4)
    after = outputs_of(backbone, pixels, tokens)
    assert torch.equal(outputs_of(fresh.eval().requires_grad_(False), pixels, tokens), after)
    if method is Lora:
        fresh.model = fresh.model.merge_and_unload()
        torch.testing.assert_close(outputs_of(fresh, pixels, tokens), after, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", contrastive.MAKERS)
def test_a_saved_checkpoint_is_the_same_model(loaded, tmp_path, name):
    backbone = loaded(name)
    for part in (backbone.model, backbone.processor):
        part.save_pretrained(tmp_path / "saved")
    again = loaded(name, tmp_path / "saved")
    pixels, tokens = batch_of(backbone)
    assert torch.equal(again.preprocess(sample_image()), pixels[0])
    for key, value in again.tokenize(PROMPTS).items():
        assert torch.equal(value, tokens[key])
    assert torch.equal(outputs_of(again, pixels, tokens), outputs_of(backbone, pixels, tokens))


def test_lora_covers_every_linear_layer_of_each_block(loaded):
    """Of one size whether the same towers come from transformers or from open_clip."""
    counts = {}
    for name in ("clip_vit_l14", "pmc_clip_vit_l14"):
        backbone = loaded(name)
        Lora("vision", 4, 8.0, 0.0).apply(backbone)
        assert len(targeted(backbone.model)) == 2 * 6
        counts[name] = sum(p.numel() for n, p in backbone.model.named_parameters() if "q_proj.lora" in n)
    assert len(set(counts.values())) == 1


def test_attention_with_linear_layers_is_the_fused_one_under_a_causal_mask():
    torch.manual_seed(0)
    fused = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    torch.nn.init.normal_(fused.in_proj_bias)
    x, mask = torch.randn(3, 7, 16), torch.full((7, 7), float("-inf")).triu(1)
    ours, theirs = Attention(fused)(x, x, x, attn_mask=mask)[0], fused(x, x, x, attn_mask=mask, need_weights=False)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


# ---------------------------------------------------------------------------------------- open_clip's folders and files


def test_an_architecture_of_open_clips_stands_in_for_a_missing_configuration(releases, tmp_path, monkeypatch):
    source = releases("bmc_clip") / "main"
    shutil.copy(source / "BMC_CLIP_CF.pt", tmp_path)
    small = json.loads((source / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-L-14", small)
    settings = {"model_name": "ViT-L-14", "weights": "BMC_CLIP_CF.pt"}
    named, given = (
        load("open_clip", str(folder), dtype=torch.float32, **settings).eval()  # type: ignore[arg-type]
        for folder in (tmp_path, source)
    )
    pixels, tokens = batch_of(given)
    assert torch.equal(named.preprocess(sample_image()), pixels[0])
    assert torch.equal(outputs_of(named, pixels, tokens), outputs_of(given, pixels, tokens))


@pytest.mark.parametrize(("name", "lost", "message"), [
    ("biomedclip", "", "which describes the text tower as microsoft/BiomedNLP.*model.companions.text.source"),
    ("quiltnet", "open_clip_config.json", "the model's configuration, is not there. Fetch the whole release"),
    ("quiltnet", "open_clip_pytorch_model.bin", "holds none of .*model.settings.weights"),
])  # fmt: skip
def test_an_incomplete_folder_says_what_it_lacks(releases, tmp_path, name, lost, message):
    folder = tmp_path / "main"
    shutil.copytree(releases(name) / "main", folder, ignore=shutil.ignore_patterns(lost))
    with pytest.raises(CheckpointError, match=message):
        load("open_clip", str(folder), dtype=torch.float32)


# ------------------------------------------------------------------------------------------------------ a whole cell


@pytest.mark.parametrize("name", ["siglip", "blip2", "biomedclip"])
@pytest.mark.parametrize("finetune", ["linear_probe", "lora"])
def test_a_cell_runs_from_end_to_end(train, releases, tmp_path, name, finetune):
    shutil.copytree(releases(name) / "main", tmp_path / "checkpoint")
    where = [f"model={name}", f"model.source={tmp_path / 'checkpoint'}", "domain=phantom_radiograph"]
    if name == "biomedclip":  # the configuration of BERT, beside the checkpoint and as its companion
        shutil.copy(releases(name) / "text" / "config.json", tmp_path / "checkpoint")
        where.append(f"model.companions.text.source={releases(name) / 'text'}")
    ran = train(*where, f"finetune={finetune}")
    assert ran.status == 0, ran.err
    assert ran.record["status"] == "done"
    scores = ran.predictions.filter(like="score_").to_numpy()
    assert np.isfinite(scores).all()
    assert scores.std(0).max() > 0


def test_a_temperature_above_clips_cap_still_trains(train, releases):
    ran = train(
        "model=siglip",
        f"model.source={releases('siglip') / 'main'}",
        "task=pretrain",
        "finetune=full",
        "finetune.scope=vision+text",
        "domain=phantom_shapes",
        "domain.patients=12",
        "trainer.max_epochs=1",
    )
    assert ran.status == 0, ran.err
    assert ran.record["status"] == "done"


@pytest.mark.parametrize("name", ["medclip", "conch"])
def test_a_release_without_its_file_of_weights_is_told(releases_all, name):
    release = releases_all(name)
    (release / "main" / "pytorch_model.bin").rename(release / "main" / "elsewhere.bin")
    companions = {part.name: str(part) for part in release.iterdir() if part.name != "main"}
    with pytest.raises(CheckpointError, match="a file of the release's weights, is not there"):
        load(name, str(release / "main"), dtype=torch.float32, companions=companions)


@pytest.fixture
def releases_all(tmp_path):
    def release(name):
        makers()[name](tmp_path)
        return tmp_path

    return release
