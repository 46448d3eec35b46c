"""The study's splits, rebuilt on tables of the published sizes; images are not needed for that."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vlmbench.domains.base import DomainError
from vlmbench.domains.published.camelyon17 import COLUMNS, patch
from vlmbench.domains.published.study import STUDY_SPLITS, StudySplit, study_split
from vlmbench.domains.published.study.standin import draw, stratified

#: FairMedFM's counts: of all images, and of those whose age is known.
HAM = {"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115}
HAM_WITHOUT_AGE = {"nv": 45, "mel": 2, "bkl": 10}
#: Patches of WILDS by hospital's role.
WILDS = {"train": 302_436, "id_val": 33_560, "val": 34_904, "test": 85_054}


def split(name: str, frame: pd.DataFrame, root: Path) -> StudySplit:
    made = study_split(name, frame, pd.Series([()] * len(frame), index=frame.index), root)
    assert list(made.names.index) == list(frame.index)
    assert set(made.names) <= {"train", "test", ""}
    return made


def ham10000() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    dx = [name for name, count in HAM.items() for _ in range(count)]
    # 7,470 lesions in order, so that the images of a lesion have one diagnosis but for those at the borders.
    lesions = np.sort(np.concatenate([np.arange(7470), rng.integers(0, 7470, len(dx) - 7470)]))
    frame = pd.DataFrame({"dx": dx, "group": [f"HAM_{i:07d}" for i in lesions], "age": "55.0", "sex": "male"})
    for name, count in HAM_WITHOUT_AGE.items():
        frame.loc[frame.index[frame["dx"] == name][:count], "age"] = ""
    frame.loc[frame.index[(frame["age"] != "") & (frame["dx"] == "nv")][:10], "sex"] = "unknown"
    return frame.assign(id=[f"ISIC_{24306 + i:07d}" for i in range(len(frame))])


def papila() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    diagnosis = rng.permutation(["0"] * 333 + ["1"] * 87 + ["2"] * 68)
    ids = [f"RET{patient:03d}{eye}" for patient in range(2, 246) for eye in ("OD", "OS")]
    return pd.DataFrame({"id": ids, "group": [name[3:6] for name in ids], "Diagnosis": diagnosis})


def camelyon17(sizes: dict[str, int]) -> pd.DataFrame:
    wilds = [name for name, count in sizes.items() for _ in range(count)]
    frame = pd.DataFrame({"wilds_split": wilds, "tumor": np.arange(len(wilds)) % 2}).astype(str)
    numbers = pd.Series(range(len(frame))).astype(str)
    frame = frame.assign(patient="004", node="4", x_coord=numbers, y_coord=numbers)
    return frame.assign(id=patch(frame), image=patch(frame), group="004")


def harvard(women: int, men: int) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    sexes = rng.permutation(["female"] * women + ["male"] * men)
    files = [f"data_{i + 1:05d}.npz" for i in range(women + men)]
    return pd.DataFrame({"id": [f"Training/{name}" for name in files], "filename": files, "gender": sexes})


def test_chexpert_has_223414_train_and_234_test_images(tmp_path):
    frame = pd.DataFrame({"split": ["train"] * 223_414 + ["test"] * 234})

    assert Counter(split("official", frame, tmp_path).names) == {"train": 223_414, "test": 234}


def test_ham10000_has_9948_images_after_filtering_and_the_published_test_set(tmp_path):
    frame = ham10000()
    assert len(frame) == 10_015

    made = split("ham10000", frame, tmp_path)

    assert Counter(made.names) == {"train": 8137, "test": 1811, "": 67}
    positive = frame["dx"].isin(["akiec", "mel"])
    assert Counter(positive[made.names == "test"]) == {True: 263, False: 1548}
    assert set(made.names[(frame["age"] == "") | (frame["sex"] == "unknown")]) == {""}
    assert "stand-in" in made.origin
    assert "8,137 and 1,811" in made.origin
    assert "age or sex" in made.left_out


def test_papila_has_420_eyes_and_the_published_test_set(tmp_path):
    frame = papila()

    for given in (frame, frame[frame["Diagnosis"] != "2"]):  # with and without a label rule that leaves out suspects
        made = split("papila", given, tmp_path)

        assert Counter(made.names[made.names != ""]) == {"train": 364, "test": 56}
        assert Counter(given["Diagnosis"][made.names == "test"]) == {"1": 9, "0": 47}
        assert not set(given["group"][made.names == "test"]) & set(given["group"][made.names == "train"])
        assert "364 and 56" in made.origin


def test_camelyon17_has_3680_train_and_920_test_patches_half_with_tumour(tmp_path):
    frame = camelyon17(WILDS)

    made = split("camelyon17", frame, tmp_path)

    assert Counter(made.names) == {"train": 3680, "test": 920, "": sum(WILDS.values()) - 4600}
    assert Counter(frame["tumor"][made.names == "test"]) == {"0": 460, "1": 460}
    assert set(frame["wilds_split"][made.names == "train"]) == {"train"}
    assert set(frame["wilds_split"][made.names == "test"]) == {"test"}
    assert "3,680 and 920" in made.origin


@pytest.mark.parametrize(
    ("women", "men", "train", "test"), [(1812, 1488, 2706, 594), (5631, 4369, 8254, 1746)], ids=["gf3300", "fairvlmed"]
)
def test_the_split_per_sex_has_the_published_sizes_and_is_that_of_fairmedfm(tmp_path, women, men, train, test):
    frame = harvard(women, men)

    made = split("per_sex", frame, tmp_path)

    assert Counter(made.names) == {"train": train, "test": test}
    for sex, count in (("female", women), ("male", men)):
        of_sex = frame["filename"][frame["gender"] == sex].sort_values().to_numpy()
        # What scikit-learn's train_test_split does with random_state=0: the first of a permutation are the test set.
        taken = of_sex[np.random.RandomState(0).permutation(count)[: test // 2]]
        assert set(taken) == set(frame["filename"][(frame["gender"] == sex) & (made.names == "test")])


def test_the_split_per_sex_leaves_out_whom_fairmedfm_leaves_out(tmp_path):
    frame = harvard(30, 20)
    frame.loc[3, "gender"] = "unknown"

    made = split("per_sex", frame, tmp_path)

    assert made.names[3] == ""
    assert "gender is neither" in made.left_out


def test_the_split_per_sex_needs_both_sexes(tmp_path):
    with pytest.raises(DomainError, match="'gender' or 'sex'"):
        split("per_sex", harvard(30, 20).drop(columns="gender"), tmp_path)
    with pytest.raises(DomainError, match="0 male, 30 female"):
        split("per_sex", harvard(30, 0), tmp_path)


MADE = {
    "ham10000": ham10000,
    "papila": papila,
    "per_sex": lambda: harvard(120, 80),
    "camelyon17": lambda: camelyon17({"train": 9000, "id_val": 1000, "val": 500, "test": 3000}),
}


@pytest.mark.parametrize("name", MADE)
def test_a_study_split_does_not_depend_on_the_order_of_the_rows(tmp_path, name):
    frame = MADE[name]()
    names = split(name, frame, tmp_path).names

    for seed in range(3):
        shuffled = frame.sample(frac=1, random_state=seed)
        assert split(name, shuffled, tmp_path).names.sort_index().equals(names.sort_index())


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("ham10000", 500, "18.2% in test"),
        ("papila", 90, "13.3% in test"),
        ("camelyon17", 3000, "in the same|proportion"),
    ],
)
def test_a_stand_in_for_a_smaller_table_scales_and_says_so(tmp_path, name, rows, said):
    frame = MADE[name]().sample(rows, random_state=0).reset_index(drop=True)

    made = split(name, frame, tmp_path)

    counts = Counter(made.names[made.names != ""])
    share = {"ham10000": 1811 / 9948, "papila": 56 / 420, "camelyon17": 1 / 5}[name]
    assert counts["test"] / counts.total() == pytest.approx(share, abs=0.02)
    assert "stand-in" in made.origin
    assert any(word in made.origin for word in said.split("|"))


def test_a_draw_is_exact_and_splits_groups_only_where_it_must():
    ids = pd.Series([f"i{i}" for i in range(12)])
    groups = pd.Series(["a"] * 4 + ["b"] * 4 + ["c"] * 4)
    classes = pd.Series(["0"] * 12)

    whole = draw(ids, groups, classes, {"0": 8}, 0)
    torn = draw(ids, groups, classes, {"0": 6}, 0)

    assert sorted(Counter(groups[whole]).values()) == [4, 4]
    assert sorted(Counter(groups[torn]).values()) == [2, 4]


def test_a_stratified_sample_keeps_the_proportions():
    classes = pd.Series(["a"] * 70 + ["b"] * 20 + ["c"] * 10)
    ids = pd.Series([f"i{i}" for i in range(100)])

    assert Counter(classes[stratified(ids, classes, 10, 0)]) == {"a": 7, "b": 2, "c": 1}
    assert stratified(ids, classes, 33, 0).sum() == 33


LISTS = {
    "ham10000": ("split/train.csv", "split/test.csv"),
    "papila": ("split/new_train.csv", "split/new_test.csv"),
    "camelyon17": ("camelyon17_v1.0/sample3680_train_metadata.csv", "camelyon17_v1.0/sample920_test_metadata.csv"),
    "per_sex": ("split/train.csv", "split/test.csv"),
}


def as_listed(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the columns that the study's own lists have."""
    if name == "ham10000":
        return frame.rename(columns={"id": "image_id"})[["image_id", "dx"]]
    if name == "papila":
        return pd.DataFrame({"Path": frame["id"] + ".jpg", "Diagnosis": frame["Diagnosis"]})
    return frame[[column for column in (*COLUMNS, "filename") if column in frame.columns]]


def put_lists(root: Path, name: str, train: pd.DataFrame, test: pd.DataFrame) -> list[Path]:
    paths = [root / file for file in LISTS[name]]
    for path, rows in zip(paths, (train, test), strict=True):
        path.parent.mkdir(exist_ok=True)
        as_listed(name, rows).to_csv(path)  # with the unnamed column of row numbers that pandas writes
    return paths


@pytest.mark.parametrize("name", LISTS)
def test_lists_that_a_user_has_decide(tmp_path, name):
    frame = MADE[name]()
    kept = frame[frame["Diagnosis"] != "2"] if name == "papila" else frame
    put_lists(tmp_path, name, kept[10:40], kept[50:60])

    made = split(name, frame, tmp_path)

    assert list(made.names.index[made.names == "train"]) == list(kept.index[10:40])
    assert list(made.names.index[made.names == "test"]) == list(kept.index[50:60])
    assert Counter(made.names)[""] == len(frame) - 40
    assert made.origin == "the lists {} and {}".format(*(file.replace("camelyon17_v1.0/", "") for file in LISTS[name]))
    assert "neither" in made.left_out


def test_lists_that_cannot_be_right_are_refused(tmp_path):
    frame = ham10000()

    train, test = put_lists(tmp_path, "ham10000", frame[:5], frame[4:9])
    with pytest.raises(DomainError, match=r"test\.csv: row 2: 'ISIC_0024310' is in .*train\.csv row 6 already"):
        split("ham10000", frame, tmp_path)

    put_lists(tmp_path, "ham10000", frame.iloc[[0, 1, 1]], frame[4:9])
    with pytest.raises(DomainError, match=r"train\.csv: row 4: 'ISIC_0024307' is in .*train\.csv row 3 already"):
        split("ham10000", frame, tmp_path)

    put_lists(tmp_path, "ham10000", frame[:4].assign(id=["a", "b", "c", "d"]), frame[4:9])
    with pytest.raises(DomainError, match=r"train\.csv: row 2: the table has no image 'a'"):
        split("ham10000", frame, tmp_path)

    pd.DataFrame({"name": ["a"]}).to_csv(train)
    with pytest.raises(DomainError, match=r"train\.csv: no column 'image_id'"):
        split("ham10000", frame, tmp_path)

    test.unlink()
    with pytest.raises(DomainError, match=r"test\.csv is not there, but .*train\.csv is"):
        split("ham10000", frame, tmp_path)


def test_a_split_that_there_is_not_is_named_with_those_there_are(tmp_path):
    with pytest.raises(DomainError, match="official"):
        study_split("folds", papila(), pd.Series(dtype=object), tmp_path)
    assert {"official", "camelyon17", "ham10000", "papila", "per_sex"} <= set(STUDY_SPLITS)
