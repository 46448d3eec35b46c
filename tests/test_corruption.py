"""Corruptions: worse with every severity, repeatable, grey stays grey, and evaluation alone sees them."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from PIL import Image

from vlmbench.cell.domain import audited, build_domain
from vlmbench.config import schema
from vlmbench.config.domain_checks import check_domain
from vlmbench.config.schema.domain import CORRUPTIONS
from vlmbench.domains.base import StoredImages
from vlmbench.domains.corruption import CONSTANTS, corrupt, corrupted, uncorrupted
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.phantom.world import World

PHANTOM = schema.PhantomDomainConfig(name="phantom", modality="ultrasound", modalities=["ultrasound"], patients=20)
KINDS = list(CONSTANTS)


def picture(size=96, modality="dermoscopy"):
    return Image.fromarray(World(0, size).render(modality, 3, 0))


def array(image):
    return np.asarray(image).astype(float)


def damage(image, worse):
    return float(np.abs(array(worse) - array(image)).mean())


def test_the_schema_and_the_functions_have_the_same_kinds():
    assert set(CORRUPTIONS) == set(CONSTANTS)
    assert all(len(constants) == 5 for constants in CONSTANTS.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("modality", ["radiograph", "histology"])
@pytest.mark.parametrize("size", [96, 400])
def test_each_severity_does_more_damage_than_the_one_before(kind, modality, size):
    image = picture(size, modality)
    done = [damage(image, corrupt(image, kind, severity)) for severity in range(1, 6)]
    assert done[0] > 0.2
    assert done == sorted(done)
    assert len(set(done)) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_it_depends_on_key_seed_kind_and_severity_alone(kind):
    image = picture()
    once = corrupt(image, kind, 3, key="a", seed=1).tobytes()
    corrupt(image, kind, 2, key="b")
    assert corrupt(image, kind, 3, key="a", seed=1).tobytes() == once
    drawn = {corrupt(image, kind, 3, key=key, seed=seed).tobytes() for key, seed in [("a", 1), ("b", 1), ("a", 2)]}
    assert len(drawn) == (3 if kind == "noise" else 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(50, 80), (300, 517), (224, 224), (1, 1), (1, 400)])
def test_size_and_mode_stay_and_grey_stays_grey(kind, shape):
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 256, (*shape, 1), dtype=np.uint8), 3, axis=2)
    worse = corrupt(Image.fromarray(grey), kind, 5)
    assert worse.size == shape[::-1]
    assert worse.mode == "RGB"
    assert (np.ptp(np.asarray(worse), axis=2) == 0).all()


def test_the_noise_has_the_published_deviation():
    grey = Image.new("RGB", (224, 224), (128, 128, 128))
    colour = Image.new("RGB", (224, 224), (128, 120, 128))
    for image in (grey, colour):
        for severity in (1, 2):
            change = array(corrupt(image, "noise", severity)) - array(image)
            assert change.std() / 255 == pytest.approx(CONSTANTS["noise"][severity - 1], rel=0.02)
    # Colour gets its own noise in each channel.
    change = array(corrupt(colour, "noise", 1)) - array(colour)
    assert abs(np.corrcoef(change[..., 0].ravel(), change[..., 1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_image_seen_at_224_is_as_bad_as_a_small_one(kind):
    def seen(size):
        image = picture(224).resize((size, size), Image.Resampling.BICUBIC)
        small, worse = (one.resize((224, 224), Image.Resampling.BOX) for one in (image, corrupt(image, kind, 4)))
        return damage(small, worse)

    assert seen(672) == pytest.approx(seen(224), rel=0.25)


def test_contrast_and_brightness_are_as_published():
    image = picture(96)
    pixels = array(image)
    mean = pixels.mean(axis=(0, 1))
    expected = ((pixels - mean) * 0.2 + mean).round()
    assert np.array_equal(array(corrupt(image, "contrast", 3)), expected)
    import colorsys

    lighter = np.asarray(corrupt(image, "brightness", 2))
    for y, x in [(0, 0), (40, 40), (48, 60), (90, 12)]:
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[y, x] / 255))
        wanted = np.array(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2))) * 255
        assert np.abs(lighter[y, x] - wanted).max() <= 0.51
    black = corrupt(Image.new("RGB", (4, 4)), "brightness", 5)
    assert black.getpixel((0, 0)) == (128, 128, 128)


def test_resolution_leaves_squares():
    image = picture(96)
    seen = np.asarray(corrupt(image, "resolution", 5))
    assert np.array_equal(seen[::4], seen[1::4])
    assert np.array_equal(seen[:, ::4], seen[:, 3::4])


def test_what_is_kept_of_clean_files_is_not_taken_for_worse_ones(tmp_path):
    picture().save(tmp_path / "a.png")
    clean = FolderImages(tmp_path)
    sources: list[StoredImages] = [clean]
    for kind, seed in itertools.product(KINDS, (0, 1)):
        source = corrupted(clean, kind, 3, seed)
        assert isinstance(source, StoredImages)
        sources.append(source)
    assert len({source.stamp("a.png") for source in sources}) == len(sources)
    assert len({source.digest("a.png") for source in sources}) == len(sources)
    assert {source.size("a.png") for source in sources} == {clean.size("a.png")}
    assert all(len(source.digest("a.png")) == 32 for source in sources)
    assert uncorrupted(sources[1]) is clean
    assert uncorrupted(clean) is clean


def test_a_setting_that_decides_nothing_makes_no_other_cell():
    assert dataclasses.replace(PHANTOM, severity=5, corruption_seed=1, fraction_seed=2) == PHANTOM
    noisy = dataclasses.replace(PHANTOM, corruption="noise", severity=5, corruption_seed=1)
    assert noisy.shown_name() == "phantom~noise5-s1"


def test_a_corrupted_domain_has_the_same_rows_and_is_audited_clean():
    plain = build_domain(PHANTOM, "diagnosis")
    noisy = build_domain(dataclasses.replace(PHANTOM, corruption="noise", severity=5), "diagnosis")
    assert noisy.examples == plain.examples
    assert noisy.fingerprint != plain.fingerprint
    assert noisy.name == "phantom~noise5"
    key = plain.examples[0].image
    assert noisy.images.load(key).tobytes() == corrupt(plain.images.load(key), "noise", 5, key=key).tobytes()
    assert not isinstance(noisy.images, StoredImages)
    assert audited(noisy, hashes=True).audit == audited(plain, hashes=True).audit


def test_noise_hides_no_copy_from_the_audit(tmp_path):
    for name in ("a.png", "b.png"):
        picture().save(tmp_path / name)
    plain = build_domain(PHANTOM, "diagnosis")
    first = plain.examples[0]
    rows = [
        dataclasses.replace(first, split="train", id="a", image="a.png"),
        dataclasses.replace(first, split="test", id="b", image="b.png"),
    ]
    images = corrupted(FolderImages(tmp_path), "noise", 5)
    assert images.load("a.png").tobytes() != images.load("b.png").tobytes()
    found = audited(dataclasses.replace(plain, examples=rows, images=images), hashes=True).audit
    assert found["train-test"]["pixels"] == 1


def test_training_on_corrupted_images_is_refused(command):
    status, _, err = command("train", "finetune=lora", "domain.corruption=blur")
    assert status == 2
    assert "train clean, then python -m vlmbench.evaluate" in err
    status, _, err = command("train", "domain.corruption=blurr")
    assert status == 2
    assert "Did you mean 'blur'?" in err
    status, _, err = command("train", "domain.corruption=blur", "domain.severity=6")
    assert status == 2
    assert "between 1 and 5" in err
    check_domain(dataclasses.replace(PHANTOM, corruption="blur"), "diagnosis")


def test_a_cell_is_evaluated_on_its_own_test_split_made_worse(train, command):
    ran = train("finetune=linear_probe")
    (cell,) = ran.cells
    same = ("domain=phantom_radiograph", "domain.patients=24")
    status, _, err = command(
        "evaluate", "-m", f"cell={cell}", *same, "domain.corruption=noise,jpeg", "domain.severity=1,5"
    )
    assert status == 0, err
    records = [json.loads(path.read_text()) for path in (cell / "transfer").rglob("record.json")]
    names = {record["cell"]["domain"] for record in records}
    assert names == {f"phantom_radiograph~{kind}{severity}" for kind in ("noise", "jpeg") for severity in (1, 5)}
    assert {record["trained_on"] for record in records} == {"phantom_radiograph"}
    assert {record["n"]["examples"] for record in records} == {ran.record["n"]["examples"]}
    import pandas as pd

    for path in (cell / "transfer").rglob("predictions.parquet"):
        assert list(pd.read_parquet(path)["example_id"]) == list(ran.predictions["example_id"])
        assert not pd.read_parquet(path)["score_0"].equals(ran.predictions["score_0"])


def test_an_untrained_cell_may_be_run_on_corrupted_images(train, command):
    ran = train("finetune=zero_shot", "domain.corruption=contrast", "domain.severity=2")
    assert ran.status == 0, ran.err
    assert ran.record["cell"]["domain"] == "phantom_radiograph~contrast2"
    # Its folder can be named on the command line, which has no "~" in a value.
    (cell,) = ran.cells
    status, _, err = command("evaluate", f"cell={cell}", "domain=phantom_oct", "domain.patients=20")
    assert status == 0, err
