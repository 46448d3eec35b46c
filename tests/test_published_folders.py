"""Public datasets of image files: Drishti-GS1, the Kermany chest X-rays and FairVLMed with its JPEG files."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest
from make_miniature import make
from miniatures import kermany
from PIL import Image
from published import build, config, fails
from real_data import real_set

from vlmbench.domains.base import SPLITS, Domain
from vlmbench.domains.published.layout import lacking
from vlmbench.domains.published.readers import read_layout

FILES = "Drishti-GS1_files"
SHEET = f"{FILES}/Drishti-GS1_diagnosis.xlsx"


def groups(domain: Domain) -> list[set[str]]:
    return [{row.group for row in domain.split(split)} for split in SPLITS]


def assert_disjoint(domain: Domain) -> None:
    """Check that every split has patients, and none of another's."""
    found = groups(domain)
    assert all(found)
    assert sum(map(len, found)) == len(set.union(*found))


@pytest.fixture
def drishti(tmp_path: Path) -> Path:
    return make("drishti", tmp_path / "drishti")


@pytest.fixture
def chest(tmp_path: Path) -> Path:
    return make("kermany", tmp_path / "kermany")


def edit(root: Path, change: Callable[[Any], None]) -> None:
    """Change the first sheet of Drishti's spreadsheet."""
    book = openpyxl.load_workbook(root / SHEET)
    change(book.worksheets[0])
    book.save(root / SHEET)


@pytest.mark.parametrize("name", ["drishti", "kermany", "fairvlmed"])
def test_a_miniature_has_all_that_the_layout_lists(name: str, tmp_path: Path) -> None:
    make(name, tmp_path)
    patterns = config(name, tmp_path).layout
    assert lacking(tmp_path, patterns) == []
    assert lacking(tmp_path / "elsewhere", patterns) == patterns


def test_drishti_has_its_official_split_and_ours_keeps_the_eyes_of_a_patient_together(drishti: Path) -> None:
    study = build("drishti", drishti, "split=study")
    assert {row.image.split("/")[1] for row in study.split("test")} == {"Test"}
    assert len(study.split("test")) == 12
    assert len(study.split("train")) + len(study.split("val")) == 18
    assert set.intersection(*groups(study)[::2])  # the miniature has a patient on both sides, as only the audit tells
    ours = build("drishti", drishti)
    assert_disjoint(ours)
    assert ours.counts()["train"]["examples"] > ours.counts()["train"]["groups"]
    assert study.prompts.positive == {
        "normal": ("a photo of normal retina ",),
        "glaucoma": ("a photo of glaucomatous retina",),
    }


def test_drishti_takes_the_labels_of_the_total_and_the_names_without_their_apostrophe(drishti: Path) -> None:
    domain = build("drishti", drishti)
    labels = {row.id: domain.label_names[row.labels[0]] for row in domain.examples}
    assert labels["drishtiGS_003"] == "normal"
    assert labels["drishtiGS_004"] == "glaucoma"
    assert Counter(labels.values()) == {"glaucoma": 20, "normal": 10}
    assert domain.images.load(f"{FILES}/Training/Images/drishtiGS_001.png").size == (96, 96)


def test_drishti_is_read_from_a_csv_of_the_spreadsheet_and_from_folders_one_deeper(drishti: Path) -> None:
    before = read_layout("drishti", drishti, {}).frame
    rows = openpyxl.load_workbook(drishti / SHEET).worksheets[0].values
    with (drishti / "Drishti-GS1_diagnosis.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([row for row in rows if any(row)][1:])
    (drishti / SHEET).unlink()
    (drishti / FILES / FILES).mkdir()
    for part in ("Training", "Test"):
        shutil.move(drishti / FILES / part, drishti / FILES / FILES / part)
    after = read_layout("drishti", drishti, {}).frame
    columns = ["id", "group", "split", "Total"]
    assert after[columns].equals(before[columns])
    assert after["image"].str.startswith(f"{FILES}/{FILES}/").all()


def _unknown_label(sheet: Any) -> None:
    sheet["I8"] = "Suspect"


def _no_total(sheet: Any) -> None:
    sheet["I4"] = "Sum"


def _no_header(sheet: Any) -> None:
    sheet.delete_rows(4)


def _no_rows(sheet: Any) -> None:
    sheet.delete_rows(5, 100)


def _twice(sheet: Any) -> None:
    sheet.append([cell.value for cell in sheet[8]])


def _no_image(sheet: Any) -> None:
    sheet.append(["P99", "drishtiGS_099'", None, 1, 1, 1, 1, None, "Glaucomatous"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_unknown_label, "column 'Total' has the value 'Suspect' in 1 rows"),
        (_no_total, "lacks the column Total; there are Patient ID, Drishti-GS File, Marking 1"),
        (_no_header, "has no row with 'Drishti-GS File'"),
        (_no_rows, "has no rows below its header in row 4"),
        (_twice, "1 ids occur more than once, such as drishtiGS_003"),
        (
            _no_image,
            "1 of 31 names are only an image or only a row of Drishti-GS1_diagnosis.xlsx, such as drishtiGS_099",
        ),
    ],
)
def test_a_spreadsheet_that_is_not_as_published_is_named(
    change: Callable[[Any], None], said: str, drishti: Path
) -> None:
    edit(drishti, change)
    assert said in fails("drishti", drishti)


@pytest.mark.parametrize("content", [b"", b"<html>log in</html>", b"PK\3\4 cut off"])
def test_a_page_saved_in_place_of_the_spreadsheet_is_named(content: bytes, drishti: Path) -> None:
    (drishti / SHEET).write_bytes(content)
    assert "Drishti-GS1_diagnosis.xlsx is no spreadsheet that can be read" in fails("drishti", drishti)


def test_what_is_missing_of_drishti_is_named(drishti: Path) -> None:
    (drishti / FILES / "Test" / "Images" / "drishtiGS_030.png").unlink()
    assert "such as drishtiGS_030" in fails("drishti", drishti)
    shutil.rmtree(drishti / FILES / "Test")
    assert f"{FILES}/Test/Images is not there" in fails("drishti", drishti)
    (drishti / SHEET).unlink()
    assert f"{SHEET} is not there" in fails("drishti", drishti)


def test_the_images_of_kaggles_val_count_as_train_so_that_both_archives_are_alike(chest: Path, tmp_path: Path) -> None:
    authors = tmp_path / "authors"
    kermany.make(authors, val=False)
    kaggle, mendeley = (read_layout("kermany", root, {}).frame for root in (chest, authors))
    assert set(kaggle["split"]) == set(mendeley["split"]) == {"train", "test"}
    assert set(kaggle.loc[kaggle["folder"] == "val", "split"]) == {"train"}
    assert set(mendeley["id"]) == set(kaggle.loc[kaggle["folder"] != "val", "id"])
    study = build("kermany", chest, "split=study")
    assert {row.image.split("/")[1] for row in study.split("test")} == {"test"}
    assert not set.intersection(groups(study)[0], groups(study)[1])  # val is taken from train by patient


@pytest.mark.parametrize(
    ("name", "kind", "patient"),
    [
        ("PNEUMONIA/person12_bacteria_46.jpeg", "bacteria", "bacteria-person12"),
        ("PNEUMONIA/person12_virus_30.jpeg", "virus", "virus-person12"),
        ("NORMAL/IM-0115-0001.jpeg", "normal", "IM-0115"),
        ("NORMAL/IM-0115-0001-0002.jpeg", "normal", "IM-0115"),
        ("NORMAL/NORMAL2-IM-0115-0001.jpeg", "normal", "NORMAL2-IM-0115"),
        ("PNEUMONIA/BACTERIA-1135262-0003.jpeg", "bacteria", "1135262"),
        ("PNEUMONIA/VIRUS-1135262-0001.JPG", "virus", "1135262"),
        ("NORMAL/NORMAL-28501-0001.jpeg", "normal", "28501"),
    ],
)
def test_a_file_name_tells_the_kind_and_the_patient(name: str, kind: str, patient: str, chest: Path) -> None:
    folder = chest / "chest_xray" / "train"
    Image.new("L", (8, 8)).save(folder / name, "JPEG")
    frame = read_layout("kermany", chest, {}).frame.set_index("id")
    row = frame.loc[f"chest_xray/train/{name}"]
    assert (row["kind"], row["group"], row["class"]) == (kind, patient, name.split("/")[0])


def test_the_classes_of_kermany_are_two_or_three_and_ours_is_by_patient(chest: Path) -> None:
    ours = build("kermany", chest)
    assert_disjoint(ours)
    three = build("kermany", chest, "target=kinds")
    assert three.label_names == ("normal", "bacterial pneumonia", "viral pneumonia")
    for row, other in zip(ours.examples, three.examples, strict=True):
        kind = "virus" if "_virus_" in row.image else "bacteria" if "_bacteria_" in row.image else "normal"
        assert other.labels == (["normal", "bacteria", "virus"].index(kind),)
        assert row.labels == (int(kind != "normal"),)
    study = build("kermany", chest, "split=study")
    assert study.prompts.positive["pneumonia"] == ("a photo of  chest xray with pneumonia",)


def test_version_3_of_kermany_is_read_from_its_own_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label, kinds in (("NORMAL", ["NORMAL"]), ("PNEUMONIA", ["BACTERIA", "VIRUS"])):
            folder = tmp_path / "CellData" / "chest_xray" / split / label
            folder.mkdir(parents=True)
            for number in range(6):
                name = f"{kinds[number % len(kinds)]}-{number + 50 * (split == 'test') + 9 * (label == 'NORMAL')}-0001"
                Image.new("L", (8, 8), number).save(folder / f"{name}.jpeg")
    domain = build("kermany", tmp_path, "settings.folder=CellData/chest_xray")
    assert len(domain.examples) == 24
    assert "chest_xray/train/NORMAL is not there" in fails("kermany", tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NORMAL/notes.txt", "NORMAL/notes.txt is not named as an image of this set"),
        ("NORMAL/scan.jpeg", "NORMAL/scan.jpeg is not named as an image of this set"),
        ("NORMAL/person9_virus_9.jpeg", "its name says virus, its folder NORMAL"),
        ("PNEUMONIA/IM-0009-0001.jpeg", "its name says normal, its folder PNEUMONIA"),
    ],
)
def test_a_file_that_does_not_belong_to_kermany_is_named(name: str, said: str, chest: Path) -> None:
    Image.new("L", (8, 8)).save(chest / "chest_xray" / "train" / name, "JPEG")
    assert said in fails("kermany", chest)


def test_a_file_that_is_no_image_and_an_empty_folder_are_named(chest: Path) -> None:
    key = "chest_xray/test/NORMAL/IM-0002-0001.jpeg"
    (chest / key).write_bytes(b"<html>not found</html>")
    message = fails("kermany", chest, "check_images=decode")
    assert f"images cannot be read: {key}: not a DICOM, PNG, JPEG" in message
    left = build("kermany", chest, "check_images=decode", "on_bad_image=leave_out").left_out
    assert [row["image"] for row in left] == [key]
    (chest / key).write_bytes(b"")
    assert f"{key}: the file is empty" in fails("kermany", chest)
    folder = chest / "chest_xray" / "test" / "NORMAL"
    for path in folder.iterdir():
        path.unlink()
    assert f"{folder} holds no images" in fails("kermany", chest)
    shutil.rmtree(chest / "chest_xray" / "train")
    assert "chest_xray/train/NORMAL is not there" in fails("kermany", chest)


def test_a_link_out_of_the_folder_is_followed_because_a_user_made_it(chest: Path, tmp_path: Path) -> None:
    shutil.move(chest / "chest_xray", tmp_path / "elsewhere")
    (chest / "chest_xray").symlink_to(tmp_path / "elsewhere")
    assert build("kermany", chest).images.load("chest_xray/test/NORMAL/IM-0002-0001.jpeg").size == (72, 72)


@pytest.mark.real
def test_the_real_chest_x_rays_are_read_in_their_official_layout(tmp_path: Path) -> None:
    real = real_set("cxr_kermany")
    table = pd.read_csv(real / "labels.csv")
    for row in table.to_dict("records"):
        label = "NORMAL" if row["label"] == "normal" else "PNEUMONIA"
        target = tmp_path / "chest_xray" / row["source_split"] / label / row["source_name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(real / row["image"])
    study = build("kermany", tmp_path, "split=study", "target=kinds")
    assert len(study.examples) == len(table) == 1415
    of_image = dict(zip(table["source_name"], table["label"], strict=True))
    assert all(study.label_names[row.labels[0]] == of_image[Path(row.image).name] for row in study.examples)
    assert_disjoint(study)  # the authors' split is by patient, as these names tell them
    patients = dict(zip(table["source_name"], table["patient_id"], strict=True))
    mine = {Path(row.image).name: row.group for row in study.examples}
    assert (
        len({(mine[name], patients[name]) for name in mine}) == len(set(mine.values())) == len(set(patients.values()))
    )
    ours = build("kermany", tmp_path)
    assert Counter(row.labels for row in ours.examples) == {(0,): 488, (1,): 927}
    for example in ours.examples[::100]:
        assert np.asarray(ours.images.load(example.image)).std() > 10


def test_fairvlmed_is_read_from_its_jpeg_files_wherever_the_summary_lies(tmp_path: Path) -> None:
    make("fairvlmed", tmp_path)
    domain = build("fairvlmed", tmp_path)
    assert {split: len(domain.split(split)) for split in SPLITS} == {"train": 24, "val": 8, "test": 12}
    assert domain.examples[0].image == "Training/slo_fundus_00001.jpg"
    assert domain.images.load(domain.examples[-1].image).size == (128, 128)
    arrays = build("fairvlmed", tmp_path, "settings.images=npz")
    assert [row.id for row in arrays.examples] == [row.id for row in domain.examples]
    assert arrays.fingerprint != domain.fingerprint
    (tmp_path / "ReadMe").mkdir()
    (tmp_path / "data_summary.csv").rename(tmp_path / "ReadMe" / "data_summary.csv")
    assert build("fairvlmed", tmp_path).fingerprint == domain.fingerprint
    assert "domain.settings.images='png' is not admissible; choose one of auto, jpg, npz" in fails(
        "fairvlmed", tmp_path, "settings.images=png"
    )


def test_a_name_without_a_number_and_a_missing_jpeg_are_named_in_fairvlmed(tmp_path: Path) -> None:
    make("fairvlmed", tmp_path)
    (tmp_path / "Test" / "slo_fundus_00040.jpg").unlink()
    assert "1 of 44 images cannot be read: Test/slo_fundus_00040.jpg: no such file" in fails("fairvlmed", tmp_path)
    path = tmp_path / "data_summary.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("data_00007.npz", "data_seven.npz"), encoding="utf-8")
    assert "filename 'data_seven.npz' is not data_NNNNN.npz" in fails("fairvlmed", tmp_path)
