"""Generative models whose weights are converted on load, against what their own programs computed.

The files in `golden/` hold what each project's own modules gave on the small releases that `scripts/releases` writes;
their `made_by` says which modules, of which commit, with which versions. Here the same releases are written again.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from releases.common import sample_image  # noqa: E402
from releases.conversions_generative import MAKERS  # noqa: E402

from vlmbench.backbones.base import Turn  # noqa: E402
from vlmbench.backbones.generative.native import IGNORE  # noqa: E402
from vlmbench.backbones.loaders import load  # noqa: E402

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


def build(name, release):
    """Load a release as the model's YAML says."""
    model = yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text())
    settings = {key: model[key] for key in ("chat_template", "answer_prefix", "max_length") if key in model}
    companions = {key: str(release / key) for key in model.get("companions", {})}
    settings |= model.get("settings", {})
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
    with torch.no_grad():
        loss, logits = backbone.forward(backbone.collate(turns(backbone, golden)[:1], supervise=True))
    assert loss.item() == pytest.approx(golden["loss"], abs=1e-4)
    expected = torch.tensor(golden["logits"])
    rows = len(expected) // logits.shape[-1]
    torch.testing.assert_close(logits[0, -rows:].flatten(), expected, rtol=0, atol=1e-4)


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
