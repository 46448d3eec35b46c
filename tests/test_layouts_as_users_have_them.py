"""Official layouts as they lie on users' disks: links, copies from other systems, tables saved again, a file lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from published import make_all

from vlmbench.catalogue.read import named_domain
from vlmbench.cell.domain import build_domain
from vlmbench.config import schema
from vlmbench.domains.base import Domain, DomainError
from vlmbench.domains.published.layout import lacking

NAMES = ("camelyon17", "chexpert", "drishti", "fairvlmed", "gf3300", "ham10000", "papila", "pathmnist")
CHEST = "CheXpert-v1.0-small"


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_all(NAMES, tmp_path_factory)


@pytest.fixture
def roots(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "data"))


def built(name: str, roots: Path, *overrides: str) -> Domain:
    return build_domain(named_domain(name, overrides=[f"root={roots / name}", *overrides]), "diagnosis")


def said(name: str, roots: Path, *overrides: str) -> str:
    with pytest.raises(DomainError) as caught:
        built(name, roots, *overrides)
    return str(caught.value)


def alike(name: str, roots: Path, originals: Path) -> bool:
    return built(name, roots).fingerprint == built(name, originals).fingerprint


def test_chexpert_saved_again_on_windows_and_by_a_spreadsheet_is_the_same(roots, originals):
    for split in ("train", "valid"):
        path = roots / "chexpert" / CHEST / f"{split}.csv"
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        frame["Path"] = frame["Path"].str.replace("/", "\\")
        whole = frame.replace({"1.0": "1", "0.0": "0", "-1.0": " -1 "}).assign(remark="")
        path.write_bytes(b"\xef\xbb\xbf" + whole.to_csv(index=False, lineterminator="\r\n").encode())

    assert alike("chexpert", roots, originals)


def test_ham10000_is_found_behind_links_to_folders_and_in_capitals(roots, originals, tmp_path):
    for number, folder in enumerate(sorted((roots / "ham10000").glob("HAM10000_images_*"))):
        elsewhere = tmp_path / f"disk{number}"
        shutil.move(folder, elsewhere)
        folder.symlink_to(elsewhere)
        (elsewhere / "back").symlink_to(roots / "ham10000")
    for path in tmp_path.glob("disk0/*.jpg"):
        path.rename(path.with_suffix(".JPG"))

    assert alike("ham10000", roots, originals)


def test_what_a_mac_leaves_beside_an_archive_is_no_layout(roots, originals):
    (release,) = (roots / "papila").iterdir()
    release.rename(roots / "papila" / "data")
    shutil.copytree(roots / "papila" / "data", roots / "papila" / "data" / release.name)
    for name in ("ClinicalData", "FundusImages"):
        shutil.rmtree(roots / "papila" / "data" / name)
        (roots / "papila" / "__MACOSX" / release.name / name).mkdir(parents=True)
    for image in list((roots / "drishti").rglob("*.png")):
        image.with_name(f"._{image.name}").write_bytes(b"\0\5\x16\7")

    assert alike("papila", roots, originals)
    assert alike("drishti", roots, originals)


def test_drishtis_table_is_read_with_semicolons_and_another_encoding_is_named(roots, originals):
    (book,) = (roots / "drishti").rglob("*.xlsx")
    table = book.with_suffix(".csv")
    pd.read_excel(book, header=None, dtype=str).to_csv(table, sep=";", header=False, index=False)
    book.unlink()
    for image in (roots / "drishti").rglob("*001.png"):
        image.rename(image.with_suffix(".PNG"))
    assert len(built("drishti", roots).examples) == len(built("drishti", originals).examples)

    table.write_bytes(table.read_bytes() + b"\xe9\n")
    assert f"{table}: not UTF-8 text" in said("drishti", roots)


def test_a_first_image_that_is_lost_is_named_alone_and_changes_no_others(roots):
    root = roots / "gf3300"
    (root / "data").mkdir()
    for use in ("Training", "Validation", "Test"):
        (root / use).rename(root / "data" / use)
    first = pd.read_csv(root / "data_summary.csv", dtype=str).iloc[0]
    (root / "data" / first["use"].capitalize() / first["filename"]).unlink()
    assert "1 of 44 images cannot be read: data/Training/data_" in said("gf3300", roots)

    first = pd.read_csv(roots / "fairvlmed/data_summary.csv", dtype=str).iloc[0]
    number = first["filename"].removeprefix("data_").removesuffix(".npz")
    (roots / "fairvlmed" / first["use"].capitalize() / f"slo_fundus_{number}.jpg").unlink()
    assert f"1 of 44 images cannot be read: Training/slo_fundus_{number}.jpg" in said("fairvlmed", roots)


def test_a_dataset_without_an_official_split_says_so(originals):
    assert "there is no official split; set domain.ours_split=grouped" in said(
        "ham10000", originals, "ours_split=official"
    )


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("chexpert", "settings.folder=3", "domain.settings.folder=3 is no str, as chexpert takes"),
        ("pathmnist", "settings.size=big", "domain.settings.size='big' is no int, as medmnist takes"),
        ("pathmnist", "settings.sise=28", "domain.settings has sise, which the reader medmnist does not take"),
    ],
)
def test_a_setting_of_another_kind_is_named(name, override, message, originals):
    assert message in said(name, originals, override)


def test_a_setting_that_a_reader_needs_is_named(originals):
    domain = named_domain("pathmnist", overrides=[f"root={originals / 'pathmnist'}"])
    assert isinstance(domain, schema.PublishedDomainConfig)
    del domain.settings["flag"]

    with pytest.raises(DomainError, match=r"domain\.settings\.flag is not set, which the reader medmnist needs"):
        build_domain(domain, "diagnosis")


def test_a_workbook_whose_first_sheet_is_empty_is_named(roots):
    path = next((roots / "papila").rglob("patient_data_od.xlsx"))
    book = openpyxl.load_workbook(path)
    book.create_sheet("notes", 0)
    book.save(path)

    assert f"{path}: column 1 of the first sheet has no number of a patient" in said("papila", roots)


def test_a_folder_in_place_of_a_table_is_named(roots):
    path = roots / "chexpert" / CHEST / "valid.csv"
    path.unlink()
    path.mkdir()

    assert f"{path}: cannot be read: Is a directory" in said("chexpert", roots)


def test_a_release_in_a_folder_of_another_name_is_the_layout_that_is_looked_for(roots):
    root = roots / "chexpert"
    (root / CHEST).rename(root / "CheXpert-v1.0")
    domain = named_domain("chexpert", overrides=[f"root={root}", "settings.folder=CheXpert-v1.0"])

    assert isinstance(domain, schema.PublishedDomainConfig)
    assert lacking(root, domain.layout) == []


def test_rows_that_a_setting_leaves_out_are_counted(originals):
    everything = len(built("chexpert", originals).examples)
    frontal = built("chexpert", originals, "settings.view=frontal")
    assert [(entry["reason"], entry["examples"]) for entry in frontal.left_out] == [
        ("settings.view=frontal: another view", everything - len(frontal.examples))
    ]

    patches = len(built("camelyon17", originals).examples)
    fewer = built("camelyon17", originals, "settings.id_val=leave_out")
    assert [entry["examples"] for entry in fewer.left_out] == [patches - len(fewer.examples)]
    assert len(fewer.examples) < patches
