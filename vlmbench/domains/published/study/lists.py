"""A split that two lists of the user decide: the study's own files, where somebody has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from vlmbench.domains.base import DomainError
from vlmbench.domains.published.study.split import StudySplit
from vlmbench.domains.tables import check_columns, read_table


def listed(
    root: Path,
    train: str,
    test: str,
    columns: Sequence[str],
    named: Callable[[pd.DataFrame], pd.Series],
    keys: pd.Series,
) -> StudySplit | None:
    """Return the split of two lists, or None where there is neither.

    Args:
        root: Folder of the layout.
        train: The list of train, relative to it.
        test: The list of test.
        columns: Columns that the lists must have.
        named: From a list to the key of each of its rows.
        keys: Per row of the layout, what the lists call it; unique.

    Raises:
        DomainError: One list without the other; or a list names an image that there is not, or one that it or the
            other list names as well.
    """
    paths = {"train": root / train, "test": root / test}
    there = [path for path in paths.values() if path.is_file()]
    if not there:
        return None
    for path in paths.values():
        if path not in there:
            raise DomainError(f"{path} is not there, but {there[0]} is; put the other list beside it, or take it away")
    where = pd.Series("", index=keys.to_numpy(), dtype=object)
    seen: dict[str, str] = {}
    for split, path in paths.items():
        frame = read_table(path)
        check_columns(path, frame, {"the study's list": None, **{f"column {name}": name for name in columns}})
        for row, key in named(frame).items():
            if key in seen:
                raise DomainError(f"{path}: row {row}: {key!r} is in {seen[key]} already; an image is listed once")
            if key not in where.index:
                raise DomainError(
                    f"{path}: row {row}: the table has no image {key!r}, or the label rule leaves it out; lists and "
                    "images must be of the same release"
                )
            seen[key] = f"{path} row {row}"
        where[named(frame).to_numpy()] = split
    return StudySplit(
        pd.Series(where.to_numpy(), index=keys.index, dtype=object),
        f"in neither {train} nor {test}",
        f"the lists {train} and {test}",
    )
