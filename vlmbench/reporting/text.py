"""Numbers as text: short, aligned, and never rounded up to something stronger than they are."""

from __future__ import annotations

import re

from markupsafe import Markup

ABSENT = "n/a"
MINUS = "\N{MINUS SIGN}"
DIGITS = 3
_NAMES = {"vqa": "VQA", "auroc": "AUROC", "f1": "F1", "bleu1": "BLEU-1", "diagnosis": "Diagnosis"}


def value_text(value: float | None, minus: str = MINUS) -> str:
    """A metric value with three decimals; more where three would turn a value below 1 into 1, or above 0 into 0.

    >>> value_text(0.91), value_text(0.99987), value_text(None)
    ('0.910', '0.9999', 'n/a')
    """
    if value is None:
        return ABSENT
    digits = DIGITS
    while digits < 6 and value not in (0.0, 1.0) and round(abs(value), digits) in (0.0, 1.0):
        digits += 1
    return _sign(f"{value:.{digits}f}", minus)


def interval_text(low: float | None, high: float | None, minus: str = MINUS) -> str:
    """An interval in brackets; empty where there is none."""
    return "" if low is None or high is None else f"[{value_text(low, minus)}, {value_text(high, minus)}]"


def signed_text(value: float) -> str:
    """A difference with its sign, three decimals."""
    return _sign(f"{value:+.{DIGITS}f}", MINUS)


def count_text(value: float | None) -> str:
    """A whole number with thin spaces between thousands."""
    return ABSENT if value is None else _sign(f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}"), MINUS)


def rate_text(value: float | None) -> str:
    """A rate with three significant digits below a thousand."""
    if value is None:
        return ABSENT
    return count_text(value) if abs(value) >= 1000 else f"{value:.{_decimals(value)}f}"


def percent_text(share: float) -> str:
    """A share as a percentage with two decimals."""
    return f"{100 * share:.2f} %" if share == 0 or share >= 0.0001 else "< 0.01 %"


def seconds_text(value: float | None) -> str:
    """A duration: seconds below two minutes, then minutes, then hours."""
    if value is None:
        return ABSENT
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def bytes_text(value: float | None) -> str:
    """A size in decimal units."""
    if value is None:
        return ABSENT
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.{_decimals(value)}f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"


def _decimals(value: float) -> int:
    return 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0


def _sign(text: str, minus: str) -> str:
    return text.replace("-", minus)


def name_text(name: str) -> str:
    """A metric's or task's name as a paper prints it: known abbreviations in capitals, no underscores."""
    return " ".join(_NAMES.get(word, word) for word in name.replace("rouge_l", "ROUGE-L").split("_"))


def method_text(finetune: str, scope: str = "", variant: str = "") -> str:
    """A way of tuning, written alike in every table, figure and sentence.

    >>> method_text("lora", "vision"), method_text("zero_shot")
    ('lora · vision', 'zero_shot')
    """
    return " · ".join(part for part in (finetune, scope, variant) if part)


def breakable(name: str) -> Markup:
    """The escaped name, with a place to break the line after each underscore and dot."""
    return Markup("<wbr>").join(re.split(r"(?<=[_.])", name))
