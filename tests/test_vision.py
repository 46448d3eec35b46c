"""What a vision tower gives is computed once for an image, and the model trains and answers as with the live tower."""

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from released import SIZES, backbone_of, turns_of
from releases.common import sample_image
from test_releases_generative import KINDS
from torch import nn

from vlmbench.backbones.generative.inputs import ImageInputs
from vlmbench.cell.seen import SeenImages
from vlmbench.cell.vision import recall_vision
from vlmbench.config.schema import CellConfig, GenerativeModelConfig, ZeroShotConfig
from vlmbench.domains.datamodule import Tally
from vlmbench.modules.layers import checkpoint_layers
from vlmbench.tuning.tuners import Full, Lora


def asked_of(backbone, answered=True):
    """Return six turns on four images of several shapes, two of which are asked about twice."""
    turns = turns_of(backbone, answered)
    return [*turns, replace(turns[1], prompt="how many ribs?"), replace(turns[0], prompt="is it normal?")]


def named(turns):
    names = {id(turn.pixels): f"image {number}" for number, turn in enumerate(turns)}
    return [replace(turn, image=names[id(turn.pixels)]) for turn in turns]


def seen(backbone, turns):
    kept = {id(turn.pixels): backbone.see(turn.pixels) for turn in turns}
    return [replace(turn, pixels=kept[id(turn.pixels)]) for turn in turns]


def gradients(backbone, turns):
    backbone.model.zero_grad()
    loss, logits = backbone.forward(backbone.collate(turns, supervise=True))
    loss.backward()
    return logits.detach(), {name: p.grad.clone() for name, p in backbone.model.named_parameters() if p.requires_grad}


def pixels_of(backbone, turns):
    return sum(value.numel() for key, value in backbone.collate(turns, supervise=True).items() if key == "pixel_values")


def break_tower(backbone):
    """Let every number that the tower would give be none."""
    for name, parameter in backbone.model.named_parameters():
        if name.removeprefix("base_model.model.").startswith(backbone.part_prefixes["vision"]):
            parameter.data.fill_(torch.nan)


@pytest.mark.parametrize("name", KINDS)
def test_shared_and_recalled_images_train_and_answer_as_with_the_live_tower(name):
    backbone = backbone_of(name)
    Lora("ML", 2, 4.0, 0.0).apply(backbone)  # the connector trains in full
    turns, asked, options = asked_of(backbone), asked_of(backbone, answered=False), [("yes", "no")] * 6
    logits, wanted = gradients(backbone, turns)
    scores = backbone.score(asked, options)
    answers = backbone.generate(backbone.collate(asked, supervise=False), max_new_tokens=3)
    ways = {"shared": named(turns), "recalled": seen(backbone, turns), "both": named(seen(backbone, turns))}
    assert pixels_of(backbone, ways["shared"]) < pixels_of(backbone, turns)
    both = named(seen(backbone, asked))
    for way, others in ways.items():
        if way != "shared":
            break_tower(backbone)
        found, grads = gradients(backbone, others)
        torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5, msg=way)
        for key, gradient in grads.items():
            torch.testing.assert_close(gradient, wanted[key], rtol=1e-4, atol=1e-5, msg=f"{way}: {key}")
    assert backbone.generate(backbone.collate(both, supervise=False), max_new_tokens=3) == answers
    torch.testing.assert_close(backbone.score(both, options), scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llava_next", "qwen25_vl"])
def test_a_tower_that_trains_looks_at_each_image_once_and_gets_the_gradient_of_all_its_rows(name):
    backbone = backbone_of(name)
    Full("VML").apply(backbone)
    turns = asked_of(backbone)
    _, wanted = gradients(backbone, turns)
    for key, gradient in gradients(backbone, named(turns))[1].items():
        torch.testing.assert_close(gradient, wanted[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", ["llava", "qwen3_vl"])
def test_what_is_seen_anew_while_the_model_computes_is_seen_by_the_tower_itself(name):
    backbone = backbone_of(name)
    turns = asked_of(backbone)
    kept = named(seen(backbone, turns))
    with ThreadPoolExecutor(1) as reader:
        with backbone._placed(backbone.collate(kept[:1], supervise=True)):
            again = reader.submit(backbone.see, turns[3].pixels)
            wait([again], timeout=0.2)
        assert torch.equal(again.result().tensors["seen"], kept[3].pixels.tensors["seen"])


def test_a_layer_that_is_replaced_for_a_moment_stays_as_training_made_it():
    backbone = backbone_of("qwen3_vl")
    checkpoint_layers(backbone.model)
    trained = {name: module.forward for name, module in backbone.model.named_modules() if "forward" in vars(module)}
    assert any("deepstack" in name for name in trained)
    seen(backbone, asked_of(backbone))
    assert {name: backbone.model.get_submodule(name).forward for name in trained} == trained


def test_a_tower_with_dropout_is_not_to_be_recalled():
    backbone = backbone_of("llava")
    assert not backbone.tower.random(backbone.model)
    layer = backbone.tower.of(backbone.model).encoder.layers[0]
    layer.drop = nn.Dropout(0.1)
    assert backbone.tower.random(backbone.model)


def store_of(folder, made, room=2**20, count=3, tower="tower"):
    def make(key):
        made.append(key)
        return ImageInputs({"seen": torch.full((1, 4, 8), float(key), dtype=torch.bfloat16)}, 4)

    return SeenImages(folder, room, tower, {}, {str(i): bytes([i]) * 32 for i in range(count)}, make)


def test_images_are_seen_once_and_given_back_bit_for_bit(tmp_path):
    made: list[str] = []
    first = store_of(tmp_path, made)
    assert first.fill("") == 0
    assert sorted(made) == ["0", "1", "2"]
    again = store_of(tmp_path, made, count=2)
    assert again.fill("") == 0
    assert len(made) == 3
    image = again("1")
    assert image.tokens == 4
    assert torch.equal(image.tensors["seen"], torch.full((1, 4, 8), 1.0, dtype=torch.bfloat16))
    assert set(image.tensors) == {"seen"}


def test_what_is_damaged_is_seen_anew(tmp_path):
    made: list[str] = []
    assert store_of(tmp_path, made).fill("") == 0
    (data,) = tmp_path.rglob("data.bin")
    data.write_bytes(b"\x01" * data.stat().st_size)
    assert store_of(tmp_path, made)("2").tensors["seen"].float().mean() == 2
    assert made[3:] == ["2"]
    assert store_of(tmp_path, made)("2").tensors["seen"].float().mean() == 2
    assert len(made) == 4


def test_what_cannot_be_kept_again_is_seen_anew_all_the_same(tmp_path, monkeypatch):
    made: list[str] = []
    seen = store_of(tmp_path, made)
    assert seen.fill("") == 0
    (data,) = tmp_path.rglob("data.bin")
    data.write_bytes(b"\x01" * data.stat().st_size)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vlmbench.domains.store._write", full)
    assert seen("2").tensors["seen"].float().mean() == 2


def test_the_longest_unused_tower_makes_way_where_not_one_image_more_finds_room(tmp_path):
    made: list[str] = []
    assert store_of(tmp_path, made, tower="old").fill("") == 0
    full = sum(file.stat().st_size for file in tmp_path.rglob("*.bin"))
    assert store_of(tmp_path, made, room=full + 1, tower="new").fill("") == 0
    assert not list(tmp_path.glob("*/old"))


def test_where_not_all_find_room_it_is_told_how_much_is_missing(tmp_path):
    made: list[str] = []
    assert 0 < store_of(tmp_path, made, room=2**11, count=100).fill("") < 2**16
    assert len(made) <= 5
    assert store_of(tmp_path / "none", made, room=10).fill("") > 0


@pytest.mark.parametrize("others", [True, False])
def test_an_image_is_recalled_by_all_processes_of_a_cell_or_by_none(others, monkeypatch, tmp_path):
    monkeypatch.setenv("VLMBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("vlmbench.modules.across.gathered", lambda own: [own, others])
    images = SimpleNamespace(load=lambda key: sample_image(*SIZES[int(key)]))
    examples = [SimpleNamespace(image=str(number)) for number in range(2)]
    domain = SimpleNamespace(images=images, split=lambda _: examples, whole=None, fingerprint="ribs")
    data: Any = SimpleNamespace(domain=domain, encoded={}, tally=Tally())
    config = CellConfig(model=GenerativeModelConfig(name="llava", loader="hf_vlm"), finetune=ZeroShotConfig())
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
    )
    about = {"weights": "", "settings": "", "label": "a cell"}
    told = recall_vision(config, data, backbone_of("llava"), ["test"], trainer=trainer, **about)
    assert (told and told["images"]) == (2 if others else None)
    assert list(data.encoded) == (["test"] if others else [])


def test_a_second_cell_decodes_no_image_and_ends_as_with_the_live_tower(train, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("VLMBENCH_CACHE", str(tmp_path / "cache"))  # other tests keep the same images
    small = ["model=tiny_llava", "domain.patients=10", "task.resamples=100", "trainer.max_epochs=1"]
    small += ["trainer.batch_size=8", "task.likelihood=false"]
    lora = [*small, "finetune=lora", "finetune.scope=L"]
    runs = {
        "live": train(*lora, "trainer.vision_cache_gib=1e-6", output=tmp_path / "live", small=False),
        "filled": train(*lora, output=tmp_path / "filled", small=False),
        "recalled": train(*lora, output=tmp_path / "recalled", small=False),
    }
    assert "Raise trainer.vision_cache_gib" in caplog.text
    costs = {name: ran.record["cost"] for name, ran in runs.items()}
    assert costs["live"]["vision_kept"] is None
    images = costs["filled"]["pixels"]["decoded"]
    for name, reused, decoded in (("filled", 0, images), ("recalled", images, 0)):
        kept = costs[name]["vision_kept"]
        assert (kept["images"], kept["reused"], costs[name]["pixels"]["decoded"]) == (images, reused, decoded)
    for ran in runs.values():
        assert ran.predictions.equals(runs["filled"].predictions)
        curve = ran.record["training"]["curve"][-1]
        assert curve == pytest.approx(runs["live"].record["training"]["curve"][-1], abs=1e-5)
