"""Encoding a cell's splits: each distinct image once, both outputs, parts of a split out of the whole."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vlmbench.backbones.contrastive.dual import Encoded
from vlmbench.cell.features import encode_splits
from vlmbench.cell.trainer import make_trainer
from vlmbench.config import schema
from vlmbench.domains.base import Domain, Example, Split
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.subset import few_shot
from vlmbench.records.features import DATA, FEATURES

TRAIN, SAME = 40, 10


class Tower:
    """An image tower that counts the images it sees; its two outputs differ where they are asked to."""

    def __init__(self, both: bool = True) -> None:
        self.model, self.both, self.seen = nn.Linear(1, 1), both, 0

    def to(self, _: object) -> "Tower":
        return self

    def eval(self) -> "Tower":
        return self

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image.resize((4, 4)), np.float32)).permute(2, 0, 1)

    def encode(self, pixels: torch.Tensor) -> Encoded:
        self.seen += len(pixels)
        features = pixels.flatten(1) * (1 + 1e-6 * len(pixels))  # last digits that depend on the batch
        return Encoded(features, features.reshape(-1, 4, 12) * 2 if self.both else features)


@pytest.fixture
def domain(tmp_path, monkeypatch):
    """40 training images, the last ten of them with pixels of the first ten; and one test image asked for twice."""
    monkeypatch.setenv("VLMBENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(TRAIN - SAME + 1):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        for name in (number, number + TRAIN - SAME) if number < SAME else (number + SAME * (number == TRAIN - SAME),):
            Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    rows = [Example(f"r{i}", f"{i}.png", f"g{i}", "train", (i % 2,)) for i in range(TRAIN)]
    rows += [Example(f"t{i}", f"{TRAIN}.png", "g", "test", (i,)) for i in range(2)]
    return Domain("d", "oct", "diagnosis", rows, FolderImages(tmp_path / "images"), ("no", "yes"), fingerprint="f")


def encoded(domain: Domain, tower: Tower, *splits: Split, gib: float = 1.0, **trainer_settings: Any):
    config = schema.CellConfig(
        model=schema.ContrastiveModelConfig(name="m", source="package:m", role="generalist"),
        task=schema.DiagnosisTaskConfig(),
        finetune=schema.LinearProbeConfig(),
        domain=schema.FolderDomainConfig(name="d", modality="oct", root="."),
        trainer=schema.TrainerConfig(accelerator="cpu", eval_batch_size=16, feature_cache_gib=gib, **trainer_settings),
    )
    data = DomainDataModule(domain, tower.preprocess, batch_size=8, eval_batch_size=16)
    trainer = make_trainer(config.trainer, Path("."), [], None, deterministic=False)
    settings: dict[str, Any] = {"weights": "w", "settings": "s", "trainer": trainer, "label": "x"}
    return encode_splits(config, data, tower, splits, **settings)


def test_each_distinct_image_is_encoded_once_into_both_outputs(domain):
    tower = Tower()
    rows, kept = encoded(domain, tower, "train", "test")
    assert tower.seen == TRAIN - SAME + 1
    assert kept == {"train": False, "test": False}
    train, test = rows["train"], rows["test"]
    assert (train.features.shape, train.embeddings.shape) == ((TRAIN, 48), (TRAIN, 4, 12))
    assert torch.equal(train.features[:SAME], train.features[-SAME:])
    assert torch.equal(train.embeddings.flatten(1), train.features * 2)
    assert torch.equal(test.features[0], test.features[1])
    for index, example in enumerate(domain.split("train")):
        seen = tower.preprocess(domain.images.load(example.image)).flatten()
        assert torch.allclose(train[index].features, seen, rtol=1e-4)
    again, kept = encoded(domain, tower, "train", "test")
    assert kept == {"train": True, "test": True}
    assert tower.seen == TRAIN - SAME + 1
    for split, old in rows.items():
        assert torch.equal(again[split].features, old.features)
        assert torch.equal(again[split].embeddings, old.embeddings)


def test_one_array_is_kept_where_both_outputs_are_the_same(domain, tmp_path):
    encoded(domain, Tower(both=False), "train")
    rows, kept = encoded(domain, Tower(both=False), "train")
    assert kept["train"]
    assert rows["train"].embeddings is rows["train"].features
    (file,) = (tmp_path / "cache" / FEATURES).glob(f"*/{DATA}")
    assert file.stat().st_size < 4 * 48 * (TRAIN - SAME) + 1024


def test_parts_of_a_training_split_are_rows_of_the_whole_whoever_came_first(domain):
    few, other = (few_shot(domain, fraction=0.25, seed=seed) for seed in (0, 1))
    tower = Tower()
    first, _ = encoded(few, tower, "train")
    assert tower.seen == TRAIN - SAME
    whole, kept = encoded(domain, tower, "train")
    assert kept["train"]
    assert encoded(other, tower, "train")[1]["train"]
    assert tower.seen == TRAIN - SAME
    places = [int(example.id[1:]) for example in few.split("train")]
    assert torch.equal(first["train"].features, whole["train"].features[places])
    assert torch.equal(first["train"].embeddings, whole["train"].embeddings[places])


def test_a_small_part_and_one_that_is_not_kept_encode_their_own_rows(domain):
    few, tower = few_shot(domain, fraction=0.25), Tower()
    encoded(few, tower, "train", gib=0)
    assert tower.seen == len({example.image for example in few.split("train")})
    one = dataclasses.replace(domain, examples=domain.examples[:1], whole=domain)
    tower = Tower()
    assert encoded(one, tower, "train")[0]["train"].features.shape == (1, 48)
    assert tower.seen == 1
    encoded(domain, tower, "train")
    assert encoded(one, tower, "train")[1]["train"]


def test_another_attention_kernel_shares_nothing(domain):
    assert [encoded(domain, Tower(), "test", attention=name)[1]["test"] for name in ("sdpa", "eager", "sdpa")] == [
        *(False, False, True)
    ]


def test_an_image_that_changes_is_encoded_anew(domain, tmp_path):
    before, _ = encoded(domain, Tower(), "test")
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{TRAIN}.png")
    after, kept = encoded(domain, Tower(), "test")
    assert not kept["test"]
    assert not torch.equal(before["test"].features, after["test"].features)


def test_cells_and_transfers_after_the_first_decode_no_image(train, command, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMBENCH_CACHE", str(tmp_path / "cache"))
    here, none = ["domain=phantom_oct", "domain.patients=20", "task.resamples=100"], {"cached": 0, "decoded": 0}
    records: list[dict[str, Any]] = []
    for words in (["finetune=linear_probe"], ["finetune=zero_shot"], ["finetune=linear_probe", "domain.fraction=0.5"]):
        records.append(train(*here, *words, output=tmp_path / f"{len(records)}", small=False).record)
    splits = records[0]["data"]["splits"]
    costs = [record["cost"] for record in records]
    assert costs[0]["pixels"] == none | {"decoded": sum(split["examples"] for split in splits.values())}
    assert [cost["pixels"] for cost in costs[1:]] == [none, none]
    assert [cost["features_kept"] for cost in costs[1:]] == [{"test": True}, dict.fromkeys(splits, True)]

    elsewhere = train("finetune=zero_shot", *here[1:], output=tmp_path / "other", small=False).cells[0]
    assert command("evaluate", f"cell={elsewhere}", *here[:2])[0] == 0
    (record,) = (elsewhere / "transfer").rglob("record.json")
    cost = json.loads(record.read_text())["cost"]
    assert (cost["pixels"], cost["features_kept"]) == (none, {"test": True})
