"""Preprocessed images on disk: the same pixels, made once, whatever becomes of the images, the folder or the disk."""

import gc
import json
import logging
import multiprocessing
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from released import backbone_of
from releases import makers
from releases.common import sample_image
from torch import Tensor

from vlmbench.backbones.loaders import load
from vlmbench.cell.work import preprocessing_of
from vlmbench.domains.base import Domain, Example
from vlmbench.domains.codec import Codec, UnkeptError, is_random
from vlmbench.domains.datamodule import DomainDataModule, stack_pixels
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.pixels import PIXELS
from vlmbench.records.identity import relevant
from vlmbench.reporting.pairs import NOT_RECIPE

CONF = Path(__file__).parents[1] / "conf" / "model"
ASSETS = Path(__file__).parents[1] / "vlmbench" / "assets"
CONTRASTIVE = ("clip", "siglip", "siglip2", "biomedclip", "quiltnet", "pmc_clip", "conch", "medclip", "blip", "blip2")
GENERATIVE = ("qwen2_vl", "qwen3_vl", "llava_next", "llava_onevision", "gemma3", "internvl3", "llava_med", "vila15")
COUNT = 40


def contrastive(name: str, folder: Path) -> Any:
    makers()[name](folder)
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    companions = {key: str(folder / key) for key in config.get("companions", {})}
    source, settings = folder / "main", config.get("settings", {})
    loader = config.get("loader", "hf_clip")
    return load(loader, source, dtype=torch.float32, companions=companions, **settings)


def tiny(name: str) -> Any:
    return load("hf_vlm" if "llava" in name else "hf_clip", ASSETS / name, dtype=torch.float32)


def parts(made: Any) -> dict[str, Tensor]:
    return {"": made} if isinstance(made, Tensor) else made.tensors


def check_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    assert getattr(one, "tokens", None) == getattr(other, "tokens", None)
    assert parts(one).keys() == parts(other).keys()
    for name, value in parts(one).items():
        twin = parts(other)[name]
        assert (twin.dtype, twin.shape) == (value.dtype, value.shape)
        assert twin.numpy().tobytes() == value.numpy().tobytes(), name


def shapes_of_images() -> list[Image.Image]:
    noise = np.random.default_rng(3).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    sizes = ((120, 96), (60, 150), (200, 50), (32, 40), (640, 480))
    grey = sample_image(77, 55).convert("L").convert("RGB")
    return [*(sample_image(*size) for size in sizes), Image.fromarray(noise), grey]


def check_codec(backbone: Any) -> Codec:
    codec = Codec(backbone.preprocess)
    for image in shapes_of_images():
        made = backbone.preprocess(image)
        blob = codec.encode(made)
        check_same(codec.decode(blob), made)
        assert Codec.is_coded(blob)
        floats = sum(value.numel() for value in parts(made).values() if value.is_floating_point())
        assert len(blob) < floats + 600
    return codec


# ------------------------------------------------------------------------------------------------ the same pixels


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_a_contrastive_models_pixels_come_back_bit_for_bit(name, tmp_path):
    backbone = contrastive(name, tmp_path)
    check_codec(backbone)
    assert preprocessing_of(backbone)
    assert str(tmp_path) not in preprocessing_of(backbone)
    assert "0x" not in preprocessing_of(backbone)


@pytest.mark.parametrize("name", GENERATIVE)
def test_a_generative_models_inputs_come_back_bit_for_bit(name):
    backbone = backbone_of(name)
    check_codec(backbone)
    assert "/tmp" not in preprocessing_of(backbone)


@pytest.mark.parametrize("name", ["tiny_clip", "tiny_llava"])
def test_the_shipped_models_pixels_come_back_bit_for_bit(name):
    first, second = check_codec(tiny(name)), Codec(tiny(name).preprocess)
    assert first.fingerprint == second.fingerprint


def test_what_is_resized_in_floats_is_kept_as_it_is():
    def preprocess(image: Image.Image) -> Tensor:
        values = torch.from_numpy(np.asarray(image, dtype=np.float32).copy()).permute(2, 0, 1)[None]
        return torch.nn.functional.interpolate(values, (20, 20), mode="bilinear")[0] / 255

    codec = Codec(preprocess)
    for image in shapes_of_images():
        blob = codec.encode(preprocess(image))
        check_same(codec.decode(blob), preprocess(image))
    assert codec.palettes == {"": None}
    assert not Codec.is_coded(blob)


def test_one_image_off_the_table_is_kept_as_it_is():
    codec = Codec(tiny("tiny_clip").preprocess)
    made = tiny("tiny_clip").preprocess(sample_image())
    made[0, 0, 0], made[1, 1, 1], made[2, 2, 2] = -0.0, float("nan"), 1e30
    blob = codec.encode(made)
    check_same(codec.decode(blob), made)
    assert not Codec.is_coded(blob)


def test_other_preprocessings_have_other_fingerprints():
    def fingerprint(**settings: Any) -> str:
        from transformers import CLIPImageProcessorPil

        size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        processor = CLIPImageProcessorPil(**{**size, **settings})
        return Codec(lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0]).fingerprint

    settings: list[dict[str, Any]] = [
        {},
        {"resample": 2},
        {"size": {"shortest_edge": 33}},
        {"crop_size": {"height": 33, "width": 33}},
        {"image_mean": [0.48, 0.45, 0.41]},
        {"do_center_crop": False},
        {"rescale_factor": 1 / 256},
    ]
    found = [fingerprint(**one) for one in settings]
    assert len(set(found)) == len(settings)
    assert fingerprint() == found[0]


class Numbered:
    """Preprocessing that gives another result at each call, without a random number generator that others know of."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Image.Image) -> Tensor:
        self.calls += 1
        return PREPROCESS(image) + self.calls


def flipped(image: Image.Image) -> Tensor:
    return PREPROCESS(image).flip(-1) if random.random() < 0.01 else PREPROCESS(image)


@pytest.mark.parametrize("preprocess", [Numbered(), flipped])
@pytest.mark.parametrize("gib", [0.0, 1.0])
def test_random_preprocessing_is_neither_kept_nor_held(images, tmp_path, caplog, preprocess, gib):
    module = module_of(images, tmp_path / "cache", gib, preprocess=preprocess)
    for _ in range(2):
        pixels_of_test(module)
    assert module.tally.counts() == {"cached": 0, "decoded": 40}
    assert not (tmp_path / "cache").exists()
    assert "random" in caplog.text


def test_the_shipped_models_preprocessing_is_not_random():
    assert not any(is_random(tiny(name).preprocess) for name in ("tiny_clip", "tiny_llava"))


def test_what_is_no_tensor_is_not_kept():
    with pytest.raises(UnkeptError, match="str"):
        Codec(lambda image: "data:image/png;base64,")


# ------------------------------------------------------------------------------------------- the cache in a domain


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(COUNT):
        noise = np.random.default_rng(number).integers(0, 256, (40 + number % 7, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


def domain_of(folder: Path) -> Domain:
    splits = ("train", "val", "test", "test")
    rows = [Example(str(i), f"{i}.png", str(i), splits[i % 4]) for i in range(COUNT)]  # type: ignore[arg-type]
    return Domain("mine", "xray", "diagnosis", rows, FolderImages(folder))


def module_of(folder: Path, cache: Path | None, gib: float = 1.0, **settings: Any) -> DomainDataModule:
    preprocess = settings.pop("preprocess", None) or PREPROCESS
    settings = {"batch_size": 4, "eval_batch_size": 8, **settings}
    return DomainDataModule(domain_of(folder), preprocess, cache=cache, cache_gib=gib, model="m", **settings)


_PROCESSOR = tiny("tiny_clip")
PREPROCESS: Callable[[Image.Image], Tensor] = _PROCESSOR.preprocess


def pixels_of_test(module: DomainDataModule) -> Tensor:
    return torch.cat([batch["pixels"] for batch in module.ordered("test", stack_pixels)])


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called on, reading an image file is an error."""

    def refuse(*_: Any) -> Any:
        raise AssertionError("an image file was read")

    def start() -> None:
        for name in ("load", "digest"):
            monkeypatch.setattr(FolderImages, name, refuse)

    return start


@pytest.mark.parametrize("workers", [0, 2])
def test_a_warm_start_reads_no_image_file_and_gives_the_same_pixels(images, tmp_path, no_reading, workers):
    plain = module_of(images, None)
    cold = module_of(images, tmp_path / "cache", num_workers=workers)
    assert torch.equal(pixels_of_test(cold), pixels_of_test(plain))
    assert plain.tally.counts() == {"cached": 0, "decoded": 20}
    assert cold.tally.counts() == {"cached": 20, "decoded": 20}
    expected = pixels_of_test(plain)
    no_reading()
    warm = module_of(images, tmp_path / "cache", num_workers=workers)
    assert torch.equal(pixels_of_test(warm), expected)
    assert warm.tally.counts() == {"cached": 20, "decoded": 0}


def test_the_order_of_training_is_that_without_the_cache(images, tmp_path):
    def epochs(module: DomainDataModule) -> Iterator[Tensor]:
        loader = module.train_dataloader()
        for epoch in range(2):
            loader.batch_sampler.sampler.set_epoch(epoch)  # type: ignore[union-attr]
            yield torch.cat([batch["pixels"] for batch in loader])

    for one, other in zip(epochs(module_of(images, None)), epochs(module_of(images, tmp_path / "c")), strict=True):
        assert torch.equal(one, other)


def test_a_result_can_be_written_to_without_changing_the_next(images, tmp_path):
    module = module_of(images, tmp_path / "cache")
    module.warm("test")
    rows = module.rows("test")
    first = rows[0][2].clone()
    rows[0][2].zero_()
    assert torch.equal(rows[0][2], first)


def test_a_replaced_image_is_decoded_anew(images, tmp_path):
    before = pixels_of_test(module_of(images, tmp_path / "cache"))
    Image.new("RGB", (9, 9), "red").save(images / "2.png")
    after = module_of(images, tmp_path / "cache")
    pixels = pixels_of_test(after)
    assert after.tally.counts()["decoded"] == 1
    assert not torch.equal(pixels[0], before[0])
    assert torch.equal(pixels, pixels_of_test(module_of(images, None)))


def test_an_image_replaced_by_one_of_the_same_size_and_date_is_decoded_anew(images, tmp_path):
    for number in (2, 3):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(images / f"{number}.bmp")
        os.utime(images / f"{number}.bmp", (0, 0))  # as archives with no dates are unpacked
    rows = [Example("a", "2.bmp", "a", "test")]
    domain = Domain("mine", "xray", "diagnosis", rows, FolderImages(images))

    def pixels() -> Tensor:
        cache = tmp_path / "cache"
        return pixels_of_test(
            DomainDataModule(domain, PREPROCESS, eval_batch_size=1, cache=cache, cache_gib=1, batch_size=1)
        )

    before = pixels()
    (images / "3.bmp").replace(images / "2.bmp")
    assert not torch.equal(pixels(), before)


def test_the_same_content_under_another_path_is_kept_once(images, tmp_path):
    pixels_of_test(module_of(images, tmp_path / "cache"))
    moved = tmp_path / "moved"
    shutil.copytree(images, moved)
    module = module_of(moved, tmp_path / "cache")
    pixels_of_test(module)
    assert module.tally.counts() == {"cached": 20, "decoded": 0}


def test_a_damaged_file_is_decoded_anew_and_mended(images, tmp_path, no_reading):
    expected = pixels_of_test(module_of(images, tmp_path / "cache"))
    (data,) = (tmp_path / "cache" / PIXELS).glob("*/data.bin")
    held = bytearray(data.read_bytes())
    held[len(held) // 2] ^= 255
    data.write_bytes(held)
    module = module_of(images, tmp_path / "cache")
    assert torch.equal(pixels_of_test(module), expected)
    assert module.tally.counts() == {"cached": 19, "decoded": 1}
    no_reading()
    assert torch.equal(pixels_of_test(module_of(images, tmp_path / "cache")), expected)


def test_an_image_that_cannot_be_read_fails_where_it_is_asked_for(images, tmp_path):
    (images / "2.png").write_bytes(b"no image")
    (images / "6.png").unlink()
    module = module_of(images, tmp_path / "cache")
    module.warm("test")
    rows = module.rows("test")
    for index, reason in ((0, "header is broken"), (2, "no such file")):
        with pytest.raises(Exception, match=reason):
            rows[index]
    assert rows[1][2].shape[0] == 3


def test_a_cache_that_cannot_be_written_costs_one_warning(images, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    module = module_of(images, tmp_path / "file")
    assert torch.equal(pixels_of_test(module), pixels_of_test(module_of(images, None)))
    pixels_of_test(module)
    (warning,) = caplog.records
    assert "cannot be written" in warning.getMessage()
    assert str(tmp_path / "file") in warning.getMessage()


def test_a_cache_that_can_only_be_read_is_read(images, tmp_path, caplog, monkeypatch, no_reading):
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    expected = pixels_of_test(module_of(images, tmp_path / "cache"))
    monkeypatch.setattr("vlmbench.domains.shelf.Shelf.hold", refuse)
    no_reading()
    assert torch.equal(pixels_of_test(module_of(images, tmp_path / "cache")), expected)
    (warning,) = caplog.records
    assert "Read-only" in warning.getMessage()


def test_preprocessing_that_fails_for_a_synthetic_image_is_not_kept(images, tmp_path, caplog):
    def preprocess(image: Image.Image) -> Tensor:
        if image.width > 50:
            raise ValueError("too wide")
        return PREPROCESS(image)

    module = module_of(images, tmp_path / "cache", preprocess=preprocess)
    assert torch.equal(pixels_of_test(module), pixels_of_test(module_of(images, None)))
    (warning,) = caplog.records
    assert "too wide" in warning.getMessage()


def test_a_full_disk_costs_one_warning(images, tmp_path, caplog, monkeypatch):
    def full(handle: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vlmbench.domains.store._write", full)
    module = module_of(images, tmp_path / "cache")
    assert torch.equal(pixels_of_test(module), pixels_of_test(module_of(images, None)))
    pixels_of_test(module)
    (warning,) = caplog.records
    assert "No space left on device" in warning.getMessage()


def test_what_does_not_fit_is_decoded_and_said(images, tmp_path, caplog):
    size = PREPROCESS(sample_image()).numel() + 300
    module = module_of(images, tmp_path / "cache", gib=10 * size / 2**30)
    assert torch.equal(pixels_of_test(module), pixels_of_test(module_of(images, None)))
    (warning,) = caplog.records
    assert "trainer.pixel_cache_gib" in warning.getMessage()
    held = sum(path.stat().st_size for path in (tmp_path / "cache" / PIXELS).glob("*/*.bin"))
    assert held <= 10 * size
    again = module_of(images, tmp_path / "cache", gib=10 * size / 2**30)
    pixels_of_test(again)
    assert 0 < again.tally.counts()["cached"] < 20


def test_workers_read_what_is_kept_in_part_and_are_not_started_for_a_split_that_is_kept(images, tmp_path):
    gib = 10 * (PREPROCESS(sample_image()).numel() + 300) / 2**30
    part = module_of(images, tmp_path / "part", gib=gib, num_workers=2)
    assert part.ordered("test", stack_pixels).num_workers == 2
    assert torch.equal(pixels_of_test(part), pixels_of_test(module_of(images, None)))
    counts = part.tally.counts()
    assert counts["cached"] > 0
    assert counts["decoded"] > 10
    assert module_of(images, tmp_path / "whole", num_workers=2).train_dataloader().num_workers == 0
    assert module_of(images, None, num_workers=2).train_dataloader().num_workers == 2


def test_nothing_is_kept_with_a_size_of_zero(images, tmp_path):
    pixels_of_test(module_of(images, tmp_path / "cache", gib=0))
    assert not (tmp_path / "cache").exists()


def test_numbers_not_of_8_bits_are_said_once(images, tmp_path, caplog):
    def preprocess(image: Image.Image) -> Tensor:
        return torch.from_numpy(np.asarray(image.resize((8, 8)), dtype=np.float32).copy()).sqrt()

    module = module_of(images, tmp_path / "cache", preprocess=preprocess)
    assert torch.equal(pixels_of_test(module), pixels_of_test(module_of(images, None, preprocess=preprocess)))
    (warning,) = caplog.records
    assert "four times the room" in warning.getMessage()


def test_the_folder_says_what_it_is(images, tmp_path):
    pixels_of_test(module_of(images, tmp_path / "cache", settings="size 32"))
    (about,) = (tmp_path / "cache" / PIXELS).glob("*/about.json")
    said = json.loads(about.read_text())
    assert (said["model"], said["settings"]) == ("m", "size 32")
    assert "Safe to delete" in said["what"]
    assert said["libraries"]["pillow"]
    assert said["created"]


def test_other_settings_have_a_folder_of_their_own(images, tmp_path):
    for settings in ("a", "b", "a"):
        pixels_of_test(module_of(images, tmp_path / "cache", settings=settings))
    assert len(list((tmp_path / "cache" / PIXELS).glob("*/about.json"))) == 2


def test_the_longest_unused_folder_gives_way_unless_it_is_in_use(images, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    cache, size = tmp_path / "cache", 20 * (PREPROCESS(sample_image()).numel() + 300)
    for settings in ("oldest", "older"):
        pixels_of_test(module_of(images, cache, settings=settings))
    held = module_of(images, cache, settings="held")
    pixels_of_test(held)
    gc.collect()
    for path in (cache / PIXELS).glob("*/about.json"):
        age = {"held": 3000, "oldest": 2000, "older": 1000}[json.loads(path.read_text())["settings"]]
        os.utime(path.parent / "in-use", (path.stat().st_mtime - age,) * 2)
    pixels_of_test(module_of(images, cache, gib=3.4 * size / 2**30, settings="new"))
    left = {json.loads(path.read_text())["settings"] for path in (cache / PIXELS).glob("*/about.json")}
    assert left == {"held", "older", "new"}
    assert not caplog.records
    assert not list((cache / PIXELS).glob("removed-*"))


@pytest.mark.parametrize("chunk", [4, 512])
def test_two_processes_build_it_once(images, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("vlmbench.domains.pixels._CHUNK", chunk)
    expected = pixels_of_test(module_of(images, None))
    context = multiprocessing.get_context("fork")
    decoded = context.Array("q", 2)

    def work(number: int) -> None:
        torch.set_num_threads(1)
        module = module_of(images, tmp_path / "cache")
        assert torch.equal(pixels_of_test(module), expected)
        decoded[number] = module.tally.counts()["decoded"]

    workers = [context.Process(target=work, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sum(decoded[:]) == 20


# --------------------------------------------------------------------------------------------------------- a cell


def test_a_cell_predicts_the_same_with_the_cache_off_cold_and_warm(train, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    table = ["image,label,patient_id,split"]
    for number in range(24):
        noise = np.random.default_rng(number).integers(0, 256, (48, 40, 3), dtype=np.uint8)
        noise[..., 0] //= 1 + number % 2
        Image.fromarray(noise).save(folder / "images" / f"{number}.png")
        split = ("train", "train", "train", "train", "val", "val", "test", "test")[number % 8]
        table.append(f"images/{number}.png,{'ab'[number % 2]},{number},{split}")
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    arguments = [
        *("model=tiny_clip", "finetune=lora", "domain=folder", f"domain.root={folder}", "domain.modality=xray"),
        *("trainer.max_epochs=1", "trainer.batch_size=4", "task.resamples=100"),
    ]
    runs = {}
    for name, gib in (("off", 0), ("cold", 1), ("warm", 1)):
        ran = train(*arguments, f"trainer.pixel_cache_gib={gib}", output=tmp_path / name, small=False)
        assert ran.status == 0, ran.err
        runs[name] = ran
    (files,) = {len(ran.cells) for ran in runs.values()}
    assert files == 1
    assert len({(ran.cells[0] / "predictions.parquet").read_bytes() for ran in runs.values()}) == 1
    assert len({ran.record["identity"] for ran in runs.values()}) == 1
    assert len({ran.cells[0].name for ran in runs.values()}) == 1
    pixels = {name: ran.record["cost"]["pixels"] for name, ran in runs.items()}
    assert pixels["off"]["decoded"] == 24
    assert pixels["cold"]["decoded"] >= 24
    assert pixels["warm"]["decoded"] == 0
    assert pixels["warm"]["cached"] >= 24
    assert not list((tmp_path / "off").rglob(PIXELS))


def test_the_size_of_the_cache_is_part_of_neither_identity_nor_recipe():
    assert relevant({"trainer": {"pixel_cache_gib": 3, "max_epochs": 1}}) == {"trainer": {"max_epochs": 1}}
    assert "trainer.pixel_cache_gib" in NOT_RECIPE
