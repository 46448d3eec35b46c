"""Seeded stand-ins for test sets whose lists are not public: the published sizes and class counts, other images.

What is drawn depends on the ids and groups alone, not on the order of the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd


def wanted(classes: pd.Series, published: Mapping[str, int], total: int) -> tuple[dict[str, int], bool]:
    """Return how many rows of each class the test set gets, and whether that is what was published.

    A table of another size than the published one, a subset or a miniature, gets the published share of each class
    instead, at least one row and never all.

    Args:
        classes: Per row, its class in the study's rule.
        published: Rows of the published test set by class.
        total: Rows of the published table.
    """
    there = {str(name): int(count) for name, count in classes.value_counts().items()}
    if len(classes) == total and all(there.get(name, 0) > count for name, count in published.items()):
        return dict(published), True
    share = sum(published.values()) / total
    return {name: min(max(round(count * share), 1), count - 1) for name, count in there.items()}, False


def draw(ids: pd.Series, groups: pd.Series, classes: pd.Series, counts: Mapping[str, int], seed: int) -> pd.Series:
    """Return which rows are drawn: exactly `counts` of each class, whole groups as long as these fit.

    Groups are taken in a random order, each if all its rows are still wanted. What is short then, where no group is
    small enough, is filled up by single rows.

    Args:
        ids: Unique, a row.
        groups: What is kept together, a row.
        classes: The class, a row.
        counts: Rows that are wanted of each class.
        seed: Of the order.
    """
    order = np.argsort(ids.to_numpy(dtype=str), kind="stable")
    rows: dict[str, list[int]] = {}
    for i, group in zip(order, groups.to_numpy()[order], strict=True):
        rows.setdefault(str(group), []).append(int(i))
    names = list(rows)  # in the order of their first ids
    names = [names[i] for i in np.random.RandomState(seed).permutation(len(names))]
    kinds = classes.to_numpy()
    left = Counter(dict(counts))
    chosen = np.zeros(len(ids), dtype=bool)
    for name in names:
        held = Counter(kinds[rows[name]])
        if all(left[kind] >= count for kind, count in held.items()):
            chosen[rows[name]] = True
            left -= held
    for name in names:
        for i in rows[name]:
            if not chosen[i] and left[kinds[i]] > 0:
                chosen[i] = True
                left[kinds[i]] -= 1
    return pd.Series(chosen, index=ids.index)


def stratified(ids: pd.Series, classes: pd.Series, count: int, seed: int) -> pd.Series:
    """Return which rows a random sample of `count` takes that has the classes in the table's proportions.

    Remainders go to the classes with the largest, the first by name among equal ones.

    Args:
        ids: Unique, a row.
        classes: The class, a row.
        count: Rows that are wanted, at most as many as there are.
        seed: Of the draw.
    """
    sizes = classes.value_counts().sort_index()
    exact = sizes * count / len(classes)
    counts = exact.astype(int)
    rest = (exact - counts).sort_values(ascending=False, kind="stable")
    counts[rest.index[: count - int(counts.sum())]] += 1
    random = np.random.RandomState(seed)
    chosen = pd.Series(False, index=ids.index)
    for name, number in counts.items():
        of_class = ids[classes == name].sort_values()
        chosen[of_class.index[random.permutation(len(of_class))[:number]]] = True
    return chosen
