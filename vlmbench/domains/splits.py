"""Splits by group and stratified by label: made, completed and checked."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Literal

from vlmbench.domains.base import SPLITS, DomainError, Split

log = logging.getLogger(__name__)

DEFAULT_FRACTIONS = (0.6, 0.15, 0.25)
#: The other names that published tables use.
ALIASES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
OnLeak = Literal["raise", "report"]


def make_splits(
    groups: Sequence[str],
    strata: Sequence[Hashable],
    *,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> list[Split]:
    """Assign whole groups to train, val and test such that the labels are spread alike.

    Iterative stratification (Sechidis et al. 2011, "On the stratification of multi-label data") over groups: the
    rarest label first, its largest groups first, each to the split that still wants its labels most. A label with
    three groups or more gets into every split, with two into train and test, with one into train, unless rarer labels
    in the same groups have decided already. The result depends on the groups and their labels alone, not on the order
    of the rows.

    scikit-learn's `StratifiedGroupKFold` was not taken: it makes folds of equal size, so that 0.6/0.15/0.25 needs 20
    of them, and a class with fewer than 20 groups falls into a part of the folds, which can leave a split without it.

    Args:
        groups: Per row, the unit that must stay together.
        strata: Per row, its label; a tuple stands for several labels, the empty one for none.
        fractions: Of rows, for train, val and test; their sum is 1, and train's is above 0.
        seed: Decides among groups that are alike.

    Raises:
        DomainError: Lengths differ, no rows, inadmissible fractions, or too few groups to fill the splits.
    """
    shares = _check_fractions(fractions)
    return _assign(groups, strata, shares, seed)


def complete_splits(
    raw: Sequence[str],
    groups: Sequence[str],
    strata: Sequence[Hashable],
    *,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    seed: int = 0,
    on_leak: OnLeak = "raise",
) -> list[Split]:
    """Check given splits, and carve `val` out of `train`, never out of `test`, where a table has none.

    A table of `test` rows alone is an external test set: there is nothing to carve, and nothing can be trained on it.

    Args:
        raw: Per row, the split's name; the names in `ALIASES` are taken, in any case.
        groups: Per row, the unit that must stay together.
        strata: Per row, its label, as in `make_splits`.
        fractions: For train, val and test; a carved `val` gets val / (train + val) of the train rows.
        seed: For carving.
        on_leak: What to do with groups that lie in several of the given splits: `raise`, or `report` in the log and
            leave them to the audit.

    Raises:
        DomainError: An unknown name, no train or test rows, or a group in several splits.
    """
    unknown = Counter(name for name in raw if name.strip().lower() not in ALIASES)
    if unknown:
        seen = ", ".join(f"{name!r} ({count} rows)" for name, count in unknown.most_common(5))
        raise DomainError(f"unknown split names: {seen}; admissible are {', '.join(ALIASES)}")
    splits: list[Split] = [ALIASES[name.strip().lower()] for name in raw]
    if set(splits) == {"test"}:
        return splits
    for needed in ("train", "test"):
        if needed not in splits:
            raise DomainError(
                f"no rows in the split {needed!r}, only in {', '.join(sorted(set(splits))) or 'none'}; "
                "set the name of the split column or field to null to have all splits made (of a public dataset: "
                "ours_split=grouped)"
            )
    _check_leaks(splits, groups, on_leak)
    if "val" not in splits:
        given = _check_fractions(fractions)
        train, val = given["train"], given["val"]
        rows = [i for i, split in enumerate(splits) if split == "train"]
        shares: dict[Split, float] = {"train": train / (train + val), "val": val / (train + val)}
        carved = _assign([groups[i] for i in rows], [strata[i] for i in rows], shares, seed)
        for i, split in zip(rows, carved, strict=True):
            splits[i] = split
        log.info("No val split is given: %d of %d train rows taken for it.", carved.count("val"), len(rows))
    return splits


def check_coverage(
    splits: Sequence[Split], strata: Sequence[Hashable], labels: Sequence[Hashable] | None = None
) -> None:
    """Check that no split is empty and that train has every label; warn of labels that val or test lacks.

    Of an external test set, `test` rows alone, only that split is looked at.

    Args:
        splits: Per row, its split.
        strata: Per row, its label, as in `make_splits`.
        labels: The labels to look for; those of `strata` where None.

    Raises:
        DomainError: An empty split, or a label without a row in train.
    """
    seen: dict[Split, set[Hashable]] = {split: set() for split in SPLITS}
    for split, stratum in zip(splits, strata, strict=True):
        seen[split].update(_labels_of(stratum))
    wanted = set(labels) if labels is not None else set().union(*seen.values())
    for split in ("test",) if set(splits) == {"test"} else SPLITS:
        if split not in splits:
            raise DomainError(f"the split {split!r} has no rows; rows by split: {dict(Counter(splits))}")
        missing = sorted(str(label) for label in wanted - seen[split])
        if missing and split == "train":
            raise DomainError(f"the split 'train' has no row of {missing}; the labels are {sorted(map(str, wanted))}")
        if missing:
            log.warning("The split %r has no row of %s.", split, missing)


def _check_fractions(fractions: Sequence[float]) -> dict[Split, float]:
    shares = [float(share) for share in fractions]
    if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise DomainError(f"split fractions {shares} are not admissible: train, val, test of sum 1, train above 0")
    return dict(zip(SPLITS, shares, strict=True))


def _check_leaks(splits: Sequence[Split], groups: Sequence[str], on_leak: OnLeak) -> None:
    where: dict[str, set[Split]] = defaultdict(set)
    for split, group in zip(splits, groups, strict=True):
        where[group].add(split)
    leaks = sorted(group for group, found in where.items() if len(found) > 1)
    if not leaks:
        return
    shown = "; ".join(f"{group} in {', '.join(s for s in SPLITS if s in where[group])}" for group in leaks[:5])
    more = f"; and {len(leaks) - 5:,} more" if len(leaks) > 5 else ""
    text = f"{len(leaks):,} of {len(where):,} groups lie in several splits: {shown}{more}"
    if on_leak == "raise":
        raise DomainError(
            f"{text}. Mend the splits, set the name of their column or field to null to have them made (of a public "
            "dataset: ours_split=grouped), or set on_leak=report to keep them"
        )
    log.warning("%s. Kept as asked; the audit reports it.", text)


def _labels_of(stratum: Hashable) -> tuple[Hashable, ...]:
    return stratum if isinstance(stratum, tuple) else (stratum,)


def _assign(groups: Sequence[str], strata: Sequence[Hashable], shares: dict[Split, float], seed: int) -> list[Split]:
    """Spread groups over splits in the given shares; `make_splits` says how.

    The split taken is the one that brings down most the chi-square distance to the wanted numbers of rows, the sum
    over splits and labels of (wanted - assigned)^2 / wanted. It fills all splits evenly from the first group on.
    """
    if len(groups) != len(strata):
        raise DomainError(f"{len(groups)} groups and {len(strata)} strata: one of each is needed for every row")
    found: dict[str, Counter[Hashable]] = defaultdict(Counter)
    for group, stratum in zip(groups, strata, strict=True):
        found[group].update(_labels_of(stratum) or (None,))  # rows without any label are spread evenly as well
    # Sorted, because sums of floats depend on their order and the order of the rows must not matter.
    counts = {group: dict(sorted(rows.items(), key=lambda item: str(item[0]))) for group, rows in found.items()}
    # Where there are too few groups for every split, val goes without first.
    order: list[Split] = [split for split in ("train", "test", "val") if shares.get(split, 0) > 0]
    if len(counts) < len(order):
        raise DomainError(f"{len(counts)} groups cannot fill the splits {', '.join(order)}: each needs one")

    total: Counter[Hashable] = Counter()
    for rows in counts.values():
        total.update(rows)
    wanted = {split: {label: shares[split] * n for label, n in total.items()} for split in order}
    present: dict[Split, set[Hashable]] = {split: set() for split in order}
    names = sorted(counts)
    random.Random(seed).shuffle(names)
    members: dict[Hashable, list[str]] = {label: [] for label in sorted(total, key=str)}
    for group in names:
        for label in counts[group]:
            members[label].append(group)
    assigned: dict[str, Split] = {}

    def rise(split: Split, rows: dict[Hashable, int]) -> float:
        return sum(n * (n - 2 * wanted[split][name]) / (shares[split] * total[name]) for name, n in rows.items())

    while members:
        members = {label: [g for g in all_of if g not in assigned] for label, all_of in members.items()}
        label = min(members, key=lambda name: len(members[name]))
        queue = sorted(members.pop(label), key=lambda group: -counts[group][label])
        for done, group in enumerate(queue):
            lacking = [split for split in order if label not in present[split]]
            if len(queue) - done <= len(lacking):
                chosen = lacking[0]
            else:
                chosen = min(order, key=lambda split: rise(split, counts[group]))
            assigned[group] = chosen
            present[chosen].update(counts[group])
            for other, n in counts[group].items():
                wanted[chosen][other] -= n
    empty = [split for split in order if split not in assigned.values()]
    if empty:
        holders = Counter(label for rows in counts.values() for label in rows)
        few = sorted(f"{label} ({n})" for label, n in holders.items() if n < len(order))
        raise DomainError(
            f"{len(counts)} groups are too few: {', '.join(empty)} would have no rows, because a label fills "
            f"{', then '.join(order)}. Labels with fewer than {len(order)} groups: {', '.join(few[:10])}. Merge them "
            "or leave them out, or give the splits in the table"
        )
    return [assigned[group] for group in groups]
