"""Copies that are planted in image sets, resized and recompressed, are found, and little else is."""

from __future__ import annotations

import csv
from collections.abc import Callable

import numpy as np
import pytest
from bench.audit_planted import Measured, measure, phantom
from PIL import Image, ImageEnhance, ImageOps
from real_data import real_set

from vlmbench.domains.audit import audit
from vlmbench.domains.base import ImageSource
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.hashing import hash_images
from vlmbench.domains.nearest import near_pairs
from vlmbench.domains.phantom.build import build_phantom
from vlmbench.domains.phantom.world import MODALITIES

SEEDS = (0, 1)
COUNT = 150


def measured(images: ImageSource, keys: list[str]) -> list[Measured]:
    """Measure with several seeds, each on other images."""
    chosen = [[str(k) for k in np.random.default_rng(s).choice(keys, min(COUNT, len(keys)), False)] for s in SEEDS]
    return [measure(images, some, seed=seed) for seed, some in zip(SEEDS, chosen, strict=True)]


def check(found: list[Measured], *, strict: bool = True) -> None:
    """Check the bars over all seeds; where `strict`, any pair found without planting counts as a false one."""
    planted = sum(each.planted for each in found)
    missed = sum(len(each.missed) for each in found)
    true = sum(each.found for each in found)
    false = sum(len(each.false) + each.across * strict for each in found)
    assert planted == len(SEEDS) * COUNT // 10
    assert 1 - missed / planted >= 0.95, [each.missed for each in found]
    assert true / (true + false) >= 0.99, [each.false for each in found]
    for each in found:
        assert each.audited == each.found + len(each.false) + each.across


@pytest.mark.real
@pytest.mark.parametrize("name", ["cxr_kermany", "derm_ham10000", "us_busi", "vqa_rad"])
def test_planted_copies_of_real_images_are_found(name: str) -> None:
    folder = real_set(name)
    found = measured(FolderImages(folder), sorted(f"images/{path.name}" for path in (folder / "images").iterdir()))
    check(found, strict=name != "us_busi")
    if name == "us_busi":  # has takes of the same scene; whoever grouped them by eye and hash agrees on all of them
        with (folder / "labels.csv").open() as file:
            group = {row["image"]: row["patient_id"] for row in csv.DictReader(file)}
        natural = [pair for each in found for pair in each.natural]
        assert natural
        assert all(group[one] == group[other] for one, other in natural)


@pytest.mark.real
def test_films_of_the_same_child_are_no_copies_of_each_other() -> None:
    folder = real_set("cxr_kermany")
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    several = [row["image"] for row in rows if sum(r["patient_id"] == row["patient_id"] for r in rows) > 1][:COUNT]
    assert len(several) == COUNT
    found = measure(FolderImages(folder), several)
    assert (found.natural, found.false, found.missed) == ([], [], [])


@pytest.mark.parametrize("modality", MODALITIES)
def test_planted_copies_of_phantoms_are_found(modality: str) -> None:
    check(measured(*phantom(modality, COUNT)))


class Changed:
    """A source in which `change of key` is an image of the key, changed."""

    def __init__(self, images: ImageSource, changes: dict[str, Callable[[Image.Image], Image.Image]]) -> None:
        self.images, self.changes = images, changes

    def load(self, key: str) -> Image.Image:
        change, _, original = key.rpartition(" of ")
        image = self.images.load(original)
        return self.changes[change](image) if change else image


def cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = round(image.width * share / 2), round(image.height * share / 2)
    return image.crop((x, y, image.width - x, image.height - y))


@pytest.mark.real
@pytest.mark.parametrize("name", ["cxr_kermany", "derm_ham10000", "us_busi", "vqa_rad"])
def test_which_changes_are_seen_through_is_as_documented(name: str) -> None:
    folder = real_set(name)
    keys = sorted(f"images/{path.name}" for path in (folder / "images").iterdir())[:: 30 if name == "vqa_rad" else 60]
    found_all: dict[str, Callable[[Image.Image], Image.Image]] = {
        "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
        "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
        "grey": lambda image: image.convert("L").convert("RGB"),
        "cropped": lambda image: cropped(image, 0.01),
    }
    found_none: dict[str, Callable[[Image.Image], Image.Image]] = {
        "mirrored": ImageOps.mirror,
        "turned": lambda image: image.rotate(90, expand=True),
        "inverted": ImageOps.invert,
    }
    changes = found_all | found_none
    copies = [f"{change} of {key}" for change in changes for key in keys]
    hashed = hash_images(Changed(FolderImages(folder), changes), keys + copies)
    place = np.arange(len(hashed.keys))
    pairs = {
        (hashed.keys[a], hashed.keys[b])
        for i, j, _ in near_pairs(hashed.looks, hashed.looks, place[: len(keys)], place[len(keys) :])
        for a, b in zip(i.tolist(), j.tolist(), strict=True)
    }
    assert {key for key in keys for change in found_all if (key, f"{change} of {key}") not in pairs} == set()
    assert [pair for pair in pairs if pair[1].split(" of ")[0] in found_none] == []


class Faint:
    """A source with a tenth of the contrast."""

    def __init__(self, images: ImageSource) -> None:
        self.images = images

    def load(self, key: str) -> Image.Image:
        return self.images.load(key).point(lambda value: round(150 + 0.1 * (value - 128)))


def test_planted_copies_of_faint_images_are_found() -> None:
    images, keys = phantom("dermoscopy", COUNT)
    faint = Faint(images)
    flat = hash_images(faint, keys).looks.flat
    assert 0 < flat.sum() < len(keys), "on both sides of the limit"
    check(measured(faint, keys))


def test_radiographs_of_a_phantom_world_share_nothing() -> None:
    found = audit(build_phantom("radiographs", "radiograph", "diagnosis", n_patients=100))
    for pair in ("train-val", "train-test", "val-test"):
        assert found[pair]["near_duplicates"] == 0
