"""Which subgroup an example belongs to: the values of an attribute as a record names them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NOT_KNOWN = "not known"
MOST = 12  # values of an attribute that are told apart where no record names its subgroups
_NUMBER = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_RANGE = re.compile(f"{_NUMBER}(?:-| to ){_NUMBER}")


def named(values: pd.Series, recorded: Sequence[str] = ()) -> NDArray[np.str_]:
    """Return the subgroup of each example.

    Args:
        values: (N,) an attribute.
        recorded: Names that a record counts its subgroups by; numbers fall into ranges such as `40-49` or `0.2 to 0.4`
            among them. Without any, up to 12 values stand for themselves, and more numbers are cut at quartiles.
    """
    numbers = pd.to_numeric(values, errors="coerce")
    numeric = bool(numbers.notna().sum() == values.notna().sum()) and not pd.api.types.is_bool_dtype(values)
    texts = [NOT_KNOWN if pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v) for v in values]
    ranges = [(name, float(m[1]), float(m[2])) for name in recorded if (m := _RANGE.fullmatch(name))]
    if numeric and ranges:
        # "40-49" is of whole numbers and ends before 50, "0.2 to 0.4" before 0.4; both begin where they say.
        starts = sorted((low, name) for name, low, _ in ranges)
        places = np.searchsorted([low for low, _ in starts], np.round(numbers.to_numpy(float), 9), side="right") - 1
        return np.array(
            [NOT_KNOWN if t == NOT_KNOWN else starts[max(p, 0)][1] for t, p in zip(texts, places, strict=True)]
        )
    if numeric and not recorded and len(set(texts) - {NOT_KNOWN}) > MOST:
        cuts = np.unique(np.quantile(numbers.dropna(), [0.25, 0.5, 0.75]))
        ends = [f"below {cuts[0]:g}", *(f"{a:g} to {b:g}" for a, b in itertools.pairwise(cuts))]
        labels = np.array([*ends, f"{cuts[-1]:g} and above"])
        places = np.searchsorted(cuts, numbers.to_numpy(float), side="right")
        return np.where(np.array(texts) == NOT_KNOWN, NOT_KNOWN, labels[places])
    known = set(recorded)
    return np.array([text if not known or text in known or text == NOT_KNOWN else "others" for text in texts])


def in_order(names: Iterable[str]) -> list[str]:
    """Sort subgroups: ranges by where they begin, then texts by the alphabet, what is not known last."""

    def key(name: str) -> tuple[bool, float, str]:
        start = re.match(_NUMBER, name.removeprefix("below "))
        place = float(start[1]) - (1e-9 if name.startswith("below ") else 0) if start else float("inf")
        return name in (NOT_KNOWN, "others"), place, name

    return sorted(names, key=key)
