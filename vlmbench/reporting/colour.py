"""The colour scale: viridis, perceptually uniform and safe for colour-blind readers, with text that stays readable."""

from __future__ import annotations

# Seventeen even samples of matplotlib's viridis (van der Walt and Smith, 2015; CC0), written out so that a page needs
# no plotting library.
VIRIDIS = (
    "440154", "48186a", "472d7b", "424086", "3b528b", "33638d", "2c728e", "26828e", "21918c",
    "1fa088", "28ae80", "3fbc73", "5ec962", "84d44b", "addc30", "d8e219", "fde725",
)  # fmt: skip
# Okabe and Ito's colours for categories (2008), without black and yellow, which vanish on one of the two backgrounds.
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")
# Okabe and Ito's colours for categories (2008), without black and yellow, which vanish on one of the two backgrounds.
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")


def colour(value: float, scale: tuple[float, float]) -> str:
    """The hex colour of a value on a scale; values outside are drawn at its ends."""
    low, high = scale
    share = 0.5 if high <= low else min(max((value - low) / (high - low), 0.0), 1.0)
    place = share * (len(VIRIDIS) - 1)
    index = min(int(place), len(VIRIDIS) - 2)
    left, right = (_rgb(VIRIDIS[index + step]) for step in (0, 1))
    weight = place - index
    mixed = (round(a + (b - a) * weight) for a, b in zip(left, right, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def text_colour(background: str) -> str:
    """Black or white, whichever contrasts more: at least 4.58 to 1 on any colour, WCAG AA asks for 4.5."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, background))


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two hex colours, 1 to 21 (WCAG 2.2, definition of contrast ratio)."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _rgb(colour: str) -> tuple[int, int, int]:
    digits = colour.lstrip("#")
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)
