"""How many examples a domain has of each subgroup: sex, view, age in bins."""

from __future__ import annotations

import math
from collections import Counter

from vlmbench.domains.base import SPLITS, Domain

#: Values of one attribute that are told apart; numbers beyond are put into bins, of texts the commonest are named.
MOST = 12
_BINS = 10
NOT_KNOWN, OTHERS = "not known", "others"


def subgroups(domain: Domain) -> dict[str, dict[str, dict[str, int]]]:
    """Return, per attribute and value, the number of examples in each split.

    Numbers of more than `MOST` values are counted in bins of one width (1, 2 or 5 times a power of ten, the least that
    gives no more than ten), such as `40-49` for the ages from 40 to below 50. Examples without the attribute are
    `not known`.
    """
    names = sorted({name for example in domain.examples for name in example.attributes})
    out: dict[str, dict[str, dict[str, int]]] = {}
    for name in names:
        values = [example.attributes.get(name) for example in domain.examples]
        shown = _shown(values)
        counts = Counter(zip(shown, (example.split for example in domain.examples), strict=True))
        order = sorted(set(shown), key=lambda text: (text in (NOT_KNOWN, OTHERS), *_key(text)))
        out[name] = {text: {split: counts[text, split] for split in SPLITS} for text in order}
    return out


def _shown(values: list[str | float | None]) -> list[str]:
    known = [value for value in values if value is not None]
    numbers = [value for value in known if isinstance(value, int | float)]
    if len(numbers) == len(known) and len(set(numbers)) > MOST:
        width = _width(min(numbers), max(numbers))
        return [NOT_KNOWN if value is None else _bin(float(value), width) for value in values]
    texts = [
        NOT_KNOWN if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in values
    ]
    common = {text for text, _ in Counter(text for text in texts if text != NOT_KNOWN).most_common(MOST)}
    return [text if text in common or text == NOT_KNOWN else OTHERS for text in texts]


def _width(low: float, high: float) -> float:
    power = 10.0 ** math.floor(math.log10((high - low) / _BINS))
    widths = (factor * power for factor in (1, 2, 5, 10, 20))
    return next(width for width in widths if _step(high, width) - _step(low, width) < _BINS)


def _step(value: float, width: float) -> int:
    return math.floor(round(value / width, 9))  # 0.15 / 0.05 is a little less than 3


def _bin(value: float, width: float) -> str:
    low = _step(value, width) * width
    # Of whole numbers the last that belongs to the bin is named, as people write ages.
    return f"{low:g}-{low + width - 1:g}" if width > 1 and width == round(width) else f"{low:g} to {low + width:g}"


def _key(text: str) -> tuple[float, str]:
    try:
        return float(text.removeprefix("-").split("-")[0].split(" ")[0]) * (-1 if text.startswith("-") else 1), text
    except ValueError:
        return math.inf, text
