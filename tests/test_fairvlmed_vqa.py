"""FairVLMed-VQA: tables of questions beside the official folders of npz files."""

import csv
import shutil

import numpy as np
import pytest
from miniatures.fairvlmed_vqa import make

from vlmbench.catalogue.read import named_domain
from vlmbench.cell.domain import audited, build_domain
from vlmbench.domains.base import DomainError, ImageError, StoredImages
from vlmbench.domains.npz import ArrayFiles
from vlmbench.domains.published.fairvlmed_vqa import picture, read


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fairvlmed")
    make(folder)
    return folder


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def build(root, *overrides):
    return build_domain(named_domain("fairvlmed_vqa", None, [f"root={root}", *overrides]), "vqa")


def rewrite(path, change):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = change(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("split", ["study", "ours"])
def test_the_official_split_is_taken_and_rows_without_a_value_are_counted(whole, split):
    domain = build(whole, f"split={split}")
    counts = domain.counts()
    assert {name: part["images"] for name, part in counts.items()} == {"train": 24, "val": 6, "test": 12}
    assert (counts["test"]["type:open"], counts["test"]["type:closed"]) == (12, 12)
    assert domain.left_out == [{"image": "", "reason": "a value is missing", "examples": 3}]
    assert domain.origin == "the official split"
    assert domain.modality == "slo"
    closed = [example for example in domain.examples if example.answer_type == "closed"]
    assert {example.options for example in closed} == {("yes", "no")}
    assert {example.answer for example in closed} == {"yes", "no"}
    assert all(example.group == example.image for example in domain.examples)
    assert {example.options for example in domain.examples if example.answer_type == "open"} == {()}


def test_a_cell_runs_on_the_questions(root, train):
    for split in ("train", "validation", "test"):
        rewrite(root / f"vqa_{split}.csv", lambda rows: rows[:4])
    ran = train(
        *(
            "model=tiny_llava",
            "finetune=zero_shot",
            "domain=fairvlmed_vqa",
            f"domain.root={root}",
            "domain.split=study",
        ),
        *("task.resamples=100", "task.max_new_tokens=4"),
        small=False,
    )
    assert ran.status == 0, ran.err
    assert ran.record["modality"] == "slo"
    assert sorted(ran.predictions["answer_type"]) == ["closed", "closed", "open", "open"]


def test_a_question_is_open_by_its_type_alone(root):
    def change(rows):
        rows[0] |= {"question type": "open", "answer": "Yes"}
        rows[1] |= {"question type": "CLOSED", "answer": "No."}
        rows[2] |= {"question type": "binary", "answer": "left eye"}
        return rows

    rewrite(root / "vqa_test.csv", change)
    first, second, third = build(root).split("test")[:3]
    assert (first.answer_type, first.options, first.answer) == ("open", (), "Yes")
    assert (second.answer_type, second.options, second.answer) == ("closed", ("yes", "no"), "no")
    assert (third.answer_type, third.options, third.answer) == ("closed", (), "left eye")


def test_tables_of_ones_own_lie_in_any_folder(root, tmp_path):
    before = build(root).fingerprint
    mine = tmp_path / "mine"
    mine.mkdir()
    for path in root.glob("vqa_*.csv"):
        path.rename(mine / path.name)
    for folder in (mine, "../mine"):
        assert build(root, f"settings.folder={folder}").fingerprint == before
    with pytest.raises(DomainError, match=r"vqa_train\.csv is not there"):
        build(root)


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (lambda root: (root / "vqa_test.csv").write_text("image_path,question,answer\na,b,c\n"), "'question type'"),
        (lambda root: (root / "vqa_test.csv").write_text('image_path,question,answer,question type\n"a'), "vqa_test"),
        (lambda root: (root / "vqa_validation.csv").unlink(), "vqa_validation.csv is not there"),
        (
            lambda root: (root / "vqa_test.csv").write_text("image_path,question,answer,question type\na,b,nan,OPEN\n"),
            "no row has a value in each of",
        ),
        (lambda root: next((root / "Test").iterdir()).unlink(), "1 of 42 images cannot be read"),
        (lambda root: rewrite(root / "vqa_test.csv", escape), "images are taken from below"),
    ],
)
def test_what_is_wrong_is_told(root, break_it, expected):
    break_it(root)
    with pytest.raises(DomainError) as error:
        build(root)
    assert expected in str(error.value)


def escape(rows):
    return [{**rows[0], "image_path": "../../etc/data_1.npz"}, *rows[1:]]


def test_an_image_in_two_splits_is_refused_in_ours_and_audited_in_the_studys(root):
    def change(rows):
        return [*rows, {**rows[0], "image_path": "Training/data_00001.npz"}]

    rewrite(root / "vqa_test.csv", change)
    with pytest.raises(DomainError, match=r"Training/data_00001\.npz in train, test"):
        build(root)
    assert audited(build(root, "split=study"), hashes=False).audit["train-test"]["images"] == 1


def test_a_picture_is_the_array_and_nothing_else_of_the_file(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    deep = np.linspace(0, 4095, 600, dtype=np.uint16).reshape(20, 30)
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "a.npz", slo_fundus=grey, note=objects, other=deep)
    np.savez_compressed(tmp_path / "b.npz", slo_fundus=grey, other=np.stack([grey] * 3, -1))
    images = ArrayFiles(tmp_path, "slo_fundus", picture)
    assert isinstance(images, StoredImages)
    for name in ("a.npz", "b.npz"):
        shown = images.load(name)
        assert (shown.mode, shown.size) == ("RGB", (30, 20))
        assert (np.asarray(shown) == grey[..., None]).all()
    np.savez(tmp_path / "c.npz", slo_fundus=grey.astype(np.int64))
    assert (np.asarray(images.load("c.npz"))[..., 0] == grey).all(), "not stretched"
    deep_one = np.asarray(ArrayFiles(tmp_path, "other", picture).load("a.npz"))
    assert (deep_one.min(), deep_one.max()) == (0, 255)
    assert np.asarray(ArrayFiles(tmp_path, "other", picture).load("b.npz")).shape == (20, 30, 3)
    with pytest.raises(ImageError, match="npz"):
        ArrayFiles(tmp_path, "note", picture).load("a.npz")
    assert images.digest("a.npz") != ArrayFiles(tmp_path, "other", picture).digest("a.npz")


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_npz_is_an_image_error(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ImageError, match="no npz file"):
        ArrayFiles(tmp_path, "slo_fundus", picture).load("a.npz")


def test_broken_pictures_are_told(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", slo_fundus=np.zeros((200, 200), np.uint8), cube=np.zeros((2, 3, 4, 5)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[60:90] = b"\xff" * 30
    (tmp_path / "damaged.npz").write_bytes(data)
    (tmp_path / "cut.npz").write_bytes(data[:100])
    np.save(tmp_path / "one.npy", np.zeros((4, 4), np.uint8))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for name, key in (("damaged.npz", "slo_fundus"), ("cut.npz", "slo_fundus"), ("one.npz", "slo_fundus")):
        with pytest.raises(ImageError, match=name):
            ArrayFiles(tmp_path, key, picture).load(name)
    with pytest.raises(ImageError, match="is no picture"):
        ArrayFiles(tmp_path, "cube", picture).load("a.npz")
    with pytest.raises(ImageError, match="no array 'other'; it has slo_fundus, cube"):
        ArrayFiles(tmp_path, "other", picture).load("a.npz")
    with pytest.raises(ImageError, match="no such file"):
        ArrayFiles(tmp_path, "slo_fundus", picture).load("gone.npz")


def test_the_published_sizes_come_out_of_tables_of_that_size(tmp_path):
    """14,000 questions in train; 4,000 in test, of which six lack a value: 1,998 open and 1,996 closed remain."""
    first = 1
    for name, folder, images, gone in (
        ("train", "Training", 7000, 0),
        ("validation", "Validation", 1000, 0),
        ("test", "Test", 2000, 6),
    ):
        with (tmp_path / f"vqa_{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image_path", "question", "answer", "question type"])
            for number in range(images):
                image = f"{folder}/data_{first + number:05d}.npz"
                writer.writerow([image, "What is seen, and where?", "" if number < gone // 3 else "a disc", "OPEN"])
                answer = "" if number < gone - gone // 3 else ("yes", "no")[number % 2]
                writer.writerow([image, "Is the disc pale?", answer, "CLOSED"])
        first += images
    layout = read(tmp_path)
    frame = layout.frame
    assert frame["split"].value_counts().to_dict() == {"train": 14000, "test": 3994, "val": 2000}
    test = frame[frame["split"] == "test"]
    assert test["answer_type"].value_counts().to_dict() == {"open": 1998, "closed": 1996}
    assert layout.left_out == [{"image": "", "reason": "a value is missing", "examples": 6}]
    assert frame["id"].is_unique
    assert frame["image"].nunique() == 9_998, "two images have lost both of their questions"
