"""Label rules: from the raw values of a layout's table to labels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from vlmbench.domains.base import DomainError

log = logging.getLogger(__name__)

#: Key of a rule's map that stands for every value which the map does not name.
ANY = "*"


#: What YAML makes of a bare yes, no, on or off.
_BOOLEANS = ("True", "False")


def check_rule(
    column: str, columns: Mapping[str, str], mapping: Mapping[str, str], leave_out: Sequence[str], labels: Sequence[str]
) -> None:
    """Check that the parts of a label rule fit together, before any table is read.

    Args:
        column: Raw column of a rule of one label.
        columns: Label to raw column of a rule of several.
        mapping: As `one_label` and `several_labels` take it.
        leave_out: As `one_label` takes it.
        labels: The labels that there are.

    Raises:
        DomainError: They do not.
    """
    listed = ", ".join(map(repr, labels)) or "none"
    if bool(column) == bool(columns):
        raise DomainError(
            "the label rule needs either `column`, for one label an image, or `columns`, for several; it has "
            + ("both" if column else "neither")
        )
    if len(set(labels)) < len(labels) or len(labels) < (1 if columns else 2):
        raise DomainError(f"the label rule has the labels {listed}; it needs two or more, each once")
    if columns and set(columns) != set(labels):
        odd = ", ".join(map(repr, sorted(set(columns) ^ set(labels))))
        raise DomainError(f"the label rule has {odd} either in `labels` or in `columns` alone; both name every label")
    if columns and leave_out:
        raise DomainError("the label rule leaves out rows by a value of `column`; with `columns` it cannot")
    admissible = ("0", "1") if columns else labels
    for value, label in mapping.items():
        if label not in admissible:
            raise DomainError(
                f"the label rule maps {value!r} to {label!r}, which is none of "
                f"{', '.join(map(repr, admissible))}{_yaml_hint([value, label])}"
            )


def _yaml_hint(texts: Iterable[str]) -> str:
    return "; YAML reads a bare yes or no as true or false, so put it in quotes" * (
        not set(_BOOLEANS).isdisjoint(texts)
    )


def one_label(
    frame: pd.DataFrame, column: str, mapping: Mapping[str, str], leave_out: Sequence[str], labels: Sequence[str]
) -> tuple[pd.Series, dict[str, int]]:
    """Return per kept row the tuple of its one label, and how many rows were left out by raw value.

    Args:
        frame: The layout's table.
        column: Raw column.
        mapping: Raw value to label; `ANY` for the rest. Empty takes the raw values themselves.
        leave_out: Raw values whose rows are left out.
        labels: The labels that there are.

    Raises:
        DomainError: No such column, or a value that the rule does not know.
    """
    raw = _column(frame, column)
    counts = Counter(raw)
    dropped = {value: counts[value] for value in leave_out if value in counts}
    for value in set(leave_out) - set(dropped):
        log.warning("No row of column %r has %r, which the label rule leaves out.", column, value)
    mapped = {}
    for value in counts:
        if value not in dropped:
            label = (mapping.get(value, mapping.get(ANY))) if mapping else value
            if label not in labels:
                raise DomainError(
                    f"column {column!r} has the value {value!r} in {counts[value]:,} rows, which the label rule does "
                    f"not know; it knows {', '.join(map(repr, [*(mapping or labels), *leave_out]))}"
                    f"{_yaml_hint([*(mapping or labels), *leave_out])}"
                )
            mapped[value] = (label,)
    if not mapped:
        raise DomainError(f"the label rule leaves out every row, by column {column!r}: {dropped}")
    return raw[~raw.isin(list(dropped))].map(mapped), dropped


def several_labels(frame: pd.DataFrame, columns: Mapping[str, str], mapping: Mapping[str, str]) -> pd.Series:
    """Return per row the tuple of the labels whose column holds, after mapping, a "1".

    Args:
        frame: The layout's table.
        columns: Label to raw column.
        mapping: Raw value to "0" or "1"; `ANY` for the rest. Empty takes the raw values themselves.

    Raises:
        DomainError: No such column, or a value that is neither after mapping.
    """
    flags = {}
    for label, column in columns.items():
        raw = _column(frame, column)
        known = {value: mapping.get(value, mapping.get(ANY, value)) for value in raw.unique()}
        if strange := sorted(value for value, flag in known.items() if flag not in ("0", "1")):
            raise DomainError(
                f"column {column!r} has the value {strange[0]!r}; the label rule must map it to 0 or 1"
                + _yaml_hint(mapping)
            )
        flags[label] = (raw.map(known) == "1").to_numpy()
    carried = [tuple(label for label in columns if flags[label][i]) for i in range(len(frame))]
    return pd.Series(carried, index=frame.index, dtype=object)


def _column(frame: pd.DataFrame, column: str) -> pd.Series:
    if column not in frame.columns:
        raise DomainError(f"the label rule takes the column {column!r}; there are {', '.join(frame.columns)}")
    return frame[column]
