"""CheXpert, Camelyon17, HAM10000 and PAPILA in their official layout: read, labelled, split; what faults are called."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bench import domain_scale
from PIL import Image
from published import config, make_all
from real_data import real_set

from vlmbench.cell.domain import build_domain
from vlmbench.domains.base import SPLITS, Domain, DomainError
from vlmbench.domains.published import build
from vlmbench.domains.published.layout import Layout, lacking
from vlmbench.domains.published.readers import read_layout

NAMES = ("camelyon17", "chexpert", "ham10000", "papila")
PAPILA = "PapilaDB-PAPILA-9c67b80983805f0f886b068af800ef2b507e7dc0"


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_all(NAMES, tmp_path_factory)


@pytest.fixture
def roots(originals: Path, tmp_path: Path) -> Path:
    """The four miniatures, for a test to change."""
    return Path(shutil.copytree(originals, tmp_path / "data"))


def built(name: str, roots: Path, *overrides: str) -> Domain:
    return build_domain(config(name, roots / name, *overrides), "diagnosis")


def fails(name: str, roots: Path, *overrides: str) -> str:
    with pytest.raises(DomainError) as caught:
        built(name, roots, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Rewrite a table; of a PAPILA workbook the three rows of the header are data here."""
    if path.suffix == ".xlsx":
        edit(pd.read_excel(path, header=None, dtype=object)).to_excel(path, header=False, index=False)
    else:
        edit(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def put(row: int, column: Any, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def edit(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[row, column] = value
        return frame

    return edit


def image_file(root: Path, key: str) -> Path:
    return next(root.rglob(key))


def groups(domain: Domain) -> dict[str, set[str]]:
    return {split: {example.group for example in domain.split(split)} for split in SPLITS}


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_is_the_layout_that_the_yaml_lists(originals, name):
    assert lacking(originals / name, config(name, originals / name).layout) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["study", "ours"])
def test_a_miniature_is_read_labelled_and_split(originals, name, split):
    domain = built(name, originals, f"split={split}", "check_images=decode")

    counts = domain.counts()
    for part in SPLITS:
        assert counts[part]["examples"] > 0
        assert all(counts[part][f"label:{label}"] > 0 for label in domain.label_names)
    assert set(domain.prompts.positive) == set(domain.label_names)
    assert domain.licence
    assert domain.origin
    held = groups(domain)
    if split == "ours":
        assert not held["train"] & held["val"]
        assert not (held["train"] | held["val"]) & held["test"]


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_of_the_yaml_labels_the_miniature(originals, name):
    for rule in config(name, originals / name).rules:
        domain = built(name, originals, f"target={rule}")
        assert domain.examples
        assert domain.multi_label == (rule == "findings")


def test_every_yaml_says_what_a_user_needs_to_know(originals):
    for name in NAMES:
        domain = config(name, originals / name)
        texts = (domain.title, domain.licence, domain.citation, domain.homepage, domain.how_to_get, domain.notes)
        assert all(texts), name
        assert domain.kinds, name
        assert domain.attributes, name
        assert domain.layout, name
        assert domain.published, name
        assert bool(domain.downloads) == (domain.access == "public"), name
        assert domain.rules["study"].templates == ["a photo of {label}"], name


def test_the_studys_prompts_are_the_published_ones(originals):
    said = {
        name: [texts[0] for texts in built(name, originals, "split=study").prompts.positive.values()] for name in NAMES
    }

    assert said == {
        "chexpert": ["a photo of diseased xray", "a photo of normal xray"],
        "camelyon17": ["a photo of negative tumor", "a photo of positive tumor"],
        "ham10000": ["a photo of benign keratosis-like lesions", "a photo of actinic keratoses or melanoma"],
        "papila": ["a photo of benign fundus", "a photo of glaucoma fundus"],
    }


def test_the_positive_class_is_the_disease_in_ours_and_what_the_study_takes_in_study(originals):
    ours = {name: built(name, originals).label_names[-1] for name in NAMES}
    study = {name: built(name, originals, "split=study").label_names[-1] for name in NAMES}

    assert ours == {"chexpert": "diseased", "camelyon17": "tumour", "ham10000": "malignant", "papila": "glaucoma"}
    assert study == {"chexpert": "normal", "camelyon17": "positive", "ham10000": "malignant", "papila": "glaucoma"}


def test_chexpert_keeps_what_the_table_says_and_takes_other_places(originals, roots):
    domain = built("chexpert", originals)
    assert {example.group for example in domain.split("test")} == {f"patient{n:05d}" for n in range(64541, 64565)}
    assert {frozenset(example.attributes) for example in domain.examples} == {
        frozenset({"sex", "age", "view"}),
        frozenset({"sex", "age"}),  # a lateral view is neither AP nor PA
    }

    for entry in (roots / "chexpert" / "CheXpert-v1.0-small").iterdir():
        entry.rename(roots / "chexpert" / entry.name)
    (roots / "chexpert" / "CheXpert-v1.0-small").rmdir()
    flat = built("chexpert", roots)
    assert [example.id for example in flat.examples] == [example.id for example in domain.examples]
    assert flat.fingerprint == domain.fingerprint

    frontal = built("chexpert", originals, "settings.view=frontal")
    assert {example.image.rpartition("_")[2] for example in frontal.examples} == {"frontal.jpg"}
    assert "choose one of all, frontal, lateral" in fails("chexpert", originals, "settings.view=side")


def test_camelyon17_is_split_by_hospital_as_wilds_does_it(originals):
    domain = built("camelyon17", originals)
    hospitals = {
        split: {str(example.attributes["hospital"])[-1] for example in domain.split(split)} for split in SPLITS
    }
    assert hospitals == {"train": {"0", "3", "4"}, "val": {"1"}, "test": {"2"}}

    table = pd.read_csv(originals / "camelyon17" / "camelyon17_v1.0" / "metadata.csv")
    id_val = int(((table["split"] == 1) & table["center"].isin([0, 3, 4])).sum())
    assert id_val > 0
    without = built("camelyon17", originals, "settings.id_val=leave_out")
    assert len(domain.split("train")) - len(without.split("train")) == id_val
    assert len(domain.split("test")) == len(without.split("test"))


def test_camelyon17_takes_a_patient_number_that_a_spreadsheet_shortened(originals, roots):
    path = roots / "camelyon17" / "camelyon17_v1.0" / "metadata.csv"
    change(path, lambda frame: frame.assign(patient=frame["patient"].str.lstrip("0").replace("", "0")))

    assert built("camelyon17", roots).fingerprint == built("camelyon17", originals).fingerprint


def test_ham10000_counts_basal_cell_carcinoma_as_malignant_in_ours_alone(originals):
    table = pd.read_csv(originals / "ham10000" / "HAM10000_metadata.csv").set_index("image_id")["dx"]
    of: dict[str, dict[str, set[str]]] = {}
    for split in ("ours", "study"):
        domain = built("ham10000", originals, f"split={split}")
        of[split] = {}
        for example in domain.examples:
            of[split].setdefault(domain.label_names[example.labels[0]], set()).add(table[example.id])

    assert of["ours"] == {"malignant": {"akiec", "bcc", "mel"}, "benign": {"bkl", "df", "nv", "vasc"}}
    assert of["study"] == {"malignant": {"akiec", "mel"}, "benign": {"bcc", "bkl", "df", "nv", "vasc"}}
    assert len(built("ham10000", originals, "target=diagnosis").label_names) == 7


def test_ham10000_is_taken_from_dataverse_as_converted_and_from_the_studys_layout(originals, roots):
    before = built("ham10000", originals)
    root = roots / "ham10000"
    table = pd.read_csv(root / "HAM10000_metadata.csv")
    (root / "HAM10000_metadata.csv").unlink()
    table.to_csv(root / "HAM10000_metadata.tab", sep="\t", index=False, quoting=2)
    (root / "HAM10000_images").mkdir()
    for image in root.glob("HAM10000_images_part_*/*.jpg"):
        image.rename(root / "HAM10000_images" / image.name)

    after = built("ham10000", roots)

    assert after.examples == before.examples
    assert after.fingerprint == before.fingerprint
    assert after.images.load(after.examples[0].image).size == (64, 64)


def test_papila_keeps_both_eyes_together_and_leaves_out_suspects(originals, roots):
    domain = built("papila", originals)

    eyes = Counter(example.group for example in domain.examples)
    assert max(eyes.values()) == 2
    assert {example.attributes["eye"] for example in domain.examples} == {"left", "right"}
    assert {example.attributes["sex"] for example in domain.examples} == {"female", "male"}
    assert domain.left_out[0]["reason"] == "Diagnosis is '2'"
    assert len(domain.examples) + domain.left_out[0]["examples"] == 80
    assert len(built("papila", originals, "target=suspects").examples) == 80

    (roots / "papila" / PAPILA).rename(roots / "papila" / "data")  # as the study has it
    assert built("papila", roots).fingerprint == domain.fingerprint


def test_papila_takes_tables_that_were_saved_as_text(originals, roots):
    folder = roots / "papila" / PAPILA / "ClinicalData"
    for path in folder.glob("*.xlsx"):
        rows = pd.read_excel(path, header=None)[3:]
        rows.columns = pd.Index(["ID", "Age", "Gender", "Diagnosis", *(f"c{i}" for i in range(4, 13))])
        rows.assign(Diagnosis=rows["Diagnosis"].astype(float)).to_csv(path.with_suffix(".csv"), index=False)
        path.unlink()

    texts, books = built("papila", roots), built("papila", originals)
    assert texts.examples == books.examples


TABLES = {
    "chexpert": "CheXpert-v1.0-small/train.csv",
    "camelyon17": "camelyon17_v1.0/metadata.csv",
    "ham10000": "HAM10000_metadata.csv",
    "papila": f"{PAPILA}/ClinicalData/patient_data_os.xlsx",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_table_is_named_with_what_is_there(roots, name):
    (roots / name / TABLES[name]).unlink()

    message = fails(name, roots)

    assert f"{roots / name / TABLES[name]} is not there; " in message
    assert "python -m vlmbench.fetch" in message


@pytest.mark.parametrize(
    ("name", "column"),
    [("chexpert", "Edema"), ("camelyon17", "center"), ("ham10000", "lesion_id"), ("papila", "Diagnosis")],
)
def test_a_missing_column_is_named_with_those_there_are(roots, name, column):
    path = roots / name / TABLES[name]
    if name == "papila":
        change(path, lambda frame: frame.drop(columns=3))
    else:
        change(path, lambda frame: frame.drop(columns=column))

    assert f"{path}: no column {column!r}" in fails(name, roots)


def again(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[[5]]])


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        ("chexpert", 7, "Path"),
        ("camelyon17", 7, "patient, node, x_coord, y_coord"),
        ("ham10000", 7, "image_id"),
        ("papila", 6, "ID"),
    ],
)
def test_a_row_that_is_there_twice_is_named(roots, name, row, column):
    path = roots / name / TABLES[name]
    change(path, again)

    message = fails(name, roots)

    assert f"{path}: column {column!r} has " in message
    assert f" in rows {row}, " in message
    assert "take the repeated rows out" in message


@pytest.mark.parametrize(
    ("name", "row", "column", "value"),
    [
        ("chexpert", 3, "Edema", "2.0"),
        ("camelyon17", 3, "tumor", "yes"),
        ("camelyon17", 3, "center", "5"),
        ("camelyon17", 3, "x_coord", "12.5"),
        ("ham10000", 3, "dx", "scc"),
        ("ham10000", 3, "lesion_id", ""),
        ("papila", 5, "Diagnosis", "3"),
        ("papila", 5, "Gender", "f"),
        ("papila", 5, "ID", "n.n."),
    ],
)
def test_an_unknown_value_is_named_with_file_row_and_column(roots, name, row, column, value):
    path = roots / name / TABLES[name]
    place = {"ID": 0, "Gender": 2, "Diagnosis": 3}[column] if name == "papila" else column
    first = 1 if name == "papila" else 2  # row of the file that is row 0 of the table
    change(path, put(row - first, place, value))

    assert f"{path}: row {row}: column {column!r} has {value!r}" in fails(name, roots)


def test_a_path_without_a_patient_is_named(roots):
    path = roots / "chexpert" / TABLES["chexpert"]
    change(path, put(0, "Path", "CheXpert-v1.0-small/train/view1_frontal.jpg"))

    assert f"{path}: row 2: column 'Path' has " in fails("chexpert", roots)


def test_a_file_that_is_no_workbook_is_named(roots):
    path = roots / "papila" / TABLES["papila"]
    path.write_text("<html>Sign in</html>")
    assert f"{path}: cannot be read as an Excel workbook" in fails("papila", roots)

    pd.DataFrame({"a": ["nothing here"]}).to_excel(path, index=False)
    assert f"{path}: column 1 of the first sheet has no number of a patient" in fails("papila", roots)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_image_is_named_and_can_be_left_out(roots, name):
    example = built(name, roots).split("train")[0]
    image_file(roots / name, example.image).unlink()

    message = fails(name, roots)
    left = built(name, roots, "on_bad_image=leave_out")

    assert f"{Path(example.image).name}: no such file" in message
    assert "on_bad_image=leave_out" in message
    assert example.id not in {row.id for row in left.examples}
    assert left.left_out[-1] == {"image": example.image, "reason": "no such file", "examples": 1}


@pytest.mark.parametrize("name", NAMES)
def test_a_text_in_place_of_an_image_is_named_when_images_are_decoded(roots, name):
    image = built(name, roots).split("test")[0].image
    image_file(roots / name, image).write_text("404: not found")

    assert f"{image}: not a DICOM, PNG, JPEG" in fails(name, roots, "check_images=decode")


def test_a_split_without_rows_is_named(roots):
    path = roots / "camelyon17" / TABLES["camelyon17"]
    change(path, lambda frame: frame[frame["center"] != "2"])

    assert "no rows in the split 'test'" in (message := fails("camelyon17", roots))
    assert "ours_split=grouped" in message
    assert built("camelyon17", roots, "ours_split=grouped").split("test")
    assert "and 0 of its test hospital" in fails("camelyon17", roots, "split=study")


def test_a_root_that_holds_something_else_is_told_what_was_expected(tmp_path):
    (tmp_path / "ham10000").mkdir()
    (tmp_path / "ham10000" / "notes.txt").write_text("")

    assert "HAM10000_metadata.csv is not there" in fails("ham10000", tmp_path)
    assert "holds notes.txt" in fails("ham10000", tmp_path)


class NoImages:
    """Images that are there, without a file."""

    where = "nowhere"

    def load(self, key: str) -> Image.Image:
        raise AssertionError(key)

    def size(self, key: str) -> int:
        return 1

    def stamp(self, key: str) -> str:
        return key

    def digest(self, key: str) -> bytes:
        return bytes(32)


def random_table(name: str, rng: np.random.Generator) -> pd.DataFrame:
    """Return a layout's table with random groups of random sizes; a group may hold several labels in PAPILA alone."""
    raw = {"ham10000": ("dx", "age sex localization dx_type"), "papila": ("Diagnosis", "Age sex eye")}
    column, others = raw[name]
    values = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"] if name == "ham10000" else ["0", "1", "2"]
    rows = []
    for number in range(int(rng.integers(25, 120))):
        held = values[number % len(values)] if number < 6 * len(values) else str(rng.choice(values, p=_skewed(values)))
        for _ in range(int(rng.integers(1, 3 if name == "papila" else 7))):
            mixed = name == "papila" and rng.random() < 0.15
            rows.append({"group": f"g{number}", column: str(rng.choice(values)) if mixed else held})
    frame = pd.DataFrame(rows)
    ids = [f"i{i}" for i in range(len(frame))]
    return frame.assign(id=ids, image=ids, split="", **dict.fromkeys(others.split(), "1"))


def _skewed(values: list[str]) -> list[float]:
    weights = [2.0**i for i in range(len(values))]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("name", ["ham10000", "papila"])
def test_ours_keeps_groups_whole_on_random_tables(monkeypatch, tmp_path, name):
    rules = ["diagnosis", "malignant"] if name == "ham10000" else ["glaucoma"]
    configs = [config(name, tmp_path, f"target={rule}") for rule in rules]
    for seed in range(60):
        frame = random_table(name, np.random.default_rng(seed))
        made = []
        for given in (frame, frame.sample(frac=1, random_state=seed).reset_index(drop=True)):
            monkeypatch.setattr(build, "read_layout", lambda *_, given=given: Layout(given, NoImages()))
            made.append(build_domain(configs[seed % len(configs)], "diagnosis"))
        domain = made[0]

        held = groups(domain)
        assert not held["train"] & held["val"], seed
        assert not (held["train"] | held["val"]) & held["test"], seed
        assert {label for example in domain.split("train") for label in example.labels} == set(
            range(len(domain.label_names))
        ), seed
        assert domain.split("val"), seed
        assert {row.id: row.split for row in made[1].examples} == {row.id: row.split for row in domain.examples}, seed


def test_a_carved_validation_split_keeps_patients_whole_on_random_tables(monkeypatch, tmp_path):
    chexpert = config("chexpert", tmp_path)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = []
        for number in range(int(rng.integers(20, 90))):
            split = "test" if number % 5 == 4 else "train"
            for _ in range(int(rng.integers(1, 6))):
                rows.append({"group": f"g{number}", "split": split, "No Finding": str(rng.choice(["1.0", ""]))})
        frame = pd.DataFrame(rows).assign(Sex="Male", Age="40", **{"AP/PA": "AP"})
        frame = frame.assign(id=[f"i{i}" for i in range(len(frame))], image=[f"i{i}" for i in range(len(frame))])
        made = []
        for given in (frame, frame.sample(frac=1, random_state=seed).reset_index(drop=True)):
            monkeypatch.setattr(build, "read_layout", lambda *_, given=given: Layout(given, NoImages()))
            made.append(build_domain(chexpert, "diagnosis"))

        held = groups(made[0])
        assert not held["train"] & held["val"], seed
        assert held["test"] == set(frame["group"][frame["split"] == "test"]), seed
        assert held["val"], seed
        assert {label for example in made[0].split("train") for label in example.labels} == {0, 1}, seed
        assert {row.id: row.split for row in made[1].examples} == {row.id: row.split for row in made[0].examples}, seed


@pytest.mark.parametrize("options", [["--steps"], ["--files"]])
def test_the_measurement_of_a_large_domain_checks_its_splits(monkeypatch, capsys, options):
    monkeypatch.setattr(domain_scale, "SIZES", {"train": (300, 90, 1), "valid": (20, 12, 64_541)})
    monkeypatch.setattr(sys, "argv", ["domain_scale.py", *options])

    domain_scale.main()

    assert capsys.readouterr().out.count("listing, splitting, auditing") == 2


@pytest.mark.real
def test_real_ham10000_images_are_read_from_the_official_layout(tmp_path):
    source = real_set("derm_ham10000")
    given = pd.read_csv(source / "labels.csv", dtype=str)
    root = tmp_path / "ham10000"
    names = given["image"].str.extract(r"(ISIC_\d+)", expand=False)
    for i, (image, name) in enumerate(zip(given["image"], names, strict=True)):
        folder = root / f"HAM10000_images_part_{1 + i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        os.symlink(source / image, folder / f"{name}.jpg")
    official = given.assign(image_id=names, lesion_id=given["patient_id"], age="50.0", sex="female")
    columns = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    official[columns].to_csv(root / "HAM10000_metadata.csv", index=False)

    ours = built("ham10000", tmp_path)
    study = built("ham10000", tmp_path, "split=study")

    assert len(ours.examples) == len(study.examples) == len(given)
    assert Counter(ours.label_names[row.labels[0]] for row in ours.examples)["malignant"] == int(
        given["dx"].isin(["akiec", "bcc", "mel"]).sum()
    )
    held = groups(ours)
    assert not held["train"] & (held["val"] | held["test"])
    assert sum(map(len, held.values())) == given["patient_id"].nunique()
    for row in ours.examples[::100]:
        image = ours.images.load(row.image)
        assert image.mode == "RGB"
        assert np.asarray(image).std() > 5
    assert read_layout("ham10000", root, {}).frame["group"].str.startswith("HAM_").all()
