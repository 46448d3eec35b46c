"""Generative models whose weights are converted on load, against what their own programs computed.

The files in `golden/` hold what each project's own modules gave on the small releases that `scripts/releases` writes;
their `made_by` says which modules, of which commit, with which versions. Here the same releases are written again.
"""

import json
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from releases.common import sample_image  # noqa: E402
from releases.conversions_generative import MAKERS  # noqa: E402

from vlmbench.backbones.base import Turn  # noqa: E402
from vlmbench.backbones.generative.native import IGNORE  # noqa: E402
from vlmbench.backbones.loaders import load  # noqa: E402
from vlmbench.tuning.parameters import without_gradient  # noqa: E402
from vlmbench.tuning.tuners import Full, Lora, Qlora  # noqa: E402
from vlmbench.weights.release import CheckpointError  # noqa: E402

NAMES = ("llava_med", "huatuogpt_vision_llava", "llava15_original", "vila15", "vila_m3", "xraygpt")


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Write each release once."""
    written = {}

    def release(name):
        if name not in written:
            written[name] = tmp_path_factory.mktemp(name)
            MAKERS[name](written[name])
        return written[name]

    return release


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def backbone(name, releases):
    return build(name, releases(name))


@pytest.fixture
def golden(name):
    same = {"vila_m3": "vila15"}
    return json.loads((ROOT / "tests" / "golden" / f"{same.get(name, name)}.json").read_text())


def build(name, release, **changes):
    """Load a release as the model's YAML says, but for `changes`."""
    model = yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text())
    settings = {key: model[key] for key in ("chat_template", "answer_prefix", "max_length") if key in model}
    companions = {key: str(release / key) for key in model.get("companions", {})}
    settings |= model.get("settings", {}) | changes
    loaded = load(model["loader"], str(release / "main"), dtype=torch.float32, companions=companions, **settings)
    return loaded.eval()


def turns(backbone, golden):
    pixels = backbone.preprocess(sample_image())
    return [Turn(pixels, question, golden["answer"]) for question in golden["questions"]]


def with_image(backbone, ids):
    """Return the original's tokens with as many places for the image as it has features."""
    out = []
    for token in ids:
        out += [backbone.image_token_id] * backbone.image_tokens if token == -200 else [token]
    return out


def test_pixels(backbone, golden):
    step = golden["pixel_step"]
    for image, expected in zip((sample_image(), sample_image(64, 90)), golden["pixels"], strict=True):
        pixels = backbone.preprocess(image).tensors["pixel_values"][0, :, ::step, ::step]
        torch.testing.assert_close(pixels.flatten(), torch.tensor(expected), rtol=0, atol=1e-6)


def test_tokens(backbone, golden):
    asked = turns(backbone, golden)
    for turn, expected in zip(asked, golden["prompt_ids"], strict=True):
        assert backbone.prompt_ids(turn.prompt, turn.pixels.tokens) == with_image(backbone, expected)
    row = backbone.collate(asked[:1], supervise=True)["input_ids"][0].tolist()
    assert row == with_image(backbone, golden["row_ids"])
    assert backbone.image_token_id not in golden["row_ids"]


def test_features(backbone, golden):
    pixels = backbone.preprocess(sample_image()).tensors["pixel_values"]
    with torch.no_grad():
        features = backbone.model.get_image_features(pixels, return_dict=True).pooler_output
    expected = torch.tensor(golden["features"])
    torch.testing.assert_close(features[0][:: golden["feature_step"]].flatten(), expected, rtol=0, atol=1e-4)


def test_loss_and_logits(backbone, golden):
    batch = backbone.collate(turns(backbone, golden)[:1], supervise=True)
    with torch.no_grad():
        loss, answered = backbone.forward(batch)
        labels = batch.pop("labels")
        logits = backbone.model(**batch).logits[0]
    assert loss.item() == pytest.approx(golden["loss"], abs=1e-4)
    expected = torch.tensor(golden["logits"])
    rows = len(expected) // logits.shape[-1]
    torch.testing.assert_close(logits[-rows:].flatten(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(answered, logits[:-1][labels[0, 1:] != IGNORE])


def test_greedy_tokens(backbone, golden):
    for turn, expected in zip(turns(backbone, golden), golden["greedy"], strict=True):
        batch = backbone.collate([turn], supervise=False)
        tokens = backbone.model.generate(**batch, do_sample=False, max_new_tokens=len(expected))
        assert tokens[0, batch["input_ids"].shape[1] :].tolist() == expected
        assert backbone.generate(batch, max_new_tokens=len(expected)) == [
            backbone.tokenizer.decode(expected, skip_special_tokens=True).strip()
        ]


def test_labels_are_the_answer_and_its_end(backbone, golden):
    labels = backbone.collate(turns(backbone, golden), supervise=True)["labels"]
    end = backbone.ending or backbone.tokenizer.eos_token
    for row in labels:
        assert backbone.tokenizer.decode(row[row != IGNORE]).strip() == golden["answer"] + end


def test_a_batch_answers_as_one_by_one(backbone, golden):
    asked = turns(backbone, golden)
    together = backbone.generate(backbone.collate(asked, supervise=False), max_new_tokens=8)
    assert together == [
        backbone.generate(backbone.collate([turn], supervise=False), max_new_tokens=8)[0] for turn in asked
    ]


def test_questions_about_one_image_are_read_together(backbone, golden):
    (turn, *_), prompts = turns(backbone, golden), ("is it large?", "where?")
    asked = [replace(turn, prompt=prompt, image="one") for prompt in prompts]
    assert len(backbone.collate(asked, supervise=False)["input_ids"]) == 1
    texts, scores = backbone.answer(asked, [("yes", "no"), ("left", "on the right")], max_new_tokens=6)
    alone = [backbone.answer([turn], [("yes", "no")], max_new_tokens=6) for turn in asked[:1]]
    assert texts[0] == alone[0][0][0]
    torch.testing.assert_close(scores[:1], alone[0][1], rtol=1e-5, atol=5e-5)
    for value, option in zip(scores[1], ("left", "on the right"), strict=True):
        batch = backbone.collate([replace(asked[1], answer=option)], supervise=True)
        with torch.no_grad():
            loss, _ = backbone.forward(batch)
        torch.testing.assert_close(value, -loss * (batch["labels"] != IGNORE).sum(), rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("name", ["llava_med", "vila15", "xraygpt"], indirect=True)
@torch.no_grad()
def test_what_the_tower_gave_once_stands_in_for_it(backbone, golden):
    asked = turns(backbone, golden)
    loss, logits = backbone.forward(backbone.collate(asked, supervise=True))
    answers = backbone.generate(backbone.collate(asked, supervise=False), max_new_tokens=4)
    seen = [replace(turn, pixels=backbone.see(asked[0].pixels), image="one") for turn in asked]
    for parameter in backbone.tower.of(backbone.model).parameters():
        parameter.fill_(torch.nan)  # it is not to be run
    found, same = backbone.forward(backbone.collate(seen, supervise=True))
    torch.testing.assert_close((found, same), (loss, logits), rtol=1e-5, atol=1e-5)
    assert backbone.generate(backbone.collate(seen, supervise=False), max_new_tokens=4) == answers


# One of each architecture and loader; the others differ in files and text.
KINDS = ("llava_med", "vila15", "xraygpt")
PARTS = {"V": "vision", "M": "connector", "L": "language"}
in_four_bits = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="NOT TESTED, bitsandbytes is not installed: pip install 'vlmbench[qlora]'"
)


def step_twice(backbone, golden):
    """Take one optimiser step and return what has no usable gradient after it."""
    optimiser = torch.optim.AdamW([p for p in backbone.model.parameters() if p.requires_grad], lr=1e-3)
    batch = backbone.collate(turns(backbone, golden), supervise=True)
    backbone.train()
    for last in (False, True):
        optimiser.zero_grad()
        backbone.forward(batch)[0].backward()
        if not last:
            optimiser.step()
    return without_gradient(backbone.model.named_parameters())


def trained_parts(backbone):
    names = [name.removeprefix("base_model.model.") for name, p in backbone.model.named_parameters() if p.requires_grad]
    return {part for name in names for part, prefixes in backbone.part_prefixes.items() if name.startswith(prefixes)}


@pytest.mark.parametrize("scope", ["V", "M", "L", "VML"])
@pytest.mark.parametrize("method", [Full, Lora])
@pytest.mark.parametrize("name", KINDS, indirect=True)
def test_every_tensor_of_the_scope_trains_and_no_other(backbone, golden, method, scope):
    (Full(scope) if method is Full else Lora(scope, 2, 4.0, 0.0)).apply(backbone)
    assert trained_parts(backbone) == {PARTS[letter] for letter in scope}
    assert step_twice(backbone, golden) == {}


@pytest.mark.parametrize(
    "tuner",
    [
        *(Lora("VML", 2, 4.0, 0.0), Lora("ML", 2, 4.0, 0.0, "lora"), Full("VML")),
        pytest.param(Qlora(Lora("ML", 2, 4.0, 0.0)), marks=in_four_bits),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", KINDS, indirect=True)
def test_what_was_trained_comes_back_onto_a_fresh_checkpoint(name, backbone, golden, releases, tuner, tmp_path):
    fresh = build(name, releases(name))
    batch = fresh.collate(turns(fresh, golden), supervise=True)
    with torch.no_grad():
        untuned = fresh.forward(batch)[1]
    tuner.apply(backbone)
    step_twice(backbone, golden)
    tuner.save(backbone, tmp_path)
    tuner.load(fresh, tmp_path)
    backbone.eval(), fresh.eval()
    with torch.no_grad():
        tuned, restored = backbone.forward(batch)[1], fresh.forward(batch)[1]
    torch.testing.assert_close(tuned, restored, rtol=0, atol=1e-5)
    assert (tuned - untuned).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["xraygpt"], indirect=True)
def test_generation_ends_where_the_text_says(backbone, golden):
    batch = backbone.collate(turns(backbone, golden)[:1], supervise=False)
    (whole,) = backbone.generate(batch, max_new_tokens=8)
    backbone.ending = whole[2:5]
    runs = []
    backbone.model.language_model.register_forward_hook(lambda *_: runs.append(1))
    assert backbone.generate(batch, max_new_tokens=8) == [whole.split(backbone.ending)[0]]
    assert len(runs) < 8


def test_a_question_with_the_images_word_is_refused(backbone, golden):
    (turn, _) = turns(backbone, golden)
    with pytest.raises(ValueError, match="on whose places images stand"):
        backbone.prompt_ids(f"what is {backbone.family.token}?", turn.pixels.tokens)


@pytest.mark.parametrize("name", ["llava_med"], indirect=True)
def test_the_tower_is_the_checkpoints_unless_another_is_named(name, backbone, releases):
    tower = releases("llava15_original") / "tower"
    settings = {"chat_template": backbone.chat_template, "companions": {"tower": str(tower)}}
    other = load("llava_original", str(releases(name) / "main"), dtype=torch.float32, **settings)
    published = torch.load(tower / "pytorch_model.bin", weights_only=True)
    for key, value in other.model.model.vision_tower.state_dict().items():
        assert torch.equal(value, published[f"vision_model.{key}"])
        assert not torch.equal(value, backbone.model.model.vision_tower.state_dict()[key])
    kept = backbone.model.model.language_model.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in other.model.model.language_model.state_dict().items())


def test_half_precision_weights_are_all_half(releases):
    for name in KINDS:
        model = yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text())
        companions = {key: str(releases(name) / key) for key in model.get("companions", {})}
        settings = {"companions": companions, "chat_template": model["chat_template"]}
        loaded = load(model["loader"], str(releases(name) / "main"), dtype=torch.bfloat16, **settings)
        assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(("name", "gone", "told"), [
    ("llava_med", "main/config.json", r"config\.json, the model's configuration, is not there\. Fetch"),
    ("llava_med", "main/model-00002-of-00002.safetensors", r"model-00002-of-00002\.safetensors"),
    ("llava15_original", "tower", r"tower"),
    ("vila15", "main/mm_projector", r"mm_projector/config\.json, of the projector, is not there\. Fetch"),
    ("vila15", "main/vision_tower", r"vision_tower/config\.json, of the vision tower, is not there"),
    ("vila15", "main/mm_projector/model.safetensors", r"the projector's weights, is not there"),
    ("xraygpt", "vit", r"vit, eva_vit_g\.pth of LAVIS, is not there\. Fetch .* model\.companions\.vit says where"),
    ("xraygpt", "projection/xraygpt_pretrained1.pth", r"holds 0 files \*\.pth instead of one"),
])  # fmt: skip
def test_a_missing_part_is_named(name, gone, told, releases, tmp_path):
    shutil.copytree(releases(name), tmp_path / name)
    path = tmp_path / name / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises((CheckpointError, OSError), match=told) as raised:
        build(name, tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_without_a_tower_says_where_to_get_one(releases):
    settings: dict[str, Any] = {"dtype": torch.float32, "chat_template": "<image>"}
    with pytest.raises(CheckpointError, match=r"companions=\{tower: \{source: openai/clip-vit-large-patch14-336\}\}"):
        load("llava_original", str(releases("llava15_original") / "main"), **settings)
    with pytest.raises(CheckpointError, match=r"LAVIS is not named\. .* model\.companions\.vit says where"):
        load("xraygpt", str(releases("xraygpt") / "main"), **settings)


def test_a_vocabulary_without_the_images_word_says_what_to_set(releases):
    with pytest.raises(CheckpointError, match=r"no '<pad>'\. Set model\.settings\.image_token"):
        load("vila", str(releases("vila15") / "main"), dtype=torch.float32, image_token="<pad>")


def test_a_file_of_another_model_is_named(releases, tmp_path):
    shutil.copytree(releases("xraygpt"), tmp_path / "mixed")
    shutil.copy(
        tmp_path / "mixed/projection/xraygpt_pretrained1.pth", tmp_path / "mixed/qformer/blip2_pretrained_flant5xxl.pth"
    )
    with pytest.raises(CheckpointError, match=r"do not hold 'query_tokens'"):
        build("xraygpt", tmp_path / "mixed")


def test_a_projection_of_another_width_is_named(releases, tmp_path):
    shutil.copytree(releases("xraygpt"), tmp_path / "wide")
    wide = {"model": {"llama_proj.weight": torch.zeros(40, 128), "llama_proj.bias": torch.zeros(40)}}
    torch.save(wide, tmp_path / "wide/projection/xraygpt_pretrained1.pth")
    with pytest.raises(CheckpointError, match=r"2 weights .* of other shapes.*: language_projection\.bias"):
        build("xraygpt", tmp_path / "wide")


def parts_of(model, prefixes):
    """Return the parameters of each part in millions."""
    counts = dict.fromkeys(prefixes, 0)
    for name, parameter in model.named_parameters():
        counts[next(part for part, own in prefixes.items() if name.startswith(own))] += parameter.numel()
    return counts


# What the releases' configurations say of sizes.
LLAMA_3 = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_key_value_heads": 8}
QWEN2: dict[str, Any] = {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
QWEN2 |= {"num_attention_heads": 28, "num_key_value_heads": 4, "architectures": ["LlavaQwen2ForCausalLM"]}
CLIP_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}


def full_size(name):
    """Return a released model without memory, and the prefixes of its parts."""
    import transformers

    from vlmbench.backbones.generative.family import Family
    from vlmbench.backbones.generative.llava_original import language_config
    from vlmbench.backbones.generative.vila import projector
    from vlmbench.backbones.generative.xraygpt import FAMILY

    family = FAMILY if name == "xraygpt" else Family()
    vision: Any = transformers.CLIPVisionConfig(**CLIP_L, image_size=336, patch_size=14)
    text: Any = language_config(QWEN2)
    if name == "vila15":
        vision = transformers.SiglipVisionConfig(**SO400M, image_size=384, patch_size=14)
        text = transformers.LlamaConfig(**LLAMA_3)
    model: Any
    with torch.device("meta"):
        if name == "xraygpt":  # the defaults are BLIP-2's tower and Q-Former, and LLaMA 7B
            config = transformers.Blip2Config(text_config=transformers.LlamaConfig())
            model = transformers.Blip2ForConditionalGeneration(config)
        else:
            config = transformers.LlavaConfig(vision_config=vision, text_config=text)
            model = transformers.LlavaForConditionalGeneration(config)
        if name == "vila15":
            model.model.multi_modal_projector = projector(1152, 4096)
    return model, {part: getattr(family, part) for part in ("vision", "connector", "language")}


# Llama 3 8B, Qwen2 7B and LLaMA 7B have 8,030,261,248, 7,615,616,512 and 6,738,415,616 parameters by their owners'
# files; SigLIP's tower 428,225,600 (with its pooling head, which is not read); BLIP-2's tower 985.95
# million (Li et al. 2023 call it 1 billion). The connectors are counted by hand.
FULL = {
    "huatuogpt_vision_llava": (303_507_456, 1024 * 3584 + 3584 + 3584 * 3584 + 3584, 7_615_616_512),
    "vila15": (428_225_600, 2 * 4608 + 4608 * 4096 + 4096 + 4096 * 4096 + 4096, 8_030_261_248),
    "xraygpt": (985_952_256, 32 * 768 + 105_137_664 + 768 * 4096 + 4096, 6_738_415_616),
}


@pytest.mark.parametrize("name", FULL)
def test_the_released_sizes_are_the_published_ones(name):
    counted = parts_of(*full_size(name))
    assert tuple(counted.values()) == FULL[name]
    for same in {"vila15": ("vila15", "vila_m3")}.get(name, (name,)):
        model = yaml.safe_load((ROOT / "conf" / "model" / f"{same}.yaml").read_text())
        assert model["parameters"] == pytest.approx({part: count / 1e6 for part, count in counted.items()}, abs=0.01)


def test_an_image_of_the_released_vila_takes_196_tokens():
    from vlmbench.backbones.generative.vila import projector

    assert projector(8, 4)(torch.zeros(1, 27 * 27, 8)).shape == (1, 196, 4)


@pytest.mark.parametrize("name", ["vila15", "llava_med", "xraygpt"])
def test_a_misspelt_setting_of_images_is_refused(name, releases):
    folder = releases(name)
    with pytest.raises(CheckpointError, match=r"image_processor\.sizes: .* has no such setting"):
        build(name, folder, processor={"image_processor": {"sizes": 3}})


def test_a_tower_among_pickled_weights_is_found(releases, tmp_path):
    shutil.copytree(releases("llava_med") / "main", tmp_path / "main")
    state: dict[str, torch.Tensor] = {}
    for file in sorted((tmp_path / "main").glob("*.safetensors")):
        state |= load_file(file)
        file.unlink()
    (tmp_path / "main" / "model.safetensors.index.json").unlink()
    torch.save(state, tmp_path / "main" / "pytorch_model.bin")
    ours, theirs = build("llava_med", tmp_path), build("llava_med", releases("llava_med"))
    for key, value in ours.model.state_dict().items():
        assert torch.equal(value, theirs.model.state_dict()[key]), key
