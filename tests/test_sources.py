"""A user's own folder with labels.csv or qa.jsonl as a domain: what is taken, and what each fault is called."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from real_data import real_set

from vlmbench.cell.domain import build_domain
from vlmbench.config import schema
from vlmbench.config.checks import check_cell
from vlmbench.config.entry import compose
from vlmbench.domains.audit import audit
from vlmbench.domains.base import SPLITS, Domain, DomainError, Prompts
from vlmbench.domains.captions_jsonl import build_captions_jsonl
from vlmbench.domains.folder import build_folder
from vlmbench.domains.prompts import build_prompts
from vlmbench.domains.published.build import build_published
from vlmbench.domains.questions import options_in_question
from vlmbench.domains.vqa_jsonl import build_vqa_jsonl


def draw(root: Path, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(root / name)


ROWS = [
    (f"images/{split}{i}.png", label, split, f"p-{split}{i}")
    for split, count in (("train", 6), ("val", 4), ("test", 4))
    for i, label in enumerate(["normal", "pneumonia"] * (count // 2))
]
HEADER = "image,label,split,patient_id"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw(tmp_path, [row[0] for row in ROWS])
    write(tmp_path)
    return tmp_path


def write(root: Path, rows: Sequence[Sequence[str]] = ROWS, header: str = HEADER, name: str = "labels.csv") -> None:
    (root / name).write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")


def build(root: Path, **arguments: Any) -> Domain:
    return build_folder("own", str(root), "xray", **arguments)


def fails(root: Path, **arguments: Any) -> str:
    with pytest.raises(DomainError) as caught:
        build(root, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- folder -----------------------------------------------------------------------------------------------------


def test_folder_gives_a_complete_domain(folder: Path) -> None:
    domain = build(folder, licence="CC0")
    assert (domain.name, domain.modality, domain.task, domain.licence) == ("own", "xray", "diagnosis", "CC0")
    assert domain.label_names == ("normal", "pneumonia")
    first = domain.examples[0]
    assert (first.id, first.image, first.group) == ("images/train0.png", "images/train0.png", "p-train0")
    assert (first.split, first.labels) == ("train", (0,))
    assert {split: len(domain.split(split)) for split in SPLITS} == {"train": 6, "val": 4, "test": 4}
    assert domain.prompts.positive["pneumonia"] == ("a photo of pneumonia",)
    assert domain.images.load(first.image).mode == "RGB"
    assert domain.left_out == []


def test_what_spreadsheets_do_to_a_table(folder: Path) -> None:
    plain = build(folder)
    rows = [(row[0].replace("/", "\\"), f" {row[1]} ", *row[2:]) for row in ROWS]
    text = (
        "\ufeff image ,label , split,patient_id\r\n"
        + "".join(",".join(row) + "\r\n" for row in rows)
        + ",,,\r\n\r\n\r\n"
    )
    (folder / "labels.csv").write_bytes(text.encode())
    assert build(folder).examples == plain.examples
    for name, separator in (("labels.tsv", "\t"), ("semicolons.csv", ";")):
        (folder / name).write_text(text.replace(",", separator), encoding="utf-8")
        assert build(folder, table=name).examples == plain.examples


def test_a_quoted_name_with_commas_does_not_decide_the_separator(folder: Path) -> None:
    rows = [";".join((*row, "1,5")) for row in ROWS]
    header = HEADER.replace(",", ";") + ';"age, in years, at the time, of the scan, or so"'
    (folder / "labels.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    domain = build(folder, attribute_columns={"age": "age, in years, at the time, of the scan, or so"})
    assert domain.examples[0].attributes == {"age": "1,5"}


def test_order_of_classes_prompts_and_attributes(folder: Path) -> None:
    rows = [(*row, age, sex) for row, age, sex in zip(ROWS, ["61", ""] * 7, ["F", "nan"] * 7, strict=True)]
    write(folder, rows, HEADER + ",age,sex")
    domain = build(
        folder,
        labels=["pneumonia", "normal"],
        label_prompts={"normal": ["clear lungs", "no finding"]},
        templates=["an X-ray of {label}"],
        attribute_columns={"age": "age", "gender": "sex"},
    )
    assert domain.label_names == ("pneumonia", "normal")
    assert domain.examples[0].labels == (1,)
    assert domain.prompts.positive["normal"] == ("an X-ray of clear lungs", "an X-ray of no finding")
    assert domain.examples[0].attributes == {"age": 61.0, "gender": "F"}
    assert domain.examples[1].attributes == {}


def test_numeric_labels_and_label_map(folder: Path) -> None:
    write(folder, [(row[0], "1" if row[1] == "pneumonia" else "0", *row[2:]) for row in ROWS])
    assert build(folder).label_names == ("0", "1")
    mapping: Any = {0: "healthy", 1: "ill"}  # as YAML reads it
    assert build(folder, label_map=mapping).label_names == ("healthy", "ill")
    message = fails(folder, label_map={"0": "healthy", "2": "ill"})
    assert "'1' (7 rows)" in message
    assert "'0', '2'" in message
    bare: Any = {False: "healthy", True: "ill"}  # as YAML reads no and yes without quotes
    assert "a bare yes or no as True or False" in fails(folder, label_map=bare)


def test_unmapped_rows_are_dropped_by_choice_and_counted(folder: Path) -> None:
    extra = [("images/train0.png", "uncertain", "train", "p-x"), ("images/train1.png", "", "train", "p-y")]
    write(folder, [*ROWS, *extra])
    mapping = {"normal": "no", "pneumonia": "yes"}
    domain = build(folder, label_map=mapping, drop_unmapped=True)
    assert len(domain.examples) == 14
    assert {(entry["reason"], entry["examples"]) for entry in domain.left_out} == {
        ("label 'uncertain' is not in label_map", 1),
        ("label '' is not in label_map", 1),
    }


def test_multi_label_by_separator_and_by_columns(folder: Path) -> None:
    carried = ["edema|effusion", "", "effusion", "edema"] * 4
    rows = [(row[0], labels, *row[2:]) for row, labels in zip(ROWS, carried, strict=False)]
    write(folder, rows)
    domain = build(folder, multi_label=True)
    assert domain.label_names == ("edema", "effusion")
    assert [example.labels for example in domain.examples[:4]] == [(0, 1), (), (1,), (0,)]
    assert domain.prompts.negative["edema"] == ("a photo without edema",)

    flags = [
        (r[0], str(int("edema" in c)), f"{int('effusion' in c)}.0", *r[2:]) for r, c in zip(ROWS, carried, strict=False)
    ]
    write(folder, flags, "image,edema,effusion,split,patient_id")
    columns = build(folder, multi_label=True, label_columns=["effusion", "edema"])
    assert columns.label_names == ("effusion", "edema")
    assert [example.labels for example in columns.examples[:4]] == [(0, 1), (), (0,), (1,)]

    flags[2] = (flags[2][0], "-1", *flags[2][2:])
    write(folder, flags, "image,edema,effusion,split,patient_id")
    message = fails(folder, multi_label=True, label_columns=["effusion", "edema"])
    assert "column 'edema' must hold 0 or 1, not '-1' (1 rows)" in message
    mapped = build(folder, multi_label=True, label_columns=["effusion", "edema"], label_map={"-1": "0"})
    assert mapped.examples[2].labels == (0,)
    assert "multi-label" in fails(folder, label_columns=["effusion", "edema"])


def test_splits_are_made_and_val_is_carved(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"images/{i}.png" for i in range(60)]
    draw(folder, names)
    rows = [(name, "ab"[i % 2], "test" if i < 12 else "train", f"p{i // 2}") for i, name in enumerate(names)]
    write(folder, rows)
    made = build(folder, split_column=None)
    assert all(
        domain_groups(made, a).isdisjoint(domain_groups(made, b)) for a, b in (("train", "val"), ("val", "test"))
    )
    carved = build(folder)
    assert {example.image for example in carved.split("test")} == {row[0] for row in rows[:12]}
    assert len(carved.split("val")) == pytest.approx(48 * 0.2, abs=2)
    with caplog.at_level(logging.WARNING):
        alone = build(folder, group_column=None)
    assert "each image is its own group" in caplog.text
    assert alone.examples[0].group == alone.examples[0].image


def domain_groups(domain: Domain, split: Any) -> set[str]:
    return {example.group for example in domain.split(split)}


def test_fingerprint_follows_what_examples_and_images_are_made_of(folder: Path, tmp_path_factory: Any) -> None:
    domain = build(folder)
    assert domain.fingerprint == build(folder, check_images="exists", templates=["{label}"]).fingerprint
    moved = tmp_path_factory.mktemp("moved") / "x"
    folder.rename(moved)
    assert build(moved).fingerprint == domain.fingerprint
    seen = {domain.fingerprint, build(moved, labels=["pneumonia", "normal"]).fingerprint}
    seen.add(build(moved, group_column=None).fingerprint)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9), np.uint8)).save(moved / "images" / "val0.png")
    seen.add(build(moved).fingerprint)
    write(moved, ROWS[1:])
    seen.add(build(moved).fingerprint)
    assert len(seen) == 5


# --- faults of a folder -----------------------------------------------------------------------------------------


def test_missing_root_table_and_columns(folder: Path) -> None:
    assert "no such folder" in fails(folder / "nowhere")
    message = fails(folder, table="label.csv")
    assert "label.csv: no such file; the folder holds images/, labels.csv" in message
    for argument in ("image_column", "label_column", "split_column", "group_column", "id_column"):
        message = fails(folder, **{argument: "nothing"})
        assert (
            f"no column 'nothing', which {argument} names; the columns are image, label, split, patient_id" in message
        )
    assert "attribute_columns.age" in fails(folder, attribute_columns={"age": "years"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "cannot be read as a table"),
        (HEADER + "\n", "no rows below its header image, label, split, patient_id"),
        (HEADER + "\n,,,\n\n", "no rows below its header"),
        (HEADER + '\na.png,"normal,train,p\n', "cannot be read as a table"),
        ("image,label,label ,split\na,b,c,d\n", r"columns ['label'] occur more than once"),
        ("image,label,label,split\na,b,c,d\n", r"columns ['label'] occur more than once"),
        (
            HEADER + "\na.png,normal, viral,train,p\nb.png,normal, viral,train,p\n",
            "2 rows have more entries than the header has columns, first row 2; put an entry that holds a ','",
        ),
        (HEADER + "\n\n\na.png,,train,p\n", "no label in column 'label' in 1 rows, first in row 4"),
    ],
)
def test_broken_tables(folder: Path, text: str, expected: str) -> None:
    (folder / "labels.csv").write_text(text)
    message = fails(folder)
    assert str(folder / "labels.csv") in message
    assert expected in message


def test_table_that_is_not_utf8(folder: Path) -> None:
    (folder / "labels.csv").write_bytes("image,label\nä.png,ödem\n".encode("latin-1"))
    assert "not UTF-8 text" in fails(folder)


def change(row: int, column: int, value: str) -> list[list[str]]:
    rows = [list(r) for r in ROWS]
    rows[row][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (change(1, 0, ROWS[0][0]), "1 ids occur more than once: 'images/train0.png' (2 times); list each image once"),
        (change(2, 1, ""), "no label in column 'label' in 1 rows, first in row 4"),
        (change(2, 1, "NaN"), "no label in column 'label' in 1 rows, first in row 4"),
        (change(3, 2, ""), "column 'split' is empty in 1 rows, first in row 5"),
        (change(3, 3, ""), "column 'patient_id' is empty in 1 rows, first in row 5"),
        (change(3, 2, "fold2"), "unknown split names: 'fold2' (1 rows); admissible are train, training, val"),
        (change(13, 3, "p-train0"), "1 of 13 groups lie in several splits: p-train0 in train, test"),
        (change(13, 1, "cancer"), "the split 'train' has no row of ['cancer']"),
        ([[r[0], "normal", *r[2:]] for r in ROWS], "the only labels are ['normal']; diagnosis needs two"),
        ([r for r in ROWS if r[2] != "test"], "no rows in the split 'test', only in train, val"),
    ],
)
def test_rows_that_are_not_as_they_must_be(folder: Path, rows: list[list[str]], expected: str) -> None:
    write(folder, rows)
    message = fails(folder)
    assert str(folder / "labels.csv") in message
    assert expected in message


def test_faults_of_prompts_are_told_before_images_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr("vlmbench.domains.folder_images.FolderImages.load", load)
    assert "'edema', but the labels are 'normal', 'pneumonia'" in fails(folder, label_prompts={"edema": ["oedema"]})


def test_leaking_groups_are_kept_for_the_audit(folder: Path) -> None:
    write(folder, change(13, 3, "p-train0"))
    assert audit(build(folder, on_leak="report"))["train-test"]["groups"] == 1


def test_labels_that_the_argument_lacks_or_repeats(folder: Path) -> None:
    assert "labels ['pneumonia'] occur in the table" in fails(folder, labels=["normal", "edema"])
    assert "no row of ['edema']" in fails(folder, labels=["normal", "pneumonia", "edema"])
    assert "twice" in fails(folder, labels=["normal", "pneumonia", "normal"])
    for argument in ("on_bad_image", "check_images", "on_leak"):
        assert f"{argument}='maybe' is not admissible; choose one of" in fails(folder, **{argument: "maybe"})


def test_all_broken_images_are_counted_and_five_are_named(folder: Path) -> None:
    for row in ROWS[:4]:
        (folder / row[0]).unlink()
    for row in ROWS[6:9]:
        (folder / row[0]).write_bytes(b"no image")
    message = fails(folder)
    assert "7 of 14 images cannot be read: images/train0.png: no such file; " in message
    assert "images/val0.png: not a DICOM" in message
    assert "images/val1.png" not in message
    assert "; and 2 more" in message
    assert "on_bad_image=leave_out" in message
    assert "4 of 14 images" in fails(folder, check_images="exists")


def test_broken_images_are_left_out_by_choice(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / ROWS[0][0]).unlink()
    (folder / ROWS[7][0]).write_bytes(b"no image")
    splits = {example.id: example.split for example in build_ok(folder)}
    domain = build(folder, on_bad_image="leave_out")
    assert len(domain.examples) == 12
    assert [(entry["image"], entry["examples"]) for entry in domain.left_out] == [(ROWS[0][0], 1), (ROWS[7][0], 1)]
    assert {example.id: example.split for example in domain.examples}.items() <= splits.items()
    assert "2 images left out; 12 of 14 rows remain" in caplog.text
    for row in ROWS[6:10]:
        (folder / row[0]).write_bytes(b"no image")
    message = fails(folder, on_bad_image="leave_out")
    assert "without the 5 images left out, the split 'val' has no rows" in message


def build_ok(folder: Path) -> Sequence[Any]:
    """Return the examples as they are when the files are only looked for, the first one put back."""
    draw(folder, [ROWS[0][0]])
    examples = build(folder, check_images="exists").examples
    (folder / ROWS[0][0]).unlink()
    return examples


def test_long_reading_shows_a_progress_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(folder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("vlmbench.progress._QUIET_SECONDS", 0.0)
    monkeypatch.setattr("vlmbench.domains.hashing._CHUNK", 4)
    build(folder)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Reading images: 4 of 14, ")
    assert first.endswith(" s left")
    assert last.startswith("Reading images: 14 in ")


def test_images_outside_the_root_are_refused(folder: Path) -> None:
    draw(folder.parent, ["outside.png"])
    for key, fault in (("../outside.png", "lies outside"), (str(folder.parent / "outside.png"), "an absolute path")):
        write(folder, change(0, 0, key))
        message = fails(folder)
        assert f"{fault}; images are taken from below {folder} alone, by paths relative to it" in message
        assert build(folder, allow_absolute=True).examples[0].image == key


# --- by configuration alone -------------------------------------------------------------------------------------


def configured(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Domain:
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    (cell,) = compose("train", "").configs
    check_cell(cell)
    return build_domain(cell.domain, cell.task.name)


def test_codes_as_yaml_and_the_command_line_read_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, [(row[0], "1" if row[1] == "pneumonia" else "0", *row[2:]) for row in ROWS])
    text = (
        f"defaults:\n  - /schema/domain/folder@_here_\nname: mine\nmodality: radiograph\nroot: {folder}\n"
        "label_map: {0: healthy, 1: ill}\nlabel_prompts: {ill: [consolidation]}\n"
    )
    (folder / "conf" / "domain").mkdir(parents=True)
    (folder / "conf" / "domain" / "mine.yaml").write_text(text)
    (folder / "conf" / "domain" / "coded.yaml").write_text(
        text.replace("label_map: {0: healthy, 1: ill}", "").replace("ill:", "1:")
    )
    own = ["--config-dir", str(folder / "conf")]
    mapped = configured(monkeypatch, *own, "domain=mine")
    assert mapped.label_names == ("healthy", "ill")
    assert mapped.prompts.positive["ill"] == ("a photo of consolidation",)
    coded = configured(monkeypatch, *own, "domain=coded")
    assert coded.prompts.positive == {"0": ("a photo of 0",), "1": ("a photo of consolidation",)}
    typed = ["domain=folder", f"domain.root={folder}", "domain.split_column=null", "+domain.label_map={0:no,1:a}"]
    assert configured(monkeypatch, *typed).label_names == ("a", "no")


def test_a_multi_label_folder_needs_no_more_than_to_be_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, [(row[0], f"{row[1]}|{'ab'[i % 3 == 0]}", *row[2:]) for i, row in enumerate(ROWS)])
    domain = configured(monkeypatch, "domain=folder", f"domain.root={folder}", "domain.multi_label=true")
    assert domain.label_names == ("a", "b", "normal", "pneumonia")
    assert domain.prompts.negative["a"] == ("a photo without a",)


# --- prompts ----------------------------------------------------------------------------------------------------


def test_prompts_are_every_phrase_in_every_template() -> None:
    prompts = build_prompts(
        ["a", "b"], {"a": ["x", "y"], "b": "z"}, ["{label}.", "see {label}"], ["no {label}"], multi_label=True
    )
    assert prompts == Prompts(
        {"a": ("x.", "see x", "y.", "see y"), "b": ("z.", "see z")}, {"a": ("no x", "no y"), "b": ("no z",)}
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"phrases": {"c": ["x"]}}, "'c', but the labels are 'a', 'b'"),
        ({"phrases": {"a": [" "]}}, "an empty phrase for 'a'"),
        (
            {"templates": ["a photo"]},
            "'a photo' must have the placeholder {label} and no other, for the labels 'a', 'b'",
        ),
        ({"templates": ["{label} {}"]}, "must have the placeholder"),
        ({"templates": ["{label} {organ}"]}, "must have the placeholder"),
        ({"templates": ["{label"]}, "is no template"),
        ({"templates": []}, "templates is empty"),
        ({"multi_label": True}, "needs negative_templates"),
    ],
)
def test_prompts_that_cannot_be_made(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(DomainError) as caught:
        build_prompts(["a", "b"], **arguments)
    assert expected in str(caught.value)


# --- VQA --------------------------------------------------------------------------------------------------------


def line(i: int, **fields: Any) -> dict[str, Any]:
    split = ("train", "val", "test")[i % 3]
    return {"id": f"q{i}", "image": f"{i}.png", "question": "Is it big?", "answer": "yes", "split": split} | fields


def write_qa(root: Path, lines: Sequence[dict[str, Any] | str]) -> None:
    draw(root, [f"{i}.png" for i in range(12)])
    texts = [text if isinstance(text, str) else json.dumps(text) for text in lines]
    (root / "qa.jsonl").write_text("\n".join(texts) + "\n\n", encoding="utf-8-sig")


def build_qa(root: Path, **arguments: Any) -> Domain:
    return build_vqa_jsonl("own", str(root), "ct", **arguments)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("closed", "yes", ("yes", "no"))),
        ({"answer": "No."}, ("closed", "no", ("yes", "no"))),
        ({"answer": True}, ("closed", "yes", ("yes", "no"))),
        ({"answer": "Yes", "answer_type": "CLOSED "}, ("closed", "yes", ("yes", "no"))),
        ({"answer": "yes", "answer_type": "open"}, ("open", "yes", ())),
        ({"answer": "in the lung"}, ("open", "in the lung", ())),
        ({"answer": 3}, ("open", "3", ())),
        ({"answer": 3, "options": [2, 3.5, 3]}, ("closed", "3", ("2", "3.5", "3"))),
        ({"answer": "ct", "options": ["CT", "MRI", "US"]}, ("closed", "CT", ("CT", "MRI", "US"))),
        (
            {"answer": "Left", "question": "Left or right?", "answer_type": "closed"},
            ("closed", "Left", ("Left", "right")),
        ),
        ({"answer": "Maybe", "answer_type": "closed"}, ("closed", "Maybe", ())),
        ({"answer": "left", "question": "Left or right?"}, ("open", "left", ())),
    ],
)
def test_types_options_and_answers(tmp_path: Path, fields: dict[str, Any], expected: tuple[Any, ...]) -> None:
    write_qa(tmp_path, [line(0, **fields), line(1), line(2)])
    example = build_qa(tmp_path).examples[0]
    assert (example.answer_type, example.answer, example.options) == expected
    assert example.group == example.image == "0.png"


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Is the lesion on the left or right side?", ("left", "right")),
        ("Is this an MRI or a CT scan?", ("MRI", "CT")),
        ("Is the lesion in the left or in the right lung?", ()),
        ("Is the heart enlarged or is it normal?", ()),
        ("Is it above or below the diaphragm?", ("above", "below")),
        ("Is this an AP or PA film?", ("AP", "PA")),
        ("Is this T1, T2, or FLAIR?", ()),
        ("Is this T1, T2 or FLAIR?", ()),
        ("Is it T1 or T2 or FLAIR?", ()),
        ("Is there contrast or no contrast?", ()),
        ("Do you suspect a vascular process or a genetic process?", ()),
        ("What organ is shown?", ()),
    ],
)
def test_options_are_taken_from_a_question_only_where_it_is_plain(question: str, options: tuple[str, ...]) -> None:
    assert options_in_question(question) == options


def test_fields_of_other_names_made_splits_and_attributes(tmp_path: Path) -> None:
    lines = [
        {"img": f"{i // 2}.png", "q": "What?", "a": f"thing {i}", "patient": f"p{i // 4}", "organ": "chest", "age": 5}
        for i in range(24)
    ]
    lines[0]["dose"] = float("nan")
    lines[1]["dose"] = 10**400
    write_qa(tmp_path, lines)
    domain = build_qa(
        tmp_path,
        id_field=None,
        image_field="img",
        question_field="q",
        answer_field="a",
        group_field="patient",
        split_field=None,
        attribute_fields={"organ": "organ", "age": "age", "dose": "dose"},
    )
    assert domain.task == "vqa"
    assert domain.examples[0].id == "line1"
    assert domain.examples[0].attributes == {"organ": "chest", "age": 5.0}
    assert domain.examples[1].attributes["dose"] == float("inf")
    assert "dose" not in domain.examples[2].attributes
    groups = [domain_groups(domain, split) for split in SPLITS]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 6


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ('{"id": "q9", ', "line 2 is not JSON"),
        ('{"id": ' + "9" * 5000 + "}", "line 2 is not JSON"),
        ("[1, 2]", "line 2 is a list; one JSON object a line is expected"),
        (line(1, answer=""), "line 2: the field 'answer' must be a text or a number, not ''"),
        (line(1, answer=None), "line 2: the field 'answer' must be"),
        (line(1, answer=float("nan")), "line 2: the field 'answer' must be"),
        (
            {"id": "q1", "image": "1.png"},
            "line 2: no field 'question', which question_field names; the fields are id, image",
        ),
        (
            line(1, answer_type="multiple"),
            "line 2: the answer type 'multiple' is none of 'open', 'closed' and 'choice'",
        ),
        (line(1, options=["a", "b"]), "line 2: the answer 'yes' is none of its options ['a', 'b']"),
        (line(1, options="a,b"), "line 2: the options must be a list of texts"),
        (line(1, options=["yes", "Yes."]), "must be two or more that differ"),
        (line(0), "1 ids occur more than once: 'q0' (2 times)"),
        (line(1, split="fold"), "unknown split names: 'fold'"),
        (line(1, image="nothing.png"), "1 of 3 images cannot be read: nothing.png: no such file"),
        (line(1, image="0.png"), "1 of 2 groups lie in several splits: 0.png in train, val"),
    ],
)
def test_lines_that_are_not_as_they_must_be(tmp_path: Path, bad: Any, expected: str) -> None:
    write_qa(tmp_path, [line(0), bad, line(2)])
    with pytest.raises(DomainError) as caught:
        build_qa(tmp_path)
    assert str(tmp_path / "qa.jsonl") in str(caught.value)
    assert expected in str(caught.value)


def test_fields_that_no_line_has(tmp_path: Path) -> None:
    write_qa(tmp_path, [line(i, choices=["yes", "no"]) for i in range(3)])
    for argument, value in (("options_field", "choice"), ("answer_type_field", "kind")):
        with pytest.raises(DomainError, match=rf"no line has the field '{value}', which {argument} names; .*choices"):
            build_qa(tmp_path, **{argument: value})
    with pytest.raises(DomainError, match=r"no line has the field 'years', which attribute_fields\.age names"):
        build_qa(tmp_path, attribute_fields={"age": "years"})
    with pytest.raises(DomainError, match=r"line 1: no field 'fold', .*set split_field to one of them, or to null"):
        build_qa(tmp_path, split_field="fold")


def test_empty_file_and_left_out_questions(tmp_path: Path) -> None:
    write_qa(tmp_path, [])
    with pytest.raises(DomainError, match="the file has no lines"):
        build_qa(tmp_path)
    write_qa(tmp_path, [*(line(i) for i in range(6)), line(6, image="x.png"), line(9, image="x.png")])
    domain = build_qa(tmp_path, on_bad_image="leave_out")
    assert domain.left_out == [{"image": "x.png", "reason": "no such file", "examples": 2}]
    assert len(domain.examples) == 6


# --- the real sets ----------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "arguments", "sizes", "classes"),
    [
        ("cxr_kermany", {}, (692, 180, 543), 3),
        ("cxr_kermany", {"label_column": "label_binary"}, (692, 180, 543), 2),
        ("derm_ham10000", {"attribute_columns": {"site": "localization"}}, (710, 137, 356), 7),
        ("us_busi", {}, (434, 73, 219), 3),
    ],
)
def test_real_diagnosis_sets(name: str, arguments: dict[str, Any], sizes: tuple[int, ...], classes: int) -> None:
    domain = build(real_set(name), **arguments)
    assert tuple(len(domain.split(split)) for split in SPLITS) == sizes
    assert len(domain.label_names) == classes
    assert not domain.left_out
    made = build(real_set(name), split_column=None, check_images="exists", **arguments)
    counts = made.counts()
    for label in made.label_names:
        per_split = [counts[split].get(f"label:{label}", 0) for split in SPLITS]
        assert [n / sum(per_split) for n in per_split] == pytest.approx([0.6, 0.15, 0.25], abs=0.03)


@pytest.mark.real
def test_real_vqa_set_by_disjoint_images() -> None:
    domain = build_qa(real_set("vqa_rad"), split_field="split_image_disjoint")
    assert tuple(len(domain.split(split)) for split in SPLITS) == (1289, 240, 705)
    kinds = Counter(example.answer_type for example in domain.examples)
    assert kinds == {"closed": 1290, "open": 944}
    closed = [example for example in domain.examples if example.answer_type == "closed"]
    by_options = Counter("yes/no" if e.options == ("yes", "no") else "offered" if e.options else "none" for e in closed)
    assert by_options["yes/no"] == 1185
    assert by_options["offered"] == 54
    assert all(example.answer in example.options for example in closed if example.options)


@pytest.mark.real
@pytest.mark.parametrize(
    ("split_field", "check"),
    [("split", lambda shared: shared > 100), ("split_image_disjoint", lambda shared: shared == 0)],
)
def test_real_vqa_set_audit_finds_the_shared_images(split_field: str, check: Callable[[int], bool]) -> None:
    found = audit(build_qa(real_set("vqa_rad"), split_field=split_field, on_leak="report"))
    for kind in ("groups", "images", "pixels"):
        assert check(found["train-test"][kind]), kind


@pytest.mark.parametrize(
    ("builder", "kind", "others"),
    [
        (build_folder, schema.FolderDomainConfig, {"allow_absolute"}),
        (build_vqa_jsonl, schema.VqaJsonlDomainConfig, {"allow_absolute", "options_from_question"}),
        (build_captions_jsonl, schema.CaptionsJsonlDomainConfig, {"allow_absolute"}),
        (build_published, schema.PublishedDomainConfig, {"task", "study", "ours", "rule"}),
    ],
)
def test_every_argument_of_a_builder_is_a_field_of_its_configuration(builder, kind, others):
    """They are passed on by name: one that is renamed on one side alone would no longer be."""
    fields = {field.name for field in dataclasses.fields(kind)}
    assert set(inspect.signature(builder).parameters) - fields == others
