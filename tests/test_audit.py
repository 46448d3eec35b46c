"""The audit finds what splits share, by any of its five ways, and nothing where nothing is shared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vlmbench.domains.audit import audit
from vlmbench.domains.base import Domain, Example, ImageError, Split

Picture = Mapping[str, Image.Image]


class MemoryImages:
    """Images held in memory, which count how often they are loaded."""

    def __init__(self, images: Picture) -> None:
        self.images = images
        self.loads = 0

    def load(self, key: str) -> Image.Image:
        self.loads += 1
        if key not in self.images:
            raise ImageError(key, "no such image")
        return self.images[key]


def picture(seed: int) -> Image.Image:
    """Return a smooth random image, such that no two seeds are alike."""
    rng = np.random.default_rng(seed)
    coarse: NDArray[np.uint8] = rng.integers(0, 255, (12, 12), np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).convert("RGB")


def world(count: int = 30) -> tuple[dict[str, Image.Image], list[Example]]:
    splits: list[Split] = ["train", "val", "test"]
    images = {f"{i}.png": picture(i) for i in range(count)}
    return images, [Example(id=key, image=key, group=f"p{i}", split=splits[i % 3]) for i, key in enumerate(images)]


def domain(images: Picture, examples: Sequence[Example]) -> Domain:
    return Domain("x", "xray", "diagnosis", examples, MemoryImages(images))


PAIRS = ("train-val", "train-test", "val-test")


def test_clean_splits_share_nothing() -> None:
    found = audit(domain(*world()))
    for pair in PAIRS:
        counts = {kind: count for kind, count in found[pair].items() if kind != "examples"}
        assert set(counts) == {"groups", "images", "questions", "pixels", "near_duplicates", "near_duplicate_pairs"}
        assert not any(counts.values()), pair
        assert found[pair]["examples"] == []
    assert (found["max_distance"], found["flat_images"], found["unreadable"]) == (4, 0, {})
    assert json.loads(json.dumps(found)) == found


def test_shared_groups_images_and_pixels() -> None:
    images, examples = world()
    images["copy.png"] = images["0.png"].copy()
    examples += [
        Example(id="a", image="copy.png", group="new", split="test"),
        Example(id="b", image="3.png", group="other", split="val"),
        Example(id="c", image="1.png", group="p0", split="val"),
    ]
    found = audit(domain(images, examples))
    assert [found[pair]["groups"] for pair in PAIRS] == [1, 0, 0]
    assert [found[pair]["images"] for pair in PAIRS] == [1, 0, 0]
    assert [found[pair]["pixels"] for pair in PAIRS] == [1, 1, 0]
    assert found["train-test"]["examples"] == [{"kind": "pixels", "what": ["0.png", "copy.png"]}]
    assert {"kind": "images", "what": "3.png"} in found["train-val"]["examples"]
    assert {"kind": "groups", "what": "p0"} in found["train-val"]["examples"]
    assert not any(found[pair]["near_duplicates"] for pair in PAIRS), "exact copies are not counted twice"


def test_resized_brightened_and_blurred_copies_are_near_duplicates() -> None:
    images, examples = world()
    for i, change in enumerate(
        (
            lambda image: image.resize((64, 64)),
            lambda image: image.point(lambda value: min(255, value + 5)),
            lambda image: image.filter(ImageFilter.GaussianBlur(1)),
        )
    ):
        images[f"changed{i}"] = change(images["0.png"])
        examples.append(Example(id=f"n{i}", image=f"changed{i}", group=f"n{i}", split="val"))
    found = audit(domain(images, examples))
    assert found["train-val"]["near_duplicates"] == 3
    assert found["train-val"]["near_duplicate_pairs"] == 3
    assert found["train-val"]["pixels"] == 0
    first = found["train-val"]["examples"][0]
    assert first["what"] == ["0.png", "changed0"]
    assert 0 <= first["distance"] <= 4
    assert found["train-test"]["near_duplicates"] == 0


def test_distances_are_those_of_a_plain_loop() -> None:
    images, examples = world(60)
    import imagehash

    hashes = {key: imagehash.phash(image.convert("L")) for key, image in images.items()}
    rows = {split: [e.image for e in examples if e.split == split] for split in ("train", "test")}
    for limit in (24, 30):
        pairs = [(a, b) for a in rows["train"] for b in rows["test"] if hashes[a] - hashes[b] <= limit]
        found = audit(domain(images, examples), max_distance=limit)["train-test"]
        assert found["near_duplicate_pairs"] == len(pairs) > 0
        assert found["near_duplicates"] == len({b for _, b in pairs})


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = domain(*world(60))
    whole = audit(data, max_distance=24)
    monkeypatch.setattr("vlmbench.domains.audit._BLOCK", 45)
    assert audit(data, max_distance=24) == whole


def test_flat_images_are_counted_and_examples_stay_few() -> None:
    images = {f"{i}": Image.new("RGB", (40, 40), (i, i, i)) for i in range(20)}
    examples = [Example(id=key, image=key, group=key, split="train" if int(key) % 2 else "test") for key in images]
    found = audit(domain(images, examples))
    assert found["flat_images"] == 20
    assert found["train-test"]["near_duplicates"] == 10
    assert found["train-test"]["near_duplicate_pairs"] == 100
    assert len(found["train-test"]["examples"]) == 5


def test_same_question_on_the_same_image() -> None:
    images, _ = world(3)
    examples = [
        Example(id="a", image="0.png", group="g", split="train", question="Is it  Big?"),
        Example(id="b", image="0.png", group="g", split="test", question="is it big?"),
        Example(id="c", image="1.png", group="h", split="test", question="Is it big?"),
    ]
    found = audit(domain(images, examples))
    assert [found[pair]["questions"] for pair in PAIRS] == [0, 1, 0]
    assert {"kind": "questions", "what": ["0.png", "is it big?"]} in found["train-test"]["examples"]


def test_images_are_loaded_once_or_not_at_all() -> None:
    images, examples = world()
    examples += [Example(id=f"again{e.id}", image=e.image, group=e.group, split=e.split) for e in examples]
    data = domain(images, examples)
    audit(data)
    assert isinstance(data.images, MemoryImages)
    assert data.images.loads == len(images)
    found = audit(data, hashes=False)
    assert data.images.loads == len(images)
    assert "hashes=False" in found["skipped"]
    assert set(found["train-val"]) == {"groups", "images", "questions", "examples"}


def test_unreadable_images_are_reported() -> None:
    images, examples = world()
    examples.append(Example(id="x", image="gone.png", group="x", split="test"))
    assert audit(domain(images, examples))["unreadable"] == {"gone.png": "no such image"}
