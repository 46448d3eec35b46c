"""The study's splits of its diagnosis sets (its repository's `dataset/diagnosis.py` and FairMedFM's pre-processing)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from vlmbench.domains.base import DomainError
from vlmbench.domains.published.camelyon17 import patch
from vlmbench.domains.published.study.lists import listed
from vlmbench.domains.published.study.split import StudySplit
from vlmbench.domains.published.study.standin import draw, stratified, wanted
from vlmbench.domains.tables import MISSING

_SEED = 42
_NOT_PUBLIC = "a seeded stand-in (42): the study's lists are not public"


def ham10000(frame: pd.DataFrame, labels: pd.Series, root: Path) -> StudySplit:
    """8,137 train and 1,811 test images, of these 263 akiec or mel, of the 9,948 whose age and sex are known.

    The lists `split/train.csv` and `split/test.csv` (column `image_id`) decide where they are there. A stand-in keeps
    the images of a lesion together; whether the study's lists do is not known.
    """
    given = listed(root, "split/train.csv", "split/test.csv", ["image_id"], lambda rows: rows["image_id"], frame["id"])
    if given is not None:
        return given
    sex = frame["sex"].str.lower()
    known = ~frame["age"].str.lower().isin(MISSING) & ~sex.isin({*MISSING, "unknown"})
    kept = frame[known]
    classes = kept["dx"].isin(["akiec", "mel"]).map({True: "1", False: "0"})
    made = _stand_in(kept, classes, {"1": 263, "0": 1548}, 9948, "lesion")
    names = made.names.reindex(frame.index, fill_value="")
    return StudySplit(names, "age or sex is not known, which the study leaves out", made.origin)


def papila(frame: pd.DataFrame, labels: pd.Series, root: Path) -> StudySplit:
    """364 train and 56 test eyes, of these 9 with glaucoma, of the 420 that are no suspects.

    The lists `split/new_train.csv` and `split/new_test.csv` (column `Path`) decide where they are there. A stand-in
    keeps the eyes of a patient together; whether the study's lists do is not known.
    """
    kept = frame[frame["Diagnosis"] != "2"]
    given = listed(
        root,
        "split/new_train.csv",
        "split/new_test.csv",
        ["Path"],
        lambda rows: rows["Path"].str.replace("\\", "/").str.rpartition("/")[2].str.rpartition(".")[0],
        kept["id"],
    )
    made = given or _stand_in(kept, kept["Diagnosis"], {"1": 9, "0": 47}, 420, "patient")
    reason = given.left_out if given is not None else "Diagnosis is '2', a suspect, which the study leaves out"
    return StudySplit(made.names.reindex(frame.index, fill_value=""), reason, made.origin)


def _stand_in(frame: pd.DataFrame, classes: pd.Series, test: dict[str, int], total: int, unit: str) -> StudySplit:
    counts, exact = wanted(classes, test, total)
    drawn = draw(frame["id"], frame["group"], classes, counts, _SEED)
    size = (
        f"of its sizes, {total - sum(test.values()):,} and {sum(test.values()):,} with {test['1']:,} positive in test"
        if exact
        else f"of its share of each class, {sum(test.values()) / total:.1%} in test, as {len(frame):,} rows are not "
        f"its {total:,}"
    )
    shared = set(frame["group"][drawn]) & set(frame["group"][~drawn])
    together = f"no {unit} in both" if not shared else f"{len(shared):,} of the {unit}s in both"
    return StudySplit(drawn.map({True: "test", False: "train"}), origin=f"{_NOT_PUBLIC}; {size}; {together}")


def camelyon17(frame: pd.DataFrame, labels: pd.Series, root: Path) -> StudySplit:
    """3,680 and 920 patches, 460 of these with tumour, drawn with the seed 42 from WILDS's train and test patches.

    The lists `sample3680_train_metadata.csv` and `sample920_test_metadata.csv` beside `metadata.csv` decide where
    they are there. A table with fewer patches, a miniature, gives as many as it has in the same proportion, 4 to 1.
    """
    lists = ("sample3680_train_metadata.csv", "sample920_test_metadata.csv")
    beside = next((path.parent for place in ("", "*/") for name in lists for path in root.glob(place + name)), root)
    columns = ["patient", "node", "x_coord", "y_coord"]
    given = listed(beside, *lists, columns, patch, frame["id"])
    if given is not None:
        return given
    train, test = (frame[frame["wilds_split"] == name] for name in ("train", "test"))
    tests = min(920, len(test), len(train) // 4)
    if tests == 0:
        raise DomainError(
            f"the table has {len(train):,} patches of WILDS's train hospitals and {len(test):,} of its test hospital "
            "(column 'center'), of which the study takes 4 to 1; bring the archive anew"
        )
    drawn = {"train": (train, 4 * tests), "test": (test, tests)}
    names = pd.Series("", index=frame.index, dtype=object)
    for split, (rows, count) in drawn.items():
        names[rows.index[stratified(rows["id"], rows["tumor"], count, _SEED)]] = split
    size = "of its sizes, 3,680 and 920" if tests == 920 else f"of its proportion, {4 * tests:,} and {tests:,}"
    return StudySplit(
        names,
        "not in the sample that the study takes",
        f"{_NOT_PUBLIC}; {size}, stratified, from the official train and test of WILDS",
    )


def per_sex(frame: pd.DataFrame, labels: pd.Series, root: Path) -> StudySplit:
    """FairMedFM's split of Harvard-GF3300 and FairVLMed: of each sex the same number of test images.

    Of each sex the sorted file names go to scikit-learn's `train_test_split` with `random_state=0`; the number of test
    images is the smaller of a fifth of the women and a fifth of the men, rounded down. 3,300 images with 1,488 men
    give 594 in test, 10,000 with 4,369 men 1,746. Rows of another sex are left out, as there.

    Raises:
        DomainError: No column of the sex, or too few of one.
    """
    from sklearn.model_selection import train_test_split

    column = next((name for name in ("gender", "sex") if name in frame.columns), None)
    if column is None:
        raise DomainError(f"the study's split takes the column 'gender' or 'sex'; there are {', '.join(frame.columns)}")
    files = frame["filename"] if "filename" in frame.columns else frame["id"]
    given = listed(root, "split/train.csv", "split/test.csv", ["filename"], lambda rows: rows["filename"], files)
    if given is not None:
        return given
    sexes = frame[column].str.lower()
    sorted_files = {sex: np.unique(files[sexes == sex].to_numpy(dtype=str)) for sex in ("male", "female")}
    count = min(int(0.2 * len(some)) for some in sorted_files.values())
    if count == 0:
        told = ", ".join(f"{len(some)} {sex}" for sex, some in sorted_files.items())
        raise DomainError(f"the study's split takes a fifth of each sex for test: column {column!r} has {told}")
    names = pd.Series("", index=frame.index, dtype=object)
    for some in sorted_files.values():
        for split, part in zip(("train", "test"), train_test_split(some, test_size=count, random_state=0), strict=True):
            names[files.isin(part)] = split
    return StudySplit(
        names,
        f"{column} is neither male nor female",
        "FairMedFM's split, rebuilt: by sex, the same number of test images of each, scikit-learn's random_state=0",
    )
