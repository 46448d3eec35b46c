"""The audit finds what splits and domains share, and nothing where nothing is shared, and looks at an image once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from real_data import real_set

from vlmbench.cell.domain import audited
from vlmbench.domains import nearest
from vlmbench.domains.against import audit_against
from vlmbench.domains.audit import audit
from vlmbench.domains.audit_text import text
from vlmbench.domains.base import Domain, Example, ImageError, Split
from vlmbench.domains.folder import build_folder
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.hamming import close_hashes
from vlmbench.domains.hashing import FOLDER, Hashed, hash_images
from vlmbench.domains.memo import DIGESTS
from vlmbench.domains.vqa_jsonl import build_vqa_jsonl

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
KINDS = {
    *("groups", "images", "questions", "questions_on_copies"),
    *("pixels", "near_duplicates", "near_duplicate_pairs"),
}


def test_clean_splits_share_nothing() -> None:
    found = audit(domain(*world()))
    for pair in PAIRS:
        counts = {kind: count for kind, count in found[pair].items() if kind != "examples"}
        assert set(counts) == KINDS
        assert not any(counts.values()), pair
        assert found[pair]["examples"] == []
    assert (found["max_distance"], found["flat_images"], found["unreadable"]) == (8, 0, {})
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
    shown = found["train-val"]["examples"]
    assert sorted(example["what"] for example in shown) == [["0.png", f"changed{i}"] for i in range(3)]
    assert all(0 <= example["distance"] <= 8 and 0.97 < example["alike"] <= 1 for example in shown)
    assert found["train-test"]["near_duplicates"] == 0


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 5, 8, 11, 12, 24, 30, 64])
def test_close_hashes_are_those_of_a_plain_loop(limit: int) -> None:
    rng = np.random.default_rng(limit)
    ones = np.unique(rng.integers(0, 2**64, 300, dtype=np.uint64))
    others = [int(one) ^ sum(1 << int(bit) for bit in rng.choice(64, int(n), False)) for n, one in enumerate(ones[:64])]
    hashes = np.unique(np.array([*others, int(ones[0]), 0, 2**64 - 1], dtype=np.uint64))
    wanted = [(i, j) for i, a in enumerate(ones) for j, b in enumerate(hashes) if int(a ^ b).bit_count() <= limit]
    found = [pair for i, j in close_hashes(ones, hashes, limit) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    assert sorted(found) == wanted
    assert len(wanted) > 0


def many_near() -> Domain:
    """Ten scenes with twelve slightly different takes of each, over all splits."""
    rng = np.random.default_rng(0)
    images = {}
    for scene in range(10):
        for take in range(12):
            noisy = np.asarray(picture(scene)) + rng.normal(0, 1, (96, 96, 3))
            images[f"{scene}.{take}"] = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    splits: list[Split] = ["train", "val", "test"]
    return domain(images, [Example(id=k, image=k, group=k, split=splits[i % 3]) for i, k in enumerate(images)])


def test_every_pair_of_takes_of_a_scene_is_found_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = many_near()
    whole = audit(data)
    for pair in PAIRS:
        assert whole[pair]["near_duplicates"] == 40
        assert whole[pair]["near_duplicate_pairs"] == 160
    for name, size in {"nearest._ROWS": 7, "nearest._TILE": 3, "nearest._SIDE": 3, "hamming._BLOCK": 5}.items():
        monkeypatch.setattr(f"vlmbench.domains.{name}", size)
    small = audit(data)
    for pair in PAIRS:
        for kind in KINDS:
            assert small[pair][kind] == whole[pair][kind]


def test_standard_views_that_share_all_but_the_detail_are_no_copies() -> None:
    frame = np.asarray(picture(999), dtype=float)
    images, examples = world(90)
    for i, key in enumerate(images):  # what all share is three times as strong as what is their own
        mixed = 0.75 * frame + 0.25 * np.asarray(picture(i), dtype=float)
        images[key] = Image.fromarray(mixed.astype(np.uint8))
    images["copy"] = images["0.png"].resize((70, 70))
    examples.append(Example(id="copy", image="copy", group="copy", split="test"))
    found = audit(domain(images, examples))
    assert [found[pair]["near_duplicate_pairs"] for pair in PAIRS] == [0, 1, 0]


def test_flat_images_are_alike_by_grey_level_alone_and_examples_stay_few() -> None:
    sizes = (40, 50)  # odd and even ones differ in size, and so in pixels
    images = {f"{i}": Image.new("RGB", (sizes[i % 2], 40), (i // 2 * 9,) * 3) for i in range(20)}
    examples = [Example(id=key, image=key, group=key, split="train" if int(key) % 2 else "test") for key in images]
    found = audit(domain(images, examples))
    assert found["flat_images"] == 20
    assert found["train-test"]["near_duplicates"] == 10
    assert found["train-test"]["near_duplicate_pairs"] == 10
    assert len(found["train-test"]["examples"]) == 5


def test_images_of_the_same_pixels_count_each_and_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    near = nearest._Comparison.near

    def counted(self: Any, rows: Any, columns: Any) -> Any:
        compared.append(len(rows))
        return near(self, rows, columns)

    monkeypatch.setattr(nearest._Comparison, "near", counted)
    small = picture(0).resize((60, 60))
    images = {f"{i}": picture(0) if i % 2 else small for i in range(80)} | {"x": picture(1)}
    examples = [
        Example(id=key, image=key, group=key, split="train" if i < 40 else "test", question="Why?")
        for i, key in enumerate(images)
    ]
    found = audit(domain(images, examples))["train-test"]
    assert (found["pixels"], found["near_duplicates"], found["near_duplicate_pairs"]) == (40, 40, 800)
    assert found["questions_on_copies"] == 40
    assert sum(compared) < 10


def test_black_images_that_differ_in_size_are_all_alike() -> None:
    images: dict[str, Image.Image] = {f"{i}": Image.new("RGB", (40 + i, 40)) for i in range(100)} | {"x": picture(1)}
    examples = [
        Example(id=key, image=key, group=key, split="train" if i % 2 else "test") for i, key in enumerate(images)
    ]
    found = audit(domain(images, examples))["train-test"]
    assert (found["near_duplicates"], found["near_duplicate_pairs"], found["pixels"]) == (50, 2500, 0)


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


def test_same_question_on_a_copy_and_on_a_near_duplicate() -> None:
    images, _ = world(3)
    images |= {
        "same.png": images["0.png"].copy(),
        "near.png": images["0.png"].resize((60, 60)),
        "other.png": picture(9),
    }
    questions = {"0.png": ["Is it big?", "Where?"], "same.png": ["is it  BIG?"], "near.png": ["Where?", "Why?"]}
    examples = [
        Example(id=f"{key}{n}", image=key, group=key, split="train" if key == "0.png" else "test", question=question)
        for key, asked in {**questions, "other.png": ["Is it big?"]}.items()
        for n, question in enumerate(asked)
    ]
    found = audit(domain(images, examples))["train-test"]
    assert (found["questions"], found["questions_on_copies"]) == (0, 2)
    shown = [example["what"] for example in found["examples"] if example["kind"] == "questions_on_copies"]
    assert sorted(shown) == [["0.png", "near.png", "where?"], ["0.png", "same.png", "is it big?"]]


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


def test_a_record_names_some_unreadable_images_and_counts_all() -> None:
    examples = [Example(id=f"{i}", image=f"{i:02d}.png", group="g", split="test") for i in range(50)]
    found = audited(domain({}, examples), hashes=True).audit
    assert found["unreadable_images"] == 50
    assert list(found["unreadable"]) == [f"{i:02d}.png" for i in range(20)]


class CountedFolder(FolderImages):
    """A folder that counts what is read of it."""

    def __init__(self, root: Path, *, allow_absolute: bool = False) -> None:
        super().__init__(root, allow_absolute=allow_absolute)
        self.read: Counter[str] = Counter()

    def load(self, key: str) -> Image.Image:
        self.read["load"] += 1
        return super().load(key)

    def digest(self, key: str) -> bytes:
        self.read["digest"] += 1
        return super().digest(key)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of thirty images, and an empty cache."""
    monkeypatch.setenv("VLMBENCH_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "images"
    root.mkdir()
    for key, image in world()[0].items():
        image.save(root / key)
    return root


def hashed(root: Path) -> tuple[Hashed, Counter[str]]:
    images = CountedFolder(root)
    return hash_images(images, [f"{i}.png" for i in range(30)]), images.read


def same(a: Hashed, b: Hashed) -> bool:
    arrays = ((a.pixels, b.pixels), (a.looks.phashes, b.looks.phashes), (a.looks.thumbs, b.looks.thumbs))
    return a.keys == b.keys and a.unreadable == b.unreadable and all((x == y).all() for x, y in arrays)


def test_a_second_audit_reads_no_image(folder: Path) -> None:
    first, read = hashed(folder)
    assert read == {"load": 30, "digest": 30}
    again, read = hashed(folder)
    assert not read
    assert same(first, again)
    assert first.stored is not None
    assert first.stored[3] == FolderImages(folder).digest("3.png").rstrip(b"\0")
    assert same(first, hash_images(MemoryImages(world()[0]), first.keys)), "as without a cache"


def test_building_a_domain_audits_no_image_anew_and_a_second_start_reads_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{i}.png,{'ab'[i % 2]},p{i}" for i in range(30)]
    (folder / "labels.csv").write_text("\n".join(["image,label,patient_id", *rows]) + "\n")
    monkeypatch.setattr("vlmbench.domains.folder.FolderImages", CountedFolder)
    for loads in (30, 0):
        built = build_folder("mine", str(folder), "xray", split_column=None, check_images="decode")
        audit(built)
        assert isinstance(built.images, CountedFolder)
        assert built.images.read["load"] == built.images.read["digest"] == loads


def test_a_changed_file_is_read_again_and_a_moved_one_is_not_decoded(folder: Path) -> None:
    first, _ = hashed(folder)
    picture(77).save(folder / "4.png")
    changed, read = hashed(folder)
    assert read == {"load": 1, "digest": 1}
    assert [i for i in range(30) if first.pixels[i] != changed.pixels[i]] == [4]
    moved = folder.rename(folder.with_name("elsewhere"))
    again, read = hashed(moved)
    assert read == {"digest": 30}, "its bytes are known, only where they lie is new"
    assert same(changed, again)


def test_damaged_entries_are_made_again_and_mended(folder: Path) -> None:
    first, _ = hashed(folder)
    for part, loads in ((FOLDER, 1), (DIGESTS, 0)):
        path = folder.parent / "cache" / part / "data.bin"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        again, read = hashed(folder)
        assert read["load"] == loads
        assert same(first, again)
        assert not hashed(folder)[1], "mended"


@pytest.mark.parametrize("part", [FOLDER, DIGESTS])
@pytest.mark.parametrize("name", ["data.bin", "index.bin"])
def test_a_torn_cache_is_made_again(folder: Path, part: str, name: str) -> None:
    first, _ = hashed(folder)
    path = folder.parent / "cache" / part / name
    os.truncate(path, path.stat().st_size - 20)
    again, read = hashed(folder)
    assert 0 < sum(read.values()) < 10
    assert same(first, again)
    assert not hashed(folder)[1], "mended"


def test_a_cache_that_cannot_be_written_costs_time_and_one_warning(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = hashed(folder)
    (folder.parent / "file").write_text("no folder")
    monkeypatch.setenv("VLMBENCH_CACHE", str(folder.parent / "file" / "cache"))
    monkeypatch.setattr("vlmbench.domains.hashing._CHUNK", 7)
    again, read = hashed(folder)
    assert same(first, again)
    assert read["load"] == 30
    assert len([record for record in caplog.records if "hashed anew" in record.message]) == 1


def test_unreadable_files_are_named_with_and_without_a_cache(folder: Path) -> None:
    (folder / "2.png").write_bytes(b"no image")
    (folder / "5.png").write_bytes(b"no image")
    (folder / "7.png").unlink()
    for _ in range(2):
        found, read = hashed(folder)
        assert list(found.unreadable) == ["2.png", "5.png", "7.png"]
        assert found.unreadable["7.png"] == "no such file"
        assert found.unreadable["2.png"] == found.unreadable["5.png"] != ""
        assert len(found.keys) == len(found.pixels) == len(found.looks.thumbs) == 27
    assert read == {"load": 1}


def test_two_processes_at_once_give_the_same(folder: Path) -> None:
    program = (
        "import sys; from vlmbench.domains.hashing import hash_images;"
        "from vlmbench.domains.folder_images import FolderImages;"
        "found = hash_images(FolderImages(sys.argv[1]), [f'{i}.png' for i in range(30)]);"
        "print(b''.join(found.pixels.tolist()).hex(), found.looks.phashes.tolist())"
    )
    command = [sys.executable, "-c", program, str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate(timeout=60)[0] for process in running)
    assert first == second != ""
    found, read = hashed(folder)
    assert not read
    assert first.split(" ", 1)[1].strip() == str(found.looks.phashes.tolist())


def test_two_domains_in_different_kinds_of_source(folder: Path) -> None:
    images, examples = world()
    mine = Domain("mine", "xray", "diagnosis", examples, FolderImages(folder))
    theirs_images: dict[str, Image.Image] = {
        "a": images["0.png"],  # of my train
        "b": images["0.png"].resize((64, 64)),
        "c": images["1.png"],  # of my val
        "0.png": picture(500),  # of the same name alone
    }
    rows = [
        Example(id=key, image=key, group=group, split=split)
        for (key, group), split in zip(
            {"a": "p0", "b": "q", "c": "r", "0.png": "s"}.items(), SPLITS_OF_FOUR, strict=True
        )
    ]
    found = audit_against(mine, Domain("theirs", "xray", "diagnosis", rows, MemoryImages(theirs_images)))
    pairs = {name: counts for name, counts in found.items() if "-" in name}
    assert len(pairs) == 9
    assert {n: c["pixels"] for n, c in pairs.items() if c["pixels"]} == {"train-test": 1, "val-train": 1}
    assert {n: c["near_duplicates"] for n, c in pairs.items() if c["near_duplicates"]} == {"train-test": 1}
    assert {n: c["groups"] for n, c in pairs.items() if c["groups"]} == {"train-test": 1}
    assert not any(counts["bytes"] for counts in pairs.values()), "not told without files"
    assert {"kind": "pixels", "what": ["0.png", "a"]} in found["train-test"]["examples"]
    assert json.loads(json.dumps(found)) == found
    back = audit_against(Domain("theirs", "xray", "diagnosis", rows, MemoryImages(theirs_images)), mine)
    assert back["test-train"]["pixels"] == found["train-test"]["pixels"] == 1
    assert "pixels" not in audit_against(mine, mine, hashes=False)["train-test"]


SPLITS_OF_FOUR: tuple[Split, ...] = ("test", "test", "train", "test")


def test_the_same_files_and_questions_in_two_domains(folder: Path) -> None:
    examples = [
        Example(
            id=f"{i}", image=f"{i}.png", group=f"p{i}", split="train" if i < 20 else "test", question=f"What of {i}?"
        )
        for i in range(30)
    ]
    mine = Domain("mine", "xray", "vqa", examples, FolderImages(folder))
    copy = folder.with_name("copy")
    copy.mkdir()
    (copy / "z.png").write_bytes((folder / "3.png").read_bytes())
    rows = [
        Example(id="z", image="z.png", group="z", split="test", question="what of 3?"),
        Example(id="y", image="z.png", group="z", split="test", question="What of 5?"),
    ]
    found = audit_against(mine, Domain("theirs", "xray", "vqa", rows, FolderImages(copy)))["train-test"]
    assert (found["bytes"], found["pixels"], found["near_duplicates"]) == (1, 1, 0)
    assert (found["questions_on_copies"], found["question_texts"]) == (1, 2)
    assert {"kind": "questions_on_copies", "what": ["3.png", "z.png", "what of 3?"]} in found["examples"]


def test_an_audit_in_words_says_what_overlaps_how_much_and_what_to_do() -> None:
    images, examples = world()
    images["near"] = images["0.png"].resize((60, 60))
    examples += [
        Example(id="near", image="near", group="p0", split="test"),
        Example(id="gone", image="gone", group="x", split="test"),
    ]
    said = text(audit(domain(images, examples)))
    assert said.startswith("train and test:\n")
    assert "1 group (patient) is in both\n      group: p0\n" in said
    assert "1 image of test has a near-duplicate in train\n      near-duplicate: 0.png | near\n" in said
    assert "train and val: nothing in common" in said
    assert "What to do" in said
    assert "1 image could not be read:\n  gone: no such image" in said
    assert "What to do" not in text(audit(domain(*world())))
    assert "hashes=False" in text(audit(domain(*world()), hashes=False))


def test_an_audit_across_domains_in_words() -> None:
    mine, theirs = (
        Domain(name, "xray", "diagnosis", world()[1], MemoryImages(world()[0])) for name in ("mine", "theirs")
    )
    said = text(audit_against(mine, theirs))
    assert "mine train and theirs train:\n  10 images of theirs train have an exact copy in mine train\n" in said
    assert "What to do" in said
    assert "a hint alone" in said
    assert "mine train and theirs test" not in said.split("hint alone")[0]
    assert "no image was compared" in text(audit_against(mine, theirs, hashes=False))
    other = Domain("other", "xray", "diagnosis", [Example("a", "a", "new", "test")], MemoryImages({"a": picture(800)}))
    assert text(audit_against(mine, other)) == "mine and other: no image in common\n"


@pytest.mark.real
def test_the_official_split_of_vqa_rad_shares_images_and_the_disjoint_one_none() -> None:
    root = real_set("vqa_rad")
    table = [json.loads(line) for line in (root / "qa.jsonl").read_text().splitlines()]
    for field in ("split", "split_image_disjoint"):
        found = audit(build_vqa_jsonl("vqa_rad", str(root), "mixed", split_field=field, on_leak="report"))
        images = {name: {row["image"] for row in table if row[field] == name} for name in ("train", "val", "test")}
        shared = (images["train"] | images["val"]) & images["test"]  # where there is no val, it is made out of train
        assert (len(shared) > 100) == (field == "split")
        for kind in ("images", "pixels"):
            assert found["train-test"][kind] + found["val-test"][kind] == len(shared)
            assert found["train-val"][kind] == 0
        for pair in PAIRS:
            assert {e["what"] for e in found[pair]["examples"] if e["kind"] == "images"} <= shared
            assert found[pair]["near_duplicates"] == 0
        assert not found["unreadable"]
