"""Public datasets whose images are arrays: the 2D MedMNIST sets, Harvard-GF3300 and FairVLMed without JPEG files."""

from __future__ import annotations

import fcntl
import importlib.util
import io
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from make_miniature import make
from miniatures import harvard, medmnist
from PIL import Image
from published import build, config, fails

from vlmbench.domains import arrays as npz_arrays
from vlmbench.domains.arrays import mapped, member
from vlmbench.domains.base import SPLITS, DomainError, ImageError, StoredImages
from vlmbench.domains.npz import RowImages
from vlmbench.domains.published.harvard import thickness
from vlmbench.domains.published.layout import lacking
from vlmbench.domains.published.readers import read_layout
from vlmbench.domains.published.study import STUDY_SPLITS
from vlmbench.weights.source import cache_dir

SETS = sorted(medmnist.SETS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "arrays"


@pytest.fixture
def pneumonia(tmp_path: Path) -> Path:
    """A small PneumoniaMNIST of 28 px."""
    root = tmp_path / "medmnist"
    root.mkdir()
    medmnist.make("pneumoniamnist", root, sizes=(28,))
    return root


def change(root: Path, arrays: dict[str, Any], flag: str = "pneumoniamnist", drop: str = "") -> Path:
    """Write some arrays of a set's file anew, stored and not deflated."""
    path = root / f"{flag}.npz"
    with np.load(path) as file:
        kept = {key: file[key] for key in file.files if key != drop}
    np.savez(path, **(kept | arrays))
    return path


@pytest.fixture(scope="session")
def published() -> dict[str, dict[str, Any]]:
    """What the package `medmnist` publishes; its module of facts alone, the package imports torch."""
    spec = importlib.util.find_spec("medmnist")
    assert spec is not None, "the package medmnist is among the development dependencies"
    assert spec.submodule_search_locations
    where = Path(spec.submodule_search_locations[0]) / "info.py"
    facts = where.read_text(encoding="utf-8")
    found: dict[str, Any] = {}
    exec(facts[facts.index("HOMEPAGE") :], found)  # without its first lines, which make a folder in the user's home
    info: dict[str, dict[str, Any]] = found["INFO"]
    return info


@pytest.mark.parametrize("flag", SETS)
def test_a_medmnist_domain_says_what_the_package_publishes(flag: str, published: dict[str, dict[str, Any]]) -> None:
    facts, domain = published[flag], config(flag, Path("anywhere"))
    assert domain.published == facts["n_samples"]
    assert domain.licence == facts["license"]
    assert domain.settings["flag"] == flag
    for size in (28, 64, 128, 224):
        part = "" if size == 28 else f"_{size}"
        (download,) = [one for one in domain.downloads if one.when == {"size": size}]
        assert (download.source, download.checksum) == (facts[f"url{part}"], f"md5:{facts[f'MD5{part}']}")
        assert not download.unpack  # an npz is a zip
    assert len(domain.downloads) == 4
    names = list(facts["label"].values())
    for rule in domain.rules.values():
        if flag == "retinamnist":
            assert list(rule.map) == names == ["0", "1", "2", "3", "4"]
        elif facts["task"].startswith("multi-label"):
            assert rule.columns == {name: f"label_{number}" for number, name in facts["label"].items()}
        else:
            assert rule.map == facts["label"]
        assert flag == "retinamnist" or rule.labels == names
    kinds = {"multi-class": "multi-class", "ordinal-regression": "multi-class", "binary-class": "binary"}
    assert domain.kinds == [kinds.get(facts["task"], "multi-label")]
    assert medmnist.SETS[flag] == (facts["n_channels"], len(names))


def test_the_twelve_2d_sets_are_all_there(published: dict[str, dict[str, Any]]) -> None:
    assert sorted(flag for flag in published if not flag.endswith("3d")) == SETS


@pytest.mark.parametrize("flag", SETS)
def test_a_medmnist_set_is_read_with_its_own_split_labels_and_pixels(flag: str, tmp_path: Path) -> None:
    medmnist.make(flag, tmp_path, sizes=(28,), per_class=2)
    assert lacking(tmp_path, config(flag, tmp_path).layout) == []
    study, ours = (build(flag, tmp_path, "settings.size=28", f"split={split}") for split in ("study", "ours"))
    assert [row.split for row in study.examples] == [row.split for row in ours.examples]
    assert study.origin == "the official split"
    assert all(study.split(split) for split in SPLITS)
    assert len({row.group for row in ours.examples}) == len(ours.examples)
    with np.load(tmp_path / f"{flag}.npz") as file:
        for split in SPLITS:
            rows = ours.split(split)
            for row, pixels, label in zip(rows, file[f"{split}_images"], file[f"{split}_labels"], strict=True):
                carried = tuple(np.flatnonzero(label)) if ours.multi_label else tuple(label)
                assert row.labels == carried
                shown = np.asarray(ours.images.load(row.image))
                assert np.array_equal(shown, pixels if pixels.ndim == 3 else np.stack([pixels] * 3, -1))


def test_the_default_size_is_224_and_files_of_both_sizes_lie_side_by_side(tmp_path: Path) -> None:
    make("breastmnist", tmp_path)
    assert build("breastmnist", tmp_path).images.load("breastmnist_224.npz#val_images[0]").size == (224, 224)
    small = build("breastmnist", tmp_path, "settings.size=28")
    assert small.images.load("breastmnist.npz#val_images[0]").size == (28, 28)
    assert "breastmnist_64.npz is not there" in fails("breastmnist", tmp_path, "settings.size=64")
    assert "settings.size=32 is none of 28, 64" in fails("breastmnist", tmp_path, "settings.size=32")
    assert "settings has colour" in fails("breastmnist", tmp_path, "settings.colour=1")


def test_the_study_prompts_of_medmnist_are_its_label_names(tmp_path: Path) -> None:
    medmnist.make("dermamnist", tmp_path, sizes=(28,))
    study = build("dermamnist", tmp_path, "settings.size=28", "split=study")
    assert study.prompts.positive["melanocytic nevi"] == ("a photo of melanocytic nevi",)
    ours = build("dermamnist", tmp_path, "settings.size=28")
    assert "a dermoscopy image of a melanocytic nevus" in ours.prompts.positive["melanocytic nevi"]


def test_a_deflated_array_is_unpacked_once_and_a_stored_one_is_mapped_where_it_lies(
    pneumonia: Path, cache: Path
) -> None:
    first = RowImages(pneumonia, [("pneumoniamnist.npz", "test_images")])
    assert isinstance(first, StoredImages)
    assert not cache.exists()  # headers tell the size
    assert first.size("pneumoniamnist.npz#test_images[0]") == 28 * 28
    one = first.load("pneumoniamnist.npz#test_images[1]")
    (unpacked,) = cache.glob("*.npy")
    stamp = unpacked.stat().st_mtime_ns
    again = RowImages(pneumonia, [("pneumoniamnist.npz", "test_images")])
    assert again.load("pneumoniamnist.npz#test_images[1]") == one
    assert unpacked.stat().st_mtime_ns == stamp
    assert not list(cache.glob("*.part"))
    unpacked.unlink()
    path = change(pneumonia, {})
    assert isinstance(mapped(member(path, "test_images")), np.memmap)
    stored = RowImages(pneumonia, [("pneumoniamnist.npz", "test_images")])
    assert stored.load("pneumoniamnist.npz#test_images[1]") == one
    assert not list(cache.glob("*.npy"))


def test_a_fortran_ordered_array_is_mapped_as_it_is_meant(tmp_path: Path, cache: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (5, 7, 6, 3), dtype=np.uint8)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "own.npz", images=np.asfortranarray(values))
        images = RowImages(tmp_path, [("own.npz", "images")])
        assert np.array_equal(np.asarray(images.load("own.npz#images[3]")), values[3])


def test_rows_are_told_apart_by_their_content(tmp_path: Path) -> None:
    values = np.zeros((3, 4, 4), np.uint8)
    values[2] = 1
    np.savez(tmp_path / "own.npz", images=values)
    images = RowImages(tmp_path, [("own.npz", "images")])
    first, second, other = images.keys("own.npz", "images")
    assert images.digest(first) == images.digest(second) != images.digest(other)
    assert len({images.stamp(first), images.stamp(second), images.stamp(other)}) == 3
    before = images.stamp(first)
    np.savez(tmp_path / "own.npz", images=np.zeros((3, 4, 4), np.uint8), more=values)
    assert images.stamp(first) != before
    for key in ("own.npz#images[3]", "own.npz#images[-1]", "own.npz#other[0]", "own.npz"):
        with pytest.raises(ImageError, match="no such row"):
            images.size(key)


def test_a_worker_gets_the_place_of_an_array_and_not_the_array(pneumonia: Path) -> None:
    images = RowImages(pneumonia, [("pneumoniamnist.npz", "train_images")])
    (key, *_) = images.keys("pneumoniamnist.npz", "train_images")
    loaded = images.load(key)
    packed = pickle.dumps(images)
    assert len(packed) < 2_500
    assert pickle.loads(packed).load(key) == loaded


FIRST_ROW = """
import os, sys
from pathlib import Path
from vlmbench.domains.npz import RowImages
images = RowImages(Path(sys.argv[1]), [("big.npz", "images")])
print("ready", flush=True)
found = images.digest("big.npz#images[0]").hex()
print(found, [path.stat().st_ino for path in Path(os.environ["VLMBENCH_CACHE"]).glob("arrays/*.npy")])
"""


def test_processes_that_need_the_same_array_unpack_it_once(tmp_path: Path, cache: Path) -> None:
    np.savez_compressed(tmp_path / "big.npz", images=np.random.default_rng(0).integers(0, 9, (200, 64, 64), np.uint8))
    digest = RowImages(tmp_path, [("big.npz", "images")]).digest("big.npz#images[0]")
    (unpacked,) = cache.glob("*.npy")
    unpacked.unlink()
    with unpacked.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so that all of them come before the first is done
        command = [sys.executable, "-c", FIRST_ROW, str(tmp_path)]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
    answers = {process.communicate(timeout=60)[0] for process in processes}
    assert answers == {f"{digest.hex()} [{unpacked.stat().st_ino}]\n"}  # a second writer would leave another file
    assert not list(cache.glob("*.part"))


class Trap:
    """What a hostile file would hold: unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("array", ["test_images", "test_labels"])
def test_a_pickle_inside_is_refused_and_never_run(array: str, pneumonia: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    objects = np.empty(4, dtype=object)
    objects[:] = [Trap(sprung) for _ in objects]
    change(pneumonia, {array: objects})
    message = fails("pneumoniamnist", pneumonia, "settings.size=28")
    assert f"pneumoniamnist.npz: the array '{array}' is object of shape (4,)" in message
    assert "a pickle can run code" in message
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("arrays", "drop", "said"),
    [
        (
            {"train_images": np.zeros((8, 28, 28), np.float32)},
            "",
            "'train_images' is float32 of shape (8, 28, 28); images are",
        ),
        (
            {"train_images": np.zeros((8, 28, 28, 4), np.uint8)},
            "",
            "uint8 of shape (8, 28, 28, 4); images are uint8 of shape",
        ),
        ({"train_images": np.zeros((8, 32, 32), np.uint8)}, "", "images of pneumoniamnist.npz are 28 x 28"),
        ({"train_images": np.zeros((0, 28, 28), np.uint8)}, "", "there are no images in it"),
        ({"val_labels": np.zeros((3, 1), np.uint8)}, "", "val has 4 images and 3 rows of labels"),
        ({"val_labels": np.zeros(4, np.uint8)}, "", "'val_labels' is uint8 of shape (4,); labels are integers"),
        ({"val_labels": np.zeros((4, 1), np.float64)}, "", "'val_labels' is float64"),
        ({"val_labels": np.full((4, 1), 7, np.uint8)}, "", "column 'label' has the value '7' in 4 rows"),
        ({}, "val_images", "has no array 'val_images'; it has train_images, train_labels, val_labels"),
    ],
)
def test_an_array_that_is_not_as_published_is_named_with_what_it_is(
    arrays: dict[str, Any], drop: str, said: str, pneumonia: Path
) -> None:
    change(pneumonia, arrays, drop=drop)
    message = fails("pneumoniamnist", pneumonia, "settings.size=28")
    assert str(pneumonia) in message
    assert said in message


def test_a_label_that_is_neither_0_nor_1_is_named_in_a_multi_label_set(tmp_path: Path) -> None:
    medmnist.make("chestmnist", tmp_path, sizes=(28,))
    change(tmp_path, {"val_labels": np.full((28, 14), 3)}, "chestmnist")
    assert "column 'label_0' has the value '3'" in fails("chestmnist", tmp_path, "settings.size=28")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_that_is_cut_off_is_named(share: float, pneumonia: Path, cache: Path) -> None:
    path = pneumonia / "pneumoniamnist.npz"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    message = fails("pneumoniamnist", pneumonia, "settings.size=28")
    assert f"{path} is no npz file, or is cut off" in message
    assert "fetch it again" in message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_bytes_are_found_and_leave_nothing_half_unpacked(
    save: Callable[..., None], tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / "own.npz"
    save(path, images=np.random.default_rng(0).integers(0, 255, (9, 64, 64), np.uint8))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        begin = archive.getinfo("images.npy").header_offset
    content[begin + 3_000] ^= 0xFF  # in the pixels
    content[begin : begin + 4] = content[begin : begin + 4] if save is np.savez_compressed else b"XX\3\4"
    path.write_bytes(content)
    with pytest.raises(DomainError, match=r"own.npz.*'images'.*fetch the file again"):
        RowImages(tmp_path, [("own.npz", "images")]).load("own.npz#images[0]")
    assert not [*cache.glob("*.npy"), *cache.glob("*.part")]


def test_a_full_disk_is_told_with_what_is_needed_and_leaves_nothing(
    pneumonia: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = RowImages(pneumonia, [("pneumoniamnist.npz", "test_images")])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(npz_arrays.os, "replace", full)
    with pytest.raises(DomainError, match=r"takes 0.0 GiB: .*No space left.* Let VLMBENCH_CACHE name"):
        images.load("pneumoniamnist.npz#test_images[0]")
    assert not [*cache.glob("*.npy"), *cache.glob("*.part")]
    monkeypatch.undo()
    monkeypatch.setenv("VLMBENCH_CACHE", str(cache.parent))
    images.load("pneumoniamnist.npz#test_images[0]")  # goes on once there is room
    assert cache_dir() == cache.parent


def test_a_thickness_map_is_scaled_as_the_study_scales_it() -> None:
    values = np.array([[-2.0, 350.0], [174.0, 299.11959], [-50.0, 900.0], [np.nan, 0.0]], np.float32)
    assert thickness(values).tolist() == [[0, 255], [127, 218], [0, 255], [0, 1]]
    with pytest.raises(ValueError, match="shape"):
        thickness(np.zeros((2, 2, 2)))


def test_gf3300_is_read_with_its_official_split_and_attributes(tmp_path: Path) -> None:
    make("gf3300", tmp_path)
    assert lacking(tmp_path, config("gf3300", tmp_path).layout) == []
    domain = build("gf3300", tmp_path)
    assert {split: len(domain.split(split)) for split in SPLITS} == {"train": 24, "val": 8, "test": 12}
    frame = pd.read_csv(tmp_path / "data_summary.csv")
    assert [domain.label_names[row.labels[0]] for row in domain.examples] == [
        "glaucoma" if said == "yes" else "normal" for said in frame["glaucoma"]
    ]
    assert set(domain.examples[0].attributes) == {"age", "sex", "race", "ethnicity", "language", "marital_status"}
    assert domain.examples[0].attributes["age"] == frame["age"][0]
    row = domain.examples[-1]
    with np.load(tmp_path / row.image) as file:
        shown = thickness(file["rnflt"])
    assert np.array_equal(np.asarray(domain.images.load(row.image)), np.stack([shown] * 3, -1))
    images = domain.images
    assert isinstance(images, StoredImages)
    assert images.size(row.image) == (tmp_path / row.image).stat().st_size
    assert len({images.digest(row.image), images.digest(domain.examples[0].image)}) == 2
    assert pickle.loads(pickle.dumps(images)).load(row.image) == images.load(row.image)


@pytest.mark.parametrize("folder", ["data/Training", "data"])
def test_the_layout_of_the_study_gives_the_same_rows_as_the_official_one(folder: str, tmp_path: Path) -> None:
    official, study = tmp_path / "official", tmp_path / "study"
    make("gf3300", official)
    frame = pd.read_csv(official / "data_summary.csv")
    (study / "split").mkdir(parents=True)
    for row in frame.to_dict("records"):
        target = study / folder.replace("Training", str(row["use"]).capitalize()) / str(row["filename"])
        target.parent.mkdir(parents=True, exist_ok=True)
        (official / str(row["use"]).capitalize() / str(row["filename"])).rename(target)
    frame.iloc[::2].to_csv(study / "split" / "train.csv", index=False)
    frame.iloc[1::2].to_csv(study / "split" / "test.csv", index=False)
    read = read_layout("gf3300", study, {})
    wanted = read_layout("gf3300", official, {}).frame.set_index("id")
    columns = ["group", "split", "glaucoma", "gender"]
    assert read.frame.set_index("id").loc[wanted.index, columns].equals(wanted[columns])
    for image in read.frame["image"]:
        read.images.load(image)


@pytest.mark.parametrize(
    ("name", "women", "men", "train", "test"),
    [("gf3300", 1812, 1488, 2706, 594), ("fairvlmed", 5631, 4369, 8254, 1746)],
)
def test_the_study_split_has_the_published_sizes(
    name: str, women: int, men: int, train: int, test: int, tmp_path: Path
) -> None:
    frame = harvard.table(4 if name == "gf3300" else 5, np.random.default_rng(0), {"training": women + men})
    frame["gender"] = ["female"] * women + ["male"] * men
    frame.to_csv(tmp_path / "data_summary.csv", index=False)
    layout = read_layout(name, tmp_path, {})
    made = STUDY_SPLITS["per_sex"](layout.frame, layout.frame["glaucoma"], tmp_path)
    assert made.names.value_counts().to_dict() == {"train": train, "test": test}


@pytest.mark.parametrize("name", ["gf3300", "fairvlmed"])
def test_the_study_prompts_of_the_harvard_sets_are_the_published_ones(name: str, tmp_path: Path) -> None:
    make(name, tmp_path)
    prompts = build(name, tmp_path, "split=study").prompts.positive
    said = {
        "gf3300": {"normal": ("a photo of benign retina",), "glaucoma": ("a photo of glaucomatous retina",)},
        "fairvlmed": {
            "normal": ("a photo of a benign scanning laser ophthalmoscope fundus image",),
            "glaucoma": ("a photo of  a glaucoma scanning laser ophthalmoscope fundus image",),
        },
    }
    assert prompts == said[name]


def test_fairvlmed_is_read_from_its_arrays_where_there_are_no_jpeg_files(tmp_path: Path) -> None:
    harvard.fairvlmed(tmp_path, jpegs=False)
    domain = build("fairvlmed", tmp_path)
    assert {split: len(domain.split(split)) for split in SPLITS} == {"train": 24, "val": 8, "test": 12}
    row = domain.examples[0]
    assert row.image == "Training/data_00001.npz"
    with np.load(tmp_path / row.image) as file:
        assert np.array_equal(np.asarray(domain.images.load(row.image))[..., 0], file["slo_fundus"])
    assert "44 of 44 images cannot be read: Training/slo_fundus_00001.jpg" in fails(
        "fairvlmed", tmp_path, "settings.images=jpg"
    )


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("use", "holdout", "data_summary.csv: row 4: column 'use' has 'holdout', as one of 1 rows that are neither"),
        ("filename", "", "data_summary.csv: column 'filename' is empty in 1 rows, first in row 4"),
        ("glaucoma", "suspect", "column 'glaucoma' has the value 'suspect' in 1 rows"),
        ("filename", "data_0002.npz", "1 ids occur more than once, such as data_0002.npz"),
        ("filename", "data_9999.npz", "1 of 44 images cannot be read: Training/data_9999.npz: no such file"),
        ("filename", "../../data_0002.npz", "Training/../../data_0002.npz: lies outside"),
    ],
)
def test_a_row_that_is_not_as_published_is_named(column: str, value: str, said: str, tmp_path: Path) -> None:
    make("gf3300", tmp_path)
    frame = pd.read_csv(tmp_path / "data_summary.csv", dtype=str)
    frame.loc[2, column] = value
    frame.to_csv(tmp_path / "data_summary.csv", index=False)
    message = fails("gf3300", tmp_path)
    assert str(tmp_path) in message
    assert said in message


def test_a_table_without_a_column_is_named_with_the_columns_it_has(tmp_path: Path) -> None:
    make("gf3300", tmp_path)
    path = tmp_path / "data_summary.csv"
    pd.read_csv(path).drop(columns="gender").to_csv(path, index=False)
    assert f"{path}: no column 'gender'" in fails("gf3300", tmp_path)
    path.unlink()
    assert f"{path} is not there" in fails("gf3300", tmp_path)


def _no_array(path: Path) -> None:
    np.savez(path, other=np.zeros((4, 4)))


def _volume(path: Path) -> None:
    np.savez(path, rnflt=np.zeros((4, 4, 4)))


def _objects(path: Path) -> None:
    np.savez(path, rnflt=np.array([None, "x"], dtype=object))


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def _jpeg(path: Path) -> None:
    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, "JPEG")
    path.write_bytes(out.getvalue())


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_no_array, "has no array 'rnflt'; it has other"),
        (_volume, "the array 'rnflt': float64 of shape (4, 4, 4) where numbers of shape (H, W) were expected"),
        (_objects, "a pickle can run code"),
        (_cut_off, "is no npz file, or is cut off"),
        (_jpeg, "is no npz file, or is cut off"),
        (Path.unlink, "no such file"),
    ],
)
def test_a_bad_array_file_is_named_or_left_out(harm: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    make("gf3300", tmp_path)
    harm(tmp_path / "Validation" / "data_0030.npz")
    message = fails("gf3300", tmp_path, "check_images=decode")
    assert "1 of 44 images cannot be read: Validation/data_0030.npz" in message
    assert said in message
    domain = build("gf3300", tmp_path, "check_images=decode", "on_bad_image=leave_out")
    assert len(domain.split("val")) == 7
    assert [left["image"] for left in domain.left_out] == ["Validation/data_0030.npz"]


def test_a_cell_runs_on_rows_of_an_array_with_several_labels(tmp_path: Path, train: Callable[..., Any]) -> None:
    medmnist.make("chestmnist", tmp_path, sizes=(28,), per_class=2)
    ran = train(
        "domain=chestmnist",
        f"domain.root={tmp_path}",
        "domain.settings.size=28",
        "model=tiny_clip",
        "finetune=zero_shot",
        "task.resamples=100",
        small=False,
    )
    assert ran.status == 0, ran.err
    assert len(ran.predictions) == 14
