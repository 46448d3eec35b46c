"""Captions: a user's own and the public sets, as pre-training domains, and what each fault is called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_miniature import make
from miniatures.captions import make_roco
from PIL import Image

from vlmbench.catalogue.read import named_domain
from vlmbench.cell.domain import audited, build_domain
from vlmbench.config.checks import check_combination
from vlmbench.config.faults import ImpossibleCellError
from vlmbench.config.schema import ContrastiveModelConfig, DiagnosisTaskConfig, ZeroShotConfig
from vlmbench.domains.base import Domain, DomainError
from vlmbench.domains.captions_jsonl import build_captions_jsonl

SPLITS = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
LINES: list[dict[str, Any]] = [
    {
        "image": f"images/{n}.png",
        "caption": f"An image, number {n}.",
        "split": split,
        "group": f"p{n // 2}" if split == "train" else f"q{n}",
        "age": 40 + n,
    }
    for n, split in enumerate(SPLITS)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for line in LINES:
        Image.fromarray(rng.integers(0, 255, (24, 24), np.uint8)).save(tmp_path / line["image"])
    write(tmp_path, LINES)
    return tmp_path


def write(root: Path, lines: list[dict[str, Any]], name: str = "captions.jsonl") -> None:
    (root / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def without(*fields: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in fields} for line in LINES]


def build(root: Path, **arguments: Any) -> Domain:
    return build_captions_jsonl("own", str(root), "ct+mri", **arguments)


def fails(root: Path, **arguments: Any) -> str:
    with pytest.raises(DomainError) as caught:
        build(root, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- a user's own -----------------------------------------------------------------------------------------------


def test_lines_are_examples_in_their_order(folder: Path) -> None:
    domain = build(folder, attribute_fields={"age": "age"})
    assert (domain.task, domain.modality) == ("pretrain", "ct+mri")
    assert [row.caption for row in domain.examples] == [line["caption"] for line in LINES]
    assert [row.split for row in domain.examples] == SPLITS
    assert domain.examples[1].group == "p0"
    assert domain.examples[3].attributes == {"age": 43.0}
    assert domain.examples[2].id == "line3"
    assert domain.images.load(domain.examples[0].image).size == (24, 24)


def test_a_table_says_the_same(folder: Path) -> None:
    header = "image,caption,split,group"
    rows = [f'{line["image"]},"{line["caption"]}",{line["split"]},{line["group"]}' for line in LINES]
    (folder / "captions.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    table, lines = build(folder, table="captions.csv"), build(folder)
    for one, other in zip(table.examples, lines.examples, strict=True):
        assert (one.image, one.caption, one.split, one.group) == (other.image, other.caption, other.split, other.group)
    assert table.examples[0].id == "row2"  # as a spreadsheet counts


def test_splits_and_groups_need_not_be_given(folder: Path) -> None:
    write(folder, without("split", "group"))
    made = build(folder, split_fractions=(0.5, 0.25, 0.25))
    assert {name: count["examples"] for name, count in made.counts().items()} == {"train": 6, "val": 3, "test": 3}
    assert made.examples[0].group == made.examples[0].image
    write(folder, without("split"))
    grouped = audited(build(folder), hashes=False).audit
    assert [grouped[pair]["groups"] for pair in ("train-val", "train-test", "val-test")] == [0, 0, 0]


def test_an_image_may_have_several_captions(folder: Path) -> None:
    write(folder, [*LINES, {**LINES[0], "caption": "Said otherwise."}])
    assert build(folder).counts()["train"] == {"examples": 7, "images": 6, "groups": 3}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"caption": ""}, "line 2: the field 'caption' must be a text or a number, not ''"),
        ({"caption": "a \ud800 scan"}, "line 2: the field 'caption' holds half of a pair of surrogates"),
        ({"caption": None}, "line 2: the field 'caption' must be a text or a number, not None"),
        ({"image": "images/none.png"}, "images/none.png: no such file"),
        ({"image": "../images/0.png"}, "lies outside; images are taken from below"),
        ({"split": "fold1"}, "unknown split names: 'fold1' (1 rows)"),
        ({"split": "test"}, "1 of 9 groups lie in several splits: p0 in train, test"),
        ({"split": ""}, "line 2: the field 'split' must be a text or a number, not ''"),
    ],
)
def test_lines_that_are_not_as_they_must_be(folder: Path, change: dict[str, Any], expected: str) -> None:
    write(folder, [LINES[0], {**LINES[1], **change}, *LINES[2:]])
    message = fails(folder)
    assert str(folder / "captions.jsonl") in message
    assert expected in message


def test_fields_that_are_named_must_be_there(folder: Path) -> None:
    write(folder, without("split", "group"))
    assert "no field 'fold', which split_field names; the fields are image, caption, age" in fails(
        folder, split_field="fold"
    )
    assert "no field 'patient', which group_field names" in fails(folder, group_field="patient")
    assert "no field 'text', which caption_field names" in fails(folder, caption_field="text")
    assert "'sex', which attribute_fields.sex names" in fails(folder, attribute_fields={"sex": "sex"})
    write(folder, [*without("split")[:3], *LINES[3:]])
    assert "line 1: no field 'split', which split_field names" in fails(folder)
    write(folder, [{**line, "id": "a"} for line in LINES])
    assert "1 ids occur more than once: 'a' (12 times)" in fails(folder, id_field="id")


def test_a_missing_table_and_an_empty_one(folder: Path) -> None:
    assert "captions.csv: no such file; the folder holds captions.jsonl, images/" in fails(folder, table="captions.csv")
    (folder / "captions.jsonl").write_text("\n\n")
    assert "the file has no lines" in fails(folder)
    assert "no such folder" in fails(folder / "nowhere")


def test_captions_are_for_pre_training_alone(folder: Path) -> None:
    domain = named_domain("captions_jsonl", overrides=[f"root={folder}"])
    model = ContrastiveModelConfig(name="m", kind="contrastive")
    for some in (domain, named_domain("roco")):
        with pytest.raises(ImpossibleCellError, match=r"has no diagnosis\. Valid tasks: pretrain"):
            check_combination(model, DiagnosisTaskConfig(name="diagnosis"), ZeroShotConfig(name="zero_shot"), some)


def test_a_model_is_pre_trained_on_a_users_captions(folder: Path, train: Any) -> None:
    ran = train(
        *("model=tiny_clip", "task=pretrain", "finetune=full", "finetune.scope=vision+text", "domain=captions_jsonl"),
        *(f"domain.root={folder}", "domain.name=own", "domain.modality=ct", "trainer.max_epochs=1"),
        *("trainer.batch_size=4", "trainer.eval_batch_size=3", "task.resamples=100"),
        small=False,
    )
    assert ran.status == 0, ran.err
    assert ran.record["metrics"]["loss"]["value"] > 0
    assert ran.record["n"]["examples"] == 3
    assert list(ran.predictions["caption"]) == [line["caption"] for line in LINES if line["split"] == "test"]


def test_a_caption_beyond_the_context_is_cut_and_told(
    folder: Path, train: Any, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = (
        *("model=tiny_clip", "task=pretrain", "finetune=full", "domain=captions_jsonl", f"domain.root={folder}"),
        *(
            "domain.name=own",
            "domain.modality=ct",
            "trainer.max_epochs=1",
            "trainer.batch_size=3",
            "task.resamples=100",
        ),
    )
    losses = []
    for words in (500, 5000):  # what lies beyond the context does not count
        write(folder, [{**line, "caption": f"{line['caption']} {'word ' * words}"} for line in LINES])
        ran = train(*arguments, output=folder / f"runs{words}", small=False)
        assert ran.status == 0, ran.err
        (record,) = (record for record in caplog.records if "beginning counts" in record.getMessage())
        assert "longer than the text tower's context" in record.getMessage()
        assert len(record.getMessage()) < 200
        caplog.clear()
        losses.append(ran.record["metrics"]["loss"]["value"])
    assert losses[0] == losses[1] > 0


# --- the public sets --------------------------------------------------------------------------------------------


def public(name: str, root: Path, *overrides: str) -> Domain:
    config = named_domain(name, overrides=[f"root={root}", "check_images=decode", *overrides])
    return build_domain(config, "pretrain")


def test_rocov2_in_its_official_split(tmp_path: Path) -> None:
    make("roco", tmp_path)
    domain = public("roco", tmp_path)
    assert {name: count["examples"] for name, count in domain.counts().items()} == {"train": 18, "val": 6, "test": 6}
    assert domain.examples[0].id == "ROCOv2_2023_train_000001"
    assert domain.examples[0].caption == "A bright, round lesion, with a sharp border."
    assert domain.examples[1].caption == 'Normal findings, "no" lesion.'
    assert domain.origin == "the official split"


def test_rocos_archives_may_have_been_unpacked_into_folders_of_their_own(tmp_path: Path) -> None:
    make_roco(tmp_path)
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}_images").mkdir()
        (tmp_path / split).rename(tmp_path / f"{split}_images" / split)
    assert public("roco", tmp_path).examples[0].image == "train_images/train/ROCOv2_2023_train_000001.jpg"


def test_the_first_roco(tmp_path: Path) -> None:
    make_roco(tmp_path, version=1)
    domain = public("roco", tmp_path, "settings.version=1")
    assert {name: count["examples"] for name, count in domain.counts().items()} == {"train": 18, "val": 6, "test": 6}
    assert domain.examples[0].image == "data/train/radiology/images/ROCO_00001.jpg"
    captions = tmp_path / "data/train/radiology/captions.txt"
    captions.write_text(captions.read_text().replace("\t A bright", " A bright", 1), encoding="utf-8")
    with pytest.raises(DomainError, match=r"line 1: ROCO_00001 A bright.* has no caption; domain\.settings"):
        public("roco", tmp_path, "settings.version=1")
    left = public("roco", tmp_path, "settings.version=1", "settings.bad_rows=leave_out").left_out
    assert [entry["examples"] for entry in left] == [1]


def test_pmc_oa_is_split_by_article_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    make("pmc_oa", tmp_path)
    domain = public("pmc_oa", tmp_path, "split_fractions=[0.6,0.2,0.2]")
    assert len(domain.examples) == 31
    assert domain.left_out[0]["examples"] == 1
    assert "line 4: the field 'caption'" in domain.left_out[0]["reason"]
    assert domain.examples[0].group == domain.examples[1].group == "PMC212300"
    found = audited(domain, hashes=False).audit
    assert [found[pair]["groups"] for pair in ("train-val", "train-test", "val-test")] == [0, 0, 0]
    with pytest.raises(DomainError, match=r"there is no official split; set domain\.split=ours"):
        public("pmc_oa", tmp_path, "split=study")


def test_faults_of_the_public_captions(tmp_path: Path) -> None:
    roco, oa = make("roco", tmp_path / "roco"), make("pmc_oa", tmp_path / "oa")
    first = next(iter(sorted((roco / "valid").iterdir())))
    first.unlink()
    with pytest.raises(DomainError, match=f"{first.name}: no such file"):
        public("roco", roco)
    shutil.rmtree(roco / "test")
    with pytest.raises(DomainError, match=r"test is not there; .* holds"):
        public("roco", roco)
    (roco / "test_captions.csv").write_text("ID,Text\na,b\n")
    with pytest.raises(DomainError, match="no column 'Caption'"):
        public("roco", roco)
    (oa / "pmc_oa.jsonl").write_text('{"image": "a.jpg"}\n')
    with pytest.raises(DomainError, match=r"no row can be used: .*pmc_oa\.jsonl: line 1: no field 'caption'"):
        public("pmc_oa", oa)
    (oa / "pmc_oa.jsonl").write_text('{"image": "a.jpg", "cap')
    with pytest.raises(DomainError, match="line 1 is not JSON"):
        public("pmc_oa", oa)
