"""Splits: groups stay whole, labels are spread alike, and given splits are checked before they are completed."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Hashable, Sequence

import pytest

from vlmbench.domains.base import SPLITS, DomainError
from vlmbench.domains.splits import check_coverage, complete_splits, make_splits

FRACTIONS = (0.6, 0.15, 0.25)


def world(patients: int = 300, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return patients with 1 to 6 images each, and one label a patient, of graded rarity."""
    rng = random.Random(seed)
    groups, labels = [], []
    for i in range(patients):
        label = rng.choices(["common", "middling", "rare"], [80, 17, 3])[0]
        for _ in range(rng.randint(1, 6)):
            groups.append(f"p{i}")
            labels.append(label)
    return groups, labels


def shares(splits: Sequence[str], strata: Sequence[Hashable], label: Hashable) -> list[float]:
    counts = Counter(
        split
        for split, stratum in zip(splits, strata, strict=True)
        if label in (stratum if isinstance(stratum, tuple) else (stratum,))
    )
    return [counts[split] / counts.total() for split in SPLITS]


def groups_in_two(splits: Sequence[str], groups: Sequence[str]) -> set[str]:
    pairs = set(zip(groups, splits, strict=True))
    return {group for group, count in Counter(group for group, _ in pairs).items() if count > 1}


@pytest.mark.parametrize("seed", range(5))
def test_made_splits_are_grouped_and_stratified(seed: int) -> None:
    groups, labels = world(seed=seed)
    splits = make_splits(groups, labels, seed=seed)
    assert not groups_in_two(splits, groups)
    for label, tolerance in (("common", 0.01), ("middling", 0.02), ("rare", 0.12)):
        assert shares(splits, labels, label) == pytest.approx(FRACTIONS, abs=tolerance), label


def test_mixed_groups_and_several_labels_a_row_are_spread_alike() -> None:
    rng = random.Random(3)
    groups = [f"p{rng.randrange(300)}" for _ in range(1000)]
    odds = {"a": 0.5, "b": 0.3, "c": 0.1, "d": 0.02}
    strata = [tuple(label for label, p in odds.items() if rng.random() < p) for _ in groups]
    splits = make_splits(groups, strata)
    assert not groups_in_two(splits, groups)
    for label, tolerance in (("a", 0.02), ("b", 0.03), ("c", 0.03), ("d", 0.1)):
        assert shares(splits, strata, label) == pytest.approx(FRACTIONS, abs=tolerance), label
    unlabelled = [stratum or ("none",) for stratum in strata]
    assert shares(splits, unlabelled, "none") == pytest.approx(FRACTIONS, abs=0.03)


def test_row_order_does_not_matter_and_the_seed_does() -> None:
    groups, labels = world()
    splits = make_splits(groups, labels, seed=1)
    assert splits == make_splits(groups, labels, seed=1)
    assert splits != make_splits(groups, labels, seed=2)
    order = list(range(len(groups)))
    random.Random(9).shuffle(order)
    shuffled = make_splits([groups[i] for i in order], [labels[i] for i in order], seed=1)
    assert shuffled == [splits[i] for i in order]


@pytest.mark.parametrize(
    ("tiny", "expected"),
    [(1, {"train"}), (2, {"train", "test"}), (3, set(SPLITS)), (4, set(SPLITS)), (5, set(SPLITS))],
)
def test_tiny_class_goes_to_train_then_test_then_val(tiny: int, expected: set[str]) -> None:
    groups = [f"p{i}" for i in range(100 + tiny)]
    labels = ["big"] * 100 + ["tiny"] * tiny
    splits = make_splits(groups, labels)
    assert {split for split, label in zip(splits, labels, strict=True) if label == "tiny"} == expected


def test_one_huge_group_goes_to_train() -> None:
    groups = ["huge"] * 90 + [f"p{i}" for i in range(60)]
    splits = make_splits(groups, ["x"] * 150)
    assert splits[0] == "train"
    assert {"val", "test"} <= set(splits)


def test_a_share_of_zero_gives_an_empty_split() -> None:
    splits = make_splits([f"p{i}" for i in range(40)], ["x"] * 40, fractions=(0.5, 0.0, 0.5))
    assert Counter(splits) == {"train": 20, "test": 20}


@pytest.mark.parametrize("fractions", [(0.6, 0.4), (0.6, 0.3, 0.3), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_inadmissible_fractions(fractions: tuple[float, ...]) -> None:
    with pytest.raises(DomainError, match="not admissible"):
        make_splits(["a", "b", "c"], ["x"] * 3, fractions=fractions)


def test_too_few_groups_and_unequal_lengths() -> None:
    with pytest.raises(DomainError, match="2 groups cannot fill the splits train, test, val"):
        make_splits(["a", "b"], ["x", "y"])
    with pytest.raises(DomainError, match="2 groups and 1 strata"):
        make_splits(["a", "b"], ["x"])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("abc", r"test, val would have no rows.*: a \(1\), b \(1\), c"),
        ("aabb", r"val would have no rows.*: a \(2\), b"),
    ],
)
def test_labels_with_too_few_groups_are_named(labels: str, expected: str) -> None:
    with pytest.raises(DomainError, match=rf"^{len(labels)} groups are too few: {expected}"):
        make_splits([f"p{i}" for i in range(len(labels))], list(labels))


def test_val_is_carved_from_train_and_never_from_test() -> None:
    groups, labels = world()
    raw = ["Training" if int(group[1:]) % 4 else "TEST " for group in groups]
    splits = complete_splits(raw, groups, labels, seed=4)
    assert all((split == "test") == (given == "TEST ") for split, given in zip(splits, raw, strict=True))
    assert not groups_in_two(splits, groups)
    counts = Counter(splits)
    assert counts["val"] / (counts["train"] + counts["val"]) == pytest.approx(0.2, abs=0.01)
    trained = [i for i, split in enumerate(splits) if split != "test"]
    for label in ("common", "middling"):
        train, val, _ = shares([splits[i] for i in trained], [labels[i] for i in trained], label)
        assert val / (train + val) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "dev"])
def test_aliases(name: str) -> None:
    splits = complete_splits(["train", name, "testing"], ["a", "b", "c"], ["x"] * 3)
    assert splits == ["train", "val", "test"]


def test_unknown_names_list_the_admissible() -> None:
    with pytest.raises(DomainError, match=r"'fold1' \(2 rows\).*admissible are train, training, val"):
        complete_splits(["train", "fold1", "fold1"], ["a", "b", "c"], ["x"] * 3)


def test_no_test_rows() -> None:
    with pytest.raises(DomainError, match="no rows in the split 'test', only in train, val"):
        complete_splits(["train", "val"], ["a", "b"], ["x"] * 2)


def test_leaking_groups_raise_or_are_kept_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    groups = ["a", "a", "b", "c", "d", "b"]
    raw = ["train", "test", "val", "train", "test", "test"]
    with pytest.raises(DomainError, match=r"2 of 4 groups lie in several splits: a in train, test; b in val, test"):
        complete_splits(raw, groups, ["x"] * 6)
    with caplog.at_level(logging.WARNING):
        assert complete_splits(raw, groups, ["x"] * 6, on_leak="report") == raw
    assert "2 of 4 groups" in caplog.text


def test_coverage(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DomainError, match=r"the split 'train' has no row of \['y'\]"):
        check_coverage(["train", "val", "test"], ["x", "x", "y"])
    with pytest.raises(DomainError, match=r"the split 'train' has no row of \['z'\]"):
        check_coverage(["train", "val", "test"], ["x"] * 3, ["x", "z"])
    with pytest.raises(DomainError, match=r"the split 'val' has no rows"):
        check_coverage(["train", "test"], ["x", "x"])
    with caplog.at_level(logging.WARNING):
        check_coverage(["train", "train", "val", "test"], [("x",), ("y",), ("x",), ("x", "y")])
    assert "The split 'val' has no row of ['y']" in caplog.text
