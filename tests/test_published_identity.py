"""Names and identities of public datasets: the same wherever and however the files lie, others where results differ."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
from pathlib import Path

import pytest
from published import config, make_all

from vlmbench.cell.domain import build_domain
from vlmbench.domains.base import SPLITS, DomainError
from vlmbench.records.identity import identity

NAMES = ("camelyon17", "chexpert", "drishti", "fairvlmed", "gf3300", "ham10000", "kermany", "papila", "pathmnist")


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_all(NAMES, tmp_path_factory)


def named(name: str, root: Path | str, *overrides: str) -> str:
    found = config(name, root, *overrides)
    data = build_domain(found, "diagnosis").fingerprint
    return identity({"domain": dataclasses.asdict(found)}, data=data, weights="")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["study", "ours"])
def test_another_machine_gives_the_same_identity(name, split, originals, tmp_path, monkeypatch):
    files = [path for path in (originals / name).rglob("*") if path.is_file()]
    random.Random(1).shuffle(files)
    root = tmp_path / "my data [1]"
    for path in files:
        place = root / path.relative_to(originals / name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        os.utime(place, (1, 1))
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)

    expected = named(name, originals / name, f"split={split}")
    assert {named(name, place, f"split={split}") for place in (root, "my data [1]", "./link/")} == {expected}


@pytest.mark.parametrize("name", ["chexpert", "gf3300", "ham10000"])
def test_an_image_of_another_size_is_another_identity(name, originals, tmp_path):
    root = Path(shutil.copytree(originals / name, tmp_path / name))
    before = named(name, root)
    image = min(path for path in root.rglob("*") if path.suffix in (".jpg", ".npz"))
    image.write_bytes(image.read_bytes() + b"\0")

    assert named(name, root) != before


def test_what_is_said_of_a_dataset_and_the_usual_rule_by_its_name_decide_nothing(originals):
    root = originals / "papila"
    same = ("citation=a", "notes=b", "layout=[c]", "downloads=[]", "licence=d", "exposure=ood", "target=glaucoma")
    assert {named("papila", root, override) for override in same} == {named("papila", root)}
    assert named("papila", root, "split=study", "target=study") == named("papila", root, "split=study")


def test_prompts_rules_splits_and_subsets_are_other_identities(originals):
    root = originals / "papila"
    others = (
        "templates=['an eye with {label}']",
        "label_prompts={healthy: [fine]}",
        "target=study",
        "target=suspects",
        "split=study",
        "split_seed=1",
        "fraction=0.5",
        "shots=2",
    )
    assert len({named("papila", root, *([other] if other else [])) for other in ("", *others)}) == len(others) + 1


def test_every_split_and_rule_of_a_dataset_has_a_name_of_its_own():
    for name in NAMES:
        rules = config(name, "data").rules
        shown = {
            config(name, "data", f"split={split}", f"target={rule}").shown_name()
            for split in ("study", "ours")
            for rule in rules
        }
        assert len(shown) == 2 * len(rules), (name, shown)
    assert config("chexpert", "data", "target=study").shown_name() == "chexpert.ours.study"
    assert config("chexpert", "data", "split=study", "shots=4").shown_name() == "chexpert.study@4shots"


@pytest.mark.parametrize("name", NAMES)
def test_validation_rows_are_carved_out_of_the_studys_train_alone(name, originals):
    """Another seed carves other rows, and test stays the published one."""
    splits = []
    for seed in (0, 1, 2):
        domain = build_domain(config(name, originals / name, "split=study", f"split_seed={seed}"), "diagnosis")
        splits.append({split: {row.id for row in domain.split(split)} for split in SPLITS})
    first = splits[0]
    for other in splits[1:]:
        assert other["test"] == first["test"]
        assert other["train"] | other["val"] == first["train"] | first["val"]
    if name not in ("pathmnist", "camelyon17"):  # one publishes its own, the other has six patients in train
        assert any(other["val"] != first["val"] for other in splits[1:])


def test_a_folder_that_may_not_be_written_to_is_read(originals, tmp_path):
    root = Path(shutil.copytree(originals / "kermany", tmp_path / "kermany"))
    before = sorted(path.as_posix() for path in root.rglob("*"))
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        named("kermany", root, "check_images=decode")
        assert sorted(path.as_posix() for path in root.rglob("*")) == before
    finally:
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755)


def test_a_missing_image_among_many_is_named_or_left_out(originals, tmp_path):
    root = Path(shutil.copytree(originals / "kermany", tmp_path / "kermany"))
    lost = sorted((root / "chest_xray/train/PNEUMONIA").iterdir())[7]
    lost.unlink()
    (root / "chest_xray/train/PNEUMONIA" / lost.name).symlink_to(tmp_path / "nowhere")

    with pytest.raises(DomainError, match=f"1 of 123 images cannot be read: .*{lost.name}: no such file"):
        build_domain(config("kermany", root), "diagnosis")
    domain = build_domain(config("kermany", root, "on_bad_image=leave_out"), "diagnosis")
    assert [(entry["image"].rpartition("/")[2], entry["examples"]) for entry in domain.left_out] == [(lost.name, 1)]
