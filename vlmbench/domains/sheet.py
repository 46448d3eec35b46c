"""A contact sheet: what a domain's images look like, a row for each label or kind of question."""

from __future__ import annotations

import random
from itertools import zip_longest
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vlmbench.domains.base import Domain, DomainError, Example, ImageError

COLUMNS, TILE, GAP, MOST_ROWS = 8, 176, 8, 40
_HEAD, _TEXT, _LINE = 17, 12, 15
_INK, _GREY, _TEST = (20, 20, 20), (105, 105, 105), (0, 84, 147)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_sheet(domain: Domain, path: Path, *, seed: int = 0) -> Path:
    """Write a PNG with a row for each label, or of questions for each kind of answer, test and train in turns.

    Args:
        domain: An image that cannot be read is a grey tile that says so.
        path: File to write; its folder is made.
        seed: Decides which images are shown.

    Returns:
        The path.

    Raises:
        DomainError: The domain has no examples, or the file cannot be written.
    """
    rows = _rows(domain)
    if not rows:
        raise DomainError(f"{domain.name} has no examples to draw")
    head, text = ImageFont.load_default(_HEAD), ImageFont.load_default(_TEXT)
    lines = 6 if domain.task != "diagnosis" else 2 if domain.multi_label else 1
    height = _HEAD + 12 + TILE + lines * _LINE + 10
    shown = rows[:MOST_ROWS]
    sheet = Image.new("RGB", (COLUMNS * (TILE + GAP) + GAP, len(shown) * height + 2 * _HEAD + 14), "white")
    canvas = ImageDraw.Draw(sheet)
    more = f"; {len(rows) - len(shown)} further rows are not shown" if len(rows) > len(shown) else ""
    task = domain.task + " (multi-label)" * domain.multi_label
    title = f"{domain.name}: {domain.modality}, {task}, {len(domain.examples):,} examples{more}"
    canvas.text((GAP, 8), title, fill=_INK, font=head)
    for number, (name, members) in enumerate(shown):
        top = 2 * _HEAD + 8 + number * height
        counts = ", ".join(f"{split} {len(some):,}" for split, some in members.items())
        canvas.text((GAP, top), _cut(canvas, f"{name} ({counts})", head, sheet.width - 2 * GAP), fill=_INK, font=head)
        for column, example in enumerate(_chosen(members, random.Random(f"{seed}/{name}"))):
            left = GAP + column * (TILE + GAP)
            sheet.paste(_tile(domain, example, text), (left, top + _HEAD + 8))
            below = top + _HEAD + 10 + TILE
            for at, line in enumerate(_caption(canvas, domain, example, text, lines)):
                ink = (_TEST if example.split == "test" else _GREY) if at == 0 else _INK
                canvas.text((left, below + at * _LINE), line, fill=ink, font=text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, "PNG")
    except OSError as error:
        raise DomainError(f"{path}: the sheet cannot be written: {error.strerror or error}") from error
    return path


def _rows(domain: Domain) -> list[tuple[str, dict[str, list[Example]]]]:
    """Return name and examples by split of each row; test first."""
    held: dict[str, dict[str, list[Example]]] = {name: {} for name in domain.label_names}
    for example in domain.examples:
        names = [domain.label_names[i] for i in example.labels]
        if domain.task == "diagnosis" and not names:
            names = ["no label"]
        for name in names or [_kind(example)]:
            held.setdefault(name, {}).setdefault(example.split, []).append(example)
    return [
        (name, {s: held[name][s] for s in ("test", "train", "val") if s in held[name]}) for name in held if held[name]
    ]


def _kind(example: Example) -> str:
    if not example.answer_type:
        return "captions"
    return f"{'multiple choice' if example.listed else example.answer_type} questions"


def _chosen(members: dict[str, list[Example]], rng: random.Random) -> list[Example]:
    mixed: list[list[Example]] = []
    for split in ("test", "train"):
        some = members.get(split, [])
        drawn = rng.sample(some, min(len(some), 8 * COLUMNS))
        # Different images first: many questions may be about one.
        fresh = list({row.image: row for row in reversed(drawn)}.values())[::-1]
        mixed.append([*fresh, *(row for row in drawn if row not in fresh)])
    return [row for pair in zip_longest(*mixed) for row in pair if row is not None][:COLUMNS]


def _tile(domain: Domain, example: Example, font: Font) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), (235, 235, 235))
    try:
        image = domain.images.load(example.image)
    except ImageError as error:
        canvas = ImageDraw.Draw(tile)
        for at, line in enumerate(_wrap(canvas, f"cannot be read: {error.reason}", font, TILE - 12, 8)):
            canvas.text((6, 6 + at * _LINE), line, fill=_INK, font=font)
        return tile
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    tile.paste(small, ((TILE - small.width) // 2, (TILE - small.height) // 2))
    return tile


def _caption(canvas: ImageDraw.ImageDraw, domain: Domain, example: Example, font: Font, lines: int) -> list[str]:
    """Return where the example comes from, then the other labels, question and answer, or the caption."""
    out = [_cut(canvas, f"{example.split}  {example.group}", font, TILE)]
    if domain.task == "diagnosis":
        names = ", ".join(domain.label_names[i] for i in example.labels) or "no label"
        return [*out, _cut(canvas, names, font, TILE)][:lines]
    if not example.question:
        return [*out, *_wrap(canvas, example.caption, font, TILE, lines - 1)]
    return [
        *out,
        *_wrap(canvas, f"Q: {example.question}", font, TILE, lines - 3),
        *_wrap(canvas, f"A: {example.answer}", font, TILE, 2),
    ]


def _wrap(canvas: ImageDraw.ImageDraw, text: str, font: Font, width: int, most: int) -> list[str]:
    lines, words = [""], text.split()
    for at, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if canvas.textlength(longer, font=font) <= width or not lines[-1]:
            lines[-1] = longer
        elif len(lines) == most:
            lines[-1] = " ".join([lines[-1], *words[at:]])
            break
        else:
            lines.append(word)
    return [_cut(canvas, line, font, width) for line in lines]


def _cut(canvas: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    text = " ".join(text.split())
    if canvas.textlength(text, font=font) <= width:
        return text
    # By halves: a caption of a paragraph would be measured once a letter.
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if canvas.textlength(f"{text[:middle]}...", font=font) <= width else (low, middle - 1)
        )
    return f"{text[:low].rstrip()}..."
