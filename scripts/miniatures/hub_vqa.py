"""Question sets of the hub in miniature: parquet files with images inside, several questions on each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from miniatures.pictures import picture

SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("question", pa.string()),
        ("answer", pa.string()),
    ]
)
_ASKED = (("is there a bright disc?", None), ("what is in the centre?", None), ("is the image dark?", "no"))


def encoded(rng: np.random.Generator, *, marked: bool, colour: bool = True, kind: str = "JPEG") -> bytes:
    """Return the bytes of a synthetic image file."""
    file = io.BytesIO()
    Image.fromarray(picture(rng, 48, marked=marked, colour=colour)).save(file, kind)
    return file.getvalue()


def write_part(path: Path, rows: Sequence[dict[str, Any]], group: int = 4) -> None:
    """Write rows of `image` (bytes), `question` and `answer` as one parquet file in the hub's schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = [{**row, "image": {"bytes": row["image"], "path": None}} for row in rows]
    pq.write_table(pa.Table.from_pylist(told, SCHEMA), path, row_group_size=group)


def questions(image: bytes, marked: bool) -> list[dict[str, Any]]:
    """Return the rows of one image, open and closed."""
    answers = {0: "yes" if marked else "no", 1: "a bright disc" if marked else "smooth tissue"}
    return [
        {"image": image, "question": question, "answer": given or answers[n]}
        for n, (question, given) in enumerate(_ASKED)
    ]


def _make(out: Path, seed: int, images: dict[str, int], parts: dict[str, int], shared: int, colour: bool) -> None:
    rng = np.random.default_rng(seed)
    kept: list[tuple[bytes, bool]] = []
    for split, count in images.items():
        drawn = [(encoded(rng, marked=n % 2 == 0, colour=colour), n % 2 == 0) for n in range(count)]
        if split == "test" and shared:  # as in the real split, some images of train come again with other questions
            drawn[:shared] = kept[:shared]
        kept += drawn
        rows = [row for image, marked in drawn for row in questions(image, marked)]
        if split == "test":
            for row in rows[: 3 * shared]:
                row["question"] = f"look again: {row['question']}"
        step = -(-len(rows) // parts[split])
        for number in range(parts[split]):
            name = f"{split}-{number:05d}-of-{parts[split]:05d}-{int(rng.integers(2**60)):016x}.parquet"
            write_part(out / "data" / name, rows[number * step : (number + 1) * step])


def make_path_vqa(out: Path, seed: int = 0) -> None:
    """Write PathVQA in miniature: three splits, several parts, no image in two of them."""
    _make(out, seed, {"train": 16, "validation": 6, "test": 6}, {"train": 3, "validation": 2, "test": 2}, 0, True)


def make_vqa_rad(out: Path, seed: int = 0, shared: int = 3) -> None:
    """Write VQA-RAD in miniature: two splits of one part each, which share `shared` images."""
    _make(out, seed, {"train": 18, "test": 8}, {"train": 1, "test": 1}, shared, False)
