"""Public question sets in their official layouts: what is read, how it is split, and what each fault is called."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_miniature import make
from miniatures.hub_vqa import SCHEMA, make_vqa_rad, write_part
from miniatures.pmc_vqa import make as make_pmc_vqa
from real_data import real_set

from vlmbench.catalogue.read import named_domain
from vlmbench.cell.domain import audited, build_domain
from vlmbench.domains import parquet, parquet_index
from vlmbench.domains.base import Domain, DomainError, ImageError, StoredImages
from vlmbench.domains.parquet import ParquetImages, read_parquet
from vlmbench.domains.published.layout import lacking
from vlmbench.domains.published.readers import read_layout
from vlmbench.domains.store import BlobStore

VQA = ("slake", "pathvqa", "vqa_rad", "pmc_vqa", "omnimedvqa")


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("miniatures")
    for name in VQA:
        make(name, root / name, seed=1)
    return root


@pytest.fixture
def copied(miniatures: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A miniature that a test may break."""
    return lambda name: Path(shutil.copytree(miniatures / name, tmp_path / name))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build(name: str, root: Path, *overrides: str) -> Domain:
    config = named_domain(name, overrides=[f"root={root}", "check_images=decode", *overrides])
    return build_domain(config, "vqa")


def fails(name: str, root: Path, *overrides: str) -> str:
    with pytest.raises(DomainError) as caught:
        build(name, root, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shared(domain: Domain, pair: str = "train-test") -> dict[str, Any]:
    return audited(domain, hashes=False).audit[pair]


# --- all of them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VQA)
def test_a_miniature_is_the_whole_layout_and_is_read_with_both_splits(miniatures: Path, name: str) -> None:
    config = named_domain(name)
    assert lacking(miniatures / name, config.layout) == []  # type: ignore[attr-defined]
    for split in ("study", "ours"):
        domain = build(name, miniatures / name, f"split={split}")
        assert isinstance(domain.images, StoredImages)
        assert all(count["examples"] for count in domain.counts().values())
        assert domain.origin
        assert domain.modality == config.modality != "unknown"


@pytest.mark.parametrize("name", VQA)
def test_our_split_keeps_all_questions_of_an_image_together_and_has_validation(miniatures: Path, name: str) -> None:
    domain = build(name, miniatures / name, "split=ours")
    for pair in ("train-val", "train-test", "val-test"):
        found = shared(domain, pair)
        assert (found["groups"], found["images"]) == (0, 0)


@pytest.mark.parametrize("name", VQA)
def test_a_missing_folder_and_a_missing_file_are_told(miniatures: Path, tmp_path: Path, name: str) -> None:
    assert "no such folder; set domain.root" in fails(name, tmp_path / "nowhere")
    (tmp_path / "README").write_text("")
    message = fails(name, tmp_path)
    assert "is not there" in message
    assert "holds README" in message


# --- SLAKE ------------------------------------------------------------------------------------------------------


def edit(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    rows = json.loads(path.read_text(encoding="utf-8"))
    change(rows)
    path.write_text(json.dumps(rows), encoding="utf-8")


def test_slake_has_the_english_questions_in_the_official_split(miniatures: Path) -> None:
    domain = build("slake", miniatures / "slake")
    raw = {split: json.loads((miniatures / "slake" / f"{split}.json").read_text()) for split in ("train", "test")}
    english = [row for row in raw["test"] if row["q_lang"].startswith("en")]
    assert 0 < len(english) < len(raw["test"])
    assert [row.question for row in domain.split("test")] == [row["question"] for row in english]
    kinds = Counter(row.answer_type for row in domain.split("test"))
    assert kinds == Counter(row["answer_type"].lower() for row in english)
    assert len(build("slake", miniatures / "slake", "settings.language=zh").split("test")) == 6


def test_slakes_closed_questions_have_the_options_that_they_offer(miniatures: Path) -> None:
    rows = {row.question: row for row in build("slake", miniatures / "slake").split("train")}
    assert rows["Is there a bright disc in the image?"].options == ("yes", "no")
    assert rows["Is this a CT or an MRI?"].options == ("CT", "MRI")
    neither = rows["Does the picture contain more bone or air?"]
    assert (neither.answer_type, neither.options, neither.answer) == ("closed", (), "Soft tissue")
    assert neither.attributes.keys() == {"location", "modality", "content_type"}
    assert not neither.listed


def test_slakes_first_upload_named_its_second_table_otherwise(copied: Callable[[str], Path]) -> None:
    root = copied("slake")
    expected = build("slake", root).fingerprint
    (root / "validation.json").rename(root / "validate.json")
    assert build("slake", root).fingerprint == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows[1].update(answer_type="MAYBE"), "question 2: the answer_type 'MAYBE' is neither OPEN nor"),
        (lambda rows: rows[2].pop("answer"), "question 3: no field 'answer'; the fields are img_id, img_name"),
        (lambda rows: rows[0].update(question=""), "question 1: the field 'question' must be a text"),
        (lambda rows: rows[1].update(qid=rows[0]["qid"]), "1 ids occur more than once, such as train-0"),
        (lambda rows: rows.clear(), "the list is empty"),
        (lambda rows: [row.update(q_lang="zh") for row in rows], "no question has a q_lang that begins with 'en'"),
        (lambda rows: rows[0].update(img_name="xmlab9999/source.jpg"), "imgs/xmlab9999/source.jpg: no such file"),
        (lambda rows: rows[0].update(img_name="../../secret.png"), "lies outside; images are taken from below"),
    ],
)
def test_faults_of_slake(copied: Callable[[str], Path], change: Callable[..., Any], expected: str) -> None:
    root = copied("slake")
    edit(root / "train.json", change)
    message = fails("slake", root)
    assert expected in message
    assert str(root) in message


def test_a_table_that_is_cut_off_is_told(copied: Callable[[str], Path]) -> None:
    root = copied("slake")
    path = root / "test.json"
    path.write_bytes(path.read_bytes()[:-200])
    message = fails("slake", root)
    assert f"{path}: not one JSON list (" in message
    assert "fetch the file again" in message


# --- questions in parquet files ---------------------------------------------------------------------------------


def test_a_question_is_closed_if_its_answer_is_yes_or_no(miniatures: Path) -> None:
    for name in ("pathvqa", "vqa_rad"):
        for row in build(name, miniatures / name).examples:
            assert (row.answer_type == "closed") == (row.answer in ("yes", "no"))
            assert row.options == (("yes", "no") if row.answer_type == "closed" else ())


#: Per split, the rows and how many of them are open; the share of train and validation is not published.
FULL = {
    "vqa_rad": {"train": (1793, 600), "test": (451, 200)},
    "pathvqa": {"train": (19_654, 9_000), "validation": (6_259, 3_000), "test": (6_719, 3_357)},
}


@pytest.mark.parametrize("name", FULL)
def test_published_sizes_come_out_of_tables_of_the_full_size(tmp_path: Path, name: str) -> None:
    for split, (rows, open_rows) in FULL[name].items():
        told = [
            {"image": f"{split} {n // 5}".encode(), "question": f"q{n}", "answer": "lung" if n < open_rows else "Yes"}
            for n in range(rows)
        ]
        write_part(tmp_path / "data" / f"{split}-00000-of-00001-0123456789abcdef.parquet", told, 1000)
    config = named_domain(name, overrides=[f"root={tmp_path}", "split=study"])
    domain = build_domain(config, "vqa")
    counts = {split: count["examples"] for split, count in domain.counts().items()}
    published = config.published  # type: ignore[attr-defined]
    assert counts["test"] == published["test"]
    assert counts["train"] + counts["val"] == published["train"] + published.get("val", 0)
    rows, open_rows = FULL[name]["test"]
    kinds = Counter(row.answer_type for row in domain.split("test"))
    assert kinds == {"open": open_rows, "closed": rows - open_rows}


def test_the_official_split_shares_images_and_the_audit_finds_them(tmp_path: Path) -> None:
    make_vqa_rad(tmp_path, seed=2, shared=3)
    domain = build("vqa_rad", tmp_path, "split=study")
    found = Counter(split for pair in ("train-test", "val-test") for split in [pair] * shared(domain, pair)["images"])
    assert found.total() == 3
    assert shared(domain, "train-val")["images"] == 0


def test_parts_of_a_split_are_read_in_their_order(miniatures: Path) -> None:
    layout = read_layout("hub_vqa", miniatures / "pathvqa", {})
    files = sorted((miniatures / "pathvqa" / "data").glob("train-*"))
    assert len(files) == 3
    questions = [row for path in files for row in pq.read_table(path)["question"].to_pylist()]
    rows = layout.frame[layout.frame["split"] == "train"]
    assert list(rows["question"]) == questions
    assert list(rows["id"]) == [f"train-{n}" for n in range(len(rows))]


def one(root: Path, pattern: str = "train-*") -> Path:
    return sorted((root / "data").glob(pattern))[0]


def rewritten(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    pq.write_table(pa.Table.from_pandas(change(pq.read_table(path).to_pandas()), preserve_index=False), path)


def test_faults_of_parquet_files(copied: Callable[[str], Path]) -> None:
    root = copied("pathvqa")
    path = one(root)
    whole = path.read_bytes()
    for broken in (whole[:-40], whole[: len(whole) // 2], b"PAR1", b""):
        path.write_bytes(broken)
        assert f"{path}: cannot be read as a parquet file (" in fails("pathvqa", root)
    path.write_bytes(whole[:600] + bytes(2000) + whole[2600:])  # the end is sound, the middle is not
    assert f"{path}: cannot be read as a parquet file (" in fails("pathvqa", root)

    path.write_bytes(whole)
    rewritten(path, lambda frame: frame.drop(columns="answer"))
    assert f"{path}: no column 'answer'; the columns are image, question" in fails("pathvqa", root)
    path.write_bytes(whole)
    rewritten(path, lambda frame: frame.assign(image="a path"))
    assert "the column 'image' is of type" in fails("pathvqa", root)
    table = pq.read_table(path)
    pq.write_table(table.append_column("answer", table["answer"]), path)
    assert f"{path}: the column 'answer' is there more than once" in fails("pathvqa", root)
    path.write_bytes(whole)
    rewritten(path, lambda frame: frame.assign(question=7))
    assert "the column 'question' is of type int64, where texts are expected" in fails("pathvqa", root)
    path.write_bytes(whole)
    rewritten(path, lambda frame: frame.assign(answer=frame["answer"].where(frame.index > 0)))
    assert f"{path}: row 1 has no answer" in fails("pathvqa", root)


@pytest.mark.parametrize("text", [pa.dictionary(pa.int32(), pa.string()), pa.string_view(), pa.large_string()])
@pytest.mark.parametrize("binary", [pa.binary_view(), pa.large_binary()])
def test_texts_and_images_may_be_stored_in_other_ways(
    copied: Callable[[str], Path], text: pa.DataType, binary: pa.DataType
) -> None:
    root = copied("vqa_rad")
    expected = build("vqa_rad", root).fingerprint
    for path in (root / "data").iterdir():
        table = pq.read_table(path)
        columns = [table[name].combine_chunks() for name in ("question", "answer")]
        told = [column.dictionary_encode() if pa.types.is_dictionary(text) else column.cast(text) for column in columns]
        images = pa.array(table["image"].to_pylist(), pa.struct([("bytes", binary), ("path", pa.string())]))
        pq.write_table(pa.table({"image": images, "question": told[0], "answer": told[1]}), path, compression="zstd")
    assert build("vqa_rad", root).fingerprint == expected


def test_rows_without_an_image_and_images_that_are_none(copied: Callable[[str], Path]) -> None:
    root = copied("vqa_rad")
    path = one(root)
    rows = pq.read_table(path).to_pylist()
    rows[4]["image"] = {"bytes": None, "path": "train_5.jpg"}
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    assert f"{path}: row 5 has no image in it; a path alone cannot be followed" in fails("vqa_rad", root)
    rows[4]["image"] = {"bytes": b"<html>not found</html>", "path": None}
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    message = fails("vqa_rad", root)
    assert "not a DICOM, PNG, JPEG" in message
    assert f"(row 5 of {path.name})" in message
    left = build("vqa_rad", root, "on_bad_image=leave_out").left_out
    assert [entry["examples"] for entry in left] == [1]


def test_parts_that_are_missing_or_of_two_uploads(copied: Callable[[str], Path]) -> None:
    root = copied("pathvqa")
    kept = one(root, "validation-00000*")
    again = kept.with_name("validation-00000-of-00002-ffffffffffffffff.parquet")
    shutil.copy(kept, again)
    assert "are the same part; keep one" in fails("pathvqa", root)
    again.rename(kept.with_name("validation-00002-of-00003-ffffffffffffffff.parquet"))
    assert "validation is of uploads in [2, 3] parts; fetch the dataset again" in fails("pathvqa", root)
    for path in (root / "data").glob("validation-*"):
        path.unlink()
    odd = one(root, "train-00001*").with_name("train-00003-of-00003.parquet")
    shutil.copy(one(root, "train-00001*"), odd)
    assert f"{odd.name} is none of the 3 parts that it names, from 0" in fails("pathvqa", root)
    odd.unlink()
    one(root, "train-00001*").unlink()
    assert "train has 2 of 3 parts, and lacks number 1;" in fails("pathvqa", root)
    for path in (root / "data").glob("train-*"):
        path.unlink()
    assert "no train-*.parquet" in fails("pathvqa", root)
    (root / "data" / "qa.parquet").write_bytes(b"")
    assert "not a part of the layout" in fails("pathvqa", root)


# --- images inside parquet files --------------------------------------------------------------------------------


def read(paths: list[Path], root: Path) -> tuple[list[pd.DataFrame], ParquetImages]:
    return read_parquet(paths, ["question", "answer"], root)


def test_an_image_is_named_by_its_bytes_in_whichever_file_it_lies(miniatures: Path, cache: Path) -> None:
    root = miniatures / "vqa_rad"
    paths = [one(root, "test-*"), one(root)]
    frames, images = read(paths, root)
    for path, frame in zip(paths, frames, strict=True):
        blobs = [row["bytes"] for row in pq.read_table(path)["image"].to_pylist()]
        assert list(frame["image"]) == [hashlib.sha256(blob).hexdigest() for blob in blobs]
        for key, blob in zip(frame["image"], blobs, strict=True):
            assert images.size(key) == len(blob)
            assert images.digest(key) == hashlib.sha256(blob).digest()
            assert images.load(key).size == (48, 48)
    assert len(set(frames[0]["image"]) & set(frames[1]["image"])) == 3
    with pytest.raises(ImageError, match="no image of these bytes"):
        images.load("0" * 64)


def test_the_files_are_looked_through_once_and_pictures_come_from_the_store(
    miniatures: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, paths = miniatures / "pathvqa", sorted((miniatures / "pathvqa" / "data").glob("*.parquet"))
    frames, first = read(paths, root)
    unpacked = sum(path.stat().st_size for path in (cache / "parquet" / "images").iterdir())
    monkeypatch.setattr(parquet_index, "_batches", lambda *_: pytest.fail("a file was looked through again"))
    monkeypatch.setattr(parquet, "read_one", lambda *_: pytest.fail("a row group was read for one image"))
    again, second = read(paths, root)
    assert all(a.equals(b) for a, b in zip(frames, again, strict=True))
    for key in set(frames[0]["image"]):
        assert second.load(key).tobytes() == first.load(key).tobytes()
        assert pickle.loads(pickle.dumps(second)).load(key).size == (48, 48)
    assert sum(path.stat().st_size for path in (cache / "parquet" / "images").iterdir()) == unpacked


def test_a_file_that_changed_is_looked_through_again(copied: Callable[[str], Path], cache: Path) -> None:
    root = copied("vqa_rad")
    path = one(root)
    (before,), images = read([path], root)
    stamp = images.stamp(before["image"][0])
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist(rows[::-1], SCHEMA), path)
    os.utime(path, ns=(1, 1))
    (after,), images = read([path], root)
    assert list(after["image"]) == list(before["image"])[::-1]
    assert images.stamp(before["image"][0]) != stamp


def test_a_damaged_cache_is_made_anew_or_gone_around(miniatures: Path, cache: Path) -> None:
    root = miniatures / "vqa_rad"
    path = one(root)
    (frame,), images = read([path], root)
    expected = images.load(frame["image"][7]).tobytes()
    data = cache / "parquet" / "images" / "data.bin"
    data.write_bytes(bytes(data.stat().st_size))  # every blob is damaged: the row group is read instead
    (_,), images = read([path], root)
    assert images.load(frame["image"][7]).tobytes() == expected
    (index,) = (cache / "parquet" / "index").glob("*.npz")
    for broken in (b"", b"PK\x03\x04", index.read_bytes()[:100]):
        index.write_bytes(broken)
        assert read([path], root)[0][0].equals(frame)
    shutil.rmtree(cache / "parquet" / "images")
    (_,), images = read([path], root)
    assert images.load(frame["image"][7]).tobytes() == expected
    assert not list((cache / "parquet" / "index").glob("*.tmp"))


def test_a_full_disk_is_told(miniatures: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(BlobStore, "keep", keep)
    with pytest.raises(DomainError, match="No space left on device; make room there, or set VLMBENCH_CACHE"):
        read([one(miniatures / "vqa_rad")], cache)
    assert not list(cache.rglob("*.npz"))


def test_a_cache_that_cannot_be_written_is_told(miniatures: Path, tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file, where a folder must be made")
    with pytest.raises(DomainError, match=r"cannot be unpacked into .*; make room there, or set VLMBENCH_CACHE"):
        read([one(miniatures / "vqa_rad")], tmp_path)


_LOOK_THROUGH = """
import hashlib, sys
from pathlib import Path
from vlmbench.domains.parquet import read_parquet
frames, images = read_parquet([Path(name) for name in sys.argv[1:]], ["question"], Path("."))
keys = [key for frame in frames for key in frame["image"]]
print(hashlib.sha256(b"".join(images.load(key).tobytes() for key in keys)).hexdigest())
"""


def test_several_processes_look_through_the_same_files(miniatures: Path, cache: Path) -> None:
    root = miniatures / "pathvqa"
    paths = sorted((root / "data").glob("*.parquet"))
    command = [sys.executable, "-c", _LOOK_THROUGH, *map(str, paths)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = {process.communicate()[0] for process in processes}
    assert len(told) == 1
    assert len(told.pop().strip()) == 64
    distinct = {key for frame in read(paths, root)[0] for key in frame["image"]}
    assert (cache / "parquet" / "images" / "index.bin").stat().st_size == 64 * len(distinct)


# --- PMC-VQA ----------------------------------------------------------------------------------------------------


def test_both_versions_of_pmc_vqa_say_the_same(tmp_path: Path) -> None:
    found = {}
    for version in (1, 2):
        root = tmp_path / str(version)
        root.mkdir()
        make_pmc_vqa(root, seed=3, version=version)
        domain = build("pmc_vqa", root, f"settings.version={version}", "split=study")
        found[version] = [(row.question, row.options, row.answer, row.group) for row in domain.examples]
        assert all(row.listed and row.answer in row.options for row in domain.examples)
    assert found[1] == found[2]
    assert found[1][0][1][0].startswith("A. ")
    assert found[1][0][3] == "PMC1064000"


def test_the_articles_of_pmc_vqa_stay_together(miniatures: Path) -> None:
    domain = build("pmc_vqa", miniatures / "pmc_vqa", "split=ours")
    assert len({row.image for row in domain.examples}) > len({row.group for row in domain.examples})
    assert shared(domain)["groups"] == 0


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("Answer_label", "E", "row 4: the answer 'none of them' is not one of its options ['A. "),
        ("Choice B", "", "row 4: multiple choice needs 2 to 26 options, none of them empty"),
        ("Choice B", " B: ", "row 4: multiple choice needs 2 to 26 options, none of them empty"),
        ("Question", "", "row 4: the column 'Question' is empty"),
        ("Figure_path", "PMC1_F1.jpg", "images/PMC1_F1.jpg: no such file"),
    ],
)
def test_faults_of_pmc_vqa(copied: Callable[[str], Path], column: str, value: str, expected: str) -> None:
    root = copied("pmc_vqa")
    frame = pd.read_csv(root / "train.csv", dtype=str)
    frame.loc[2, ["Answer", column]] = ["none of them", value]
    frame.to_csv(root / "train.csv", index=False)
    message = fails("pmc_vqa", root)
    assert expected in message
    if column != "Figure_path":
        assert "domain.settings.bad_rows=leave_out goes on without such rows and counts them" in message
        domain = build("pmc_vqa", root, "settings.bad_rows=leave_out", "split=study")
        assert len(domain.examples) == len(build("pmc_vqa", copied_back(root, frame), "split=study").examples) - 1
        assert [entry["examples"] for entry in domain.left_out] == [1]


def copied_back(root: Path, frame: pd.DataFrame) -> Path:
    """Mend row 4 by a copy of its neighbour under another question."""
    frame.loc[2] = frame.loc[1]
    frame.to_csv(root / "train.csv", index=False)
    return root


def test_columns_and_settings_that_pmc_vqa_does_not_have(copied: Callable[[str], Path]) -> None:
    root = copied("pmc_vqa")
    assert "domain.settings.version='3' is not admissible; choose one of 1, 2" in fails(
        "pmc_vqa", root, "settings.version=3"
    )
    assert "train_2.csv is not there" in fails("pmc_vqa", root, "settings.version=2")
    assert "domain.settings has colour" in fails("pmc_vqa", root, "settings.colour=red")
    frame = pd.read_csv(root / "train.csv").drop(columns=["Answer", "Answer_label"])
    frame.to_csv(root / "train.csv", index=False)
    assert "neither a column 'Answer_label' nor 'Answer'" in fails("pmc_vqa", root)
    frame.drop(columns="Choice C").to_csv(root / "train.csv", index=False)
    assert "no column 'Choice C'" in fails("pmc_vqa", root)


# --- OmniMedVQA -------------------------------------------------------------------------------------------------


def test_omnimedvqa_has_two_to_four_options_and_knows_the_answer_by_its_text(miniatures: Path) -> None:
    domain = build("omnimedvqa", miniatures / "omnimedvqa")
    assert {len(row.options) for row in domain.examples} == {2, 4}
    assert {row.answer for row in domain.examples if len(row.options) == 2} == {"A. Yes", "B. No, it's normal."}
    row = next(row for row in domain.examples if row.id == "Chest CT Scan/Chest CT Scan_0000")
    assert row.attributes["modality"] == "CT(Computed Tomography)"  # under another name in the table, as in the release
    assert (row.answer_type, row.listed) == ("closed", True)


def test_a_part_of_omnimedvqa_can_be_taken(miniatures: Path) -> None:
    root = miniatures / "omnimedvqa"
    kind = build("omnimedvqa", root, "settings.question_types=[Disease Diagnosis]")
    assert {row.attributes["question_type"] for row in kind.examples} == {"Disease Diagnosis"}
    some = build("omnimedvqa", root, "settings.datasets=[ACRIMA]")
    assert {row.attributes["dataset"] for row in some.examples} == {"ACRIMA"}
    assert "question_types names Guessing; there are Modality Recognition" in fails(
        "omnimedvqa", root, "settings.question_types=[Guessing]"
    )
    assert "no question is of the types Lesion Grading" in fails(
        "omnimedvqa", root, "settings.question_types=[Lesion Grading]"
    )


def test_the_studys_tenth_of_omnimedvqa_is_a_stand_in_that_says_so(tmp_path: Path) -> None:
    from miniatures.omnimedvqa import make as make_omnimedvqa

    make_omnimedvqa(tmp_path, images=100)
    domain = build("omnimedvqa", tmp_path, "split=study", "check_images=exists")
    assert len({row.image for row in domain.examples}) == 20
    assert len({row.image for row in domain.split("test")}) == 14
    assert shared(domain)["images"] == 0
    assert "a seeded stand-in" in domain.origin
    assert domain.left_out == [
        {"image": "", "reason": "not of the tenth of the images that the study takes", "examples": 360}
    ]
    assert build("omnimedvqa", tmp_path, "split=study", "check_images=exists").fingerprint == domain.fingerprint


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"question_type": "Guessing"}, "question 2: the question_type 'Guessing' is none of Modality Recognition"),
        ({"gt_answer": "Perhaps"}, "question 2: the answer 'Perhaps' is not one of its options ['A. Yes', "),
        ({"option_B": None}, "question 2: multiple choice needs 2 to 26 options"),
        ({"question_id": "ACRIMA_0000"}, "1 ids occur more than once, such as ACRIMA/ACRIMA_0000"),
        ({"image_path": "Images/ACRIMA/none.png"}, "Images/ACRIMA/none.png: no such file"),
        ({"question": None}, "question 2: the field 'question' must be a text"),
    ],
)
def test_faults_of_omnimedvqa(copied: Callable[[str], Path], change: dict[str, Any], expected: str) -> None:
    root = copied("omnimedvqa")
    path = root / "OmniMedVQA" / "QA_information" / "Open-access" / "ACRIMA.json"
    edit(path, lambda rows: rows[1].update(change))
    assert expected in fails("omnimedvqa", root)


# --- real images ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_rad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], Path]:
    """The real VQA-RAD in the hub's schema, the lines that it was written from, and their folder."""
    source = real_set("vqa_rad")
    lines = [json.loads(text) for text in (source / "qa.jsonl").read_text(encoding="utf-8").splitlines()]
    root = tmp_path_factory.mktemp("rad")
    for split in ("train", "test"):
        rows = [
            {"image": (source / line["image"]).read_bytes(), "question": line["question"], "answer": line["answer"]}
            for line in lines
            if line["split"] == split
        ]
        write_part(root / "data" / f"{split}-00000-of-00001-eb8844602202be60.parquet", rows, 100)
    return root, lines, source


@pytest.mark.real
def test_the_audit_finds_the_real_images_that_the_official_split_shares(
    real_rad: tuple[Path, list[dict[str, Any]], Path],
) -> None:
    root, lines, source = real_rad
    content = {line["image"]: hashlib.sha256((source / line["image"]).read_bytes()).hexdigest() for line in lines}
    used = {split: {content[line["image"]] for line in lines if line["split"] == split} for split in ("train", "test")}
    both = used["train"] & used["test"]
    assert len(both) > 150
    layout = read_layout("hub_vqa", root, {})
    there = {split: set(layout.frame.loc[layout.frame["split"] == split, "image"]) for split in ("train", "test")}
    assert there["train"] & there["test"] == both
    domain = build("vqa_rad", root, "split=study", "check_images=exists")
    assert len(domain.examples) == len(lines)
    assert shared(domain)["images"] + shared(domain, "val-test")["images"] == len(both)
    # Validation is carved out of train by image, so that each shared image lies in one of the two.
    assert shared(domain, "train-val")["images"] == 0
    assert domain.images.load(domain.examples[0].image).mode == "RGB"


@pytest.mark.real
def test_our_split_of_the_real_set_shares_none(real_rad: tuple[Path, list[dict[str, Any]], Path]) -> None:
    root, lines, source = real_rad
    ours = build("vqa_rad", root, "split=ours", "check_images=exists")
    assert len(ours.examples) == len(lines)
    disjoint = build_domain(
        named_domain("vqa_jsonl", overrides=[f"root={source}", "split_field=split_image_disjoint"]), "vqa"
    )
    for domain in (ours, disjoint):
        assert [shared(domain, pair)["images"] for pair in ("train-val", "train-test", "val-test")] == [0, 0, 0]
        assert all(count["examples"] for count in domain.counts().values())
