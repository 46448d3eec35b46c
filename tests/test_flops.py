"""The operations that a record holds: those of a hand count, of the method and not of what a cache saved, harmless."""

import json
from types import SimpleNamespace

import pandas as pd
import torch

from vlmbench.cell import flops
from vlmbench.weights.source import ASSETS


def image_tower():
    """Operations of tiny_clip's image tower on one image, from its configuration: products and convolution alone."""
    vision = json.loads((ASSETS / "tiny_clip" / "config.json").read_text())["vision_config"]
    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    patches = (vision["image_size"] // patch) ** 2
    tokens = patches + 1
    layer = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * inner
    products = patches * 3 * patch**2 * width + vision["num_hidden_layers"] * layer + width * vision["projection_dim"]
    return 2 * products, 2 * vision["projection_dim"]


def test_the_count_is_that_of_a_hand_count_and_the_same_whoever_encoded_first(train, tmp_path):
    tower, label = image_tower()
    counts = []
    for seed in (0, 1):  # the second finds its images encoded
        record = train("model=tiny_clip", "finetune=zero_shot", f"seed={seed}", output=tmp_path / str(seed)).record
        counts.append(record["cost"]["flops"])
    images = record["data"]["splits"]["test"]["images"]
    assert record["cost"]["features_kept"] == {"test": True}
    assert counts[0] == counts[1]
    assert counts[0]["reason"] == ""
    assert counts[0]["encode_per_image"] == tower
    assert counts[0]["predict_per_example"] == tower + 2 * label  # beside the embeddings of two classes
    assert counts[0]["total"] == tower * images + 2 * label * record["n"]["examples"]
    assert counts[0]["train_per_example"] is None


def test_counting_changes_no_result_and_its_failure_costs_no_cell(train, monkeypatch, tmp_path):
    asked = ("model=tiny_clip", "finetune=lora", "finetune.scope=vision", "trainer.max_epochs=1")
    whole = train(*asked)
    record, predictions = whole.record, whole.predictions
    forward, per_step = (record["cost"]["flops"][key] for key in ("predict_per_example", "train_per_example"))
    assert image_tower()[0] < forward < 1.2 * image_tower()[0]  # the adapters add a little
    # Backward through a frozen tower: gradients of activations as many as forward, of weights those of adapters alone.
    assert 2 * forward * 0.9 < per_step < 2.5 * forward

    def fail(*_):
        torch.manual_seed(7)
        raise RuntimeError("no formula")

    monkeypatch.setattr(flops, "_counted", fail)
    failed = train(*asked, output=tmp_path / "failed")
    again = failed.record["cost"]["flops"]
    assert again["total"] is None
    assert "no formula" in again["reason"]
    pd.testing.assert_frame_equal(failed.predictions, predictions)


def test_prompts_that_were_tried_count_with_the_test_questions(train):
    asked = ("task.prompts.candidates=3", "task.prompts.examples=4", "domain.patients=20")
    record = train("model=tiny_clip", "finetune=zero_shot", *asked).record
    count, splits = record["cost"]["flops"], record["data"]["splits"]
    answer = count["predict_per_example"] - count["encode_per_image"]
    asked_of = record["n"]["examples"] + 3 * record["prompts"]["examples"]
    images = splits["val"]["images"] + splits["test"]["images"]
    assert count["total"] == count["encode_per_image"] * images + answer * asked_of


def test_kernels_that_the_counter_does_not_see_give_no_count_that_is_too_low():
    config = SimpleNamespace(trainer=SimpleNamespace(attention="flash_attention_2"))
    counted = flops.flops(config, SimpleNamespace(backbone=None), None, None, {})
    assert counted == {**flops.NOTHING, "reason": counted["reason"]}
    assert "flash_attention_2" in counted["reason"]
