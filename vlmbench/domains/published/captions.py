"""Images with captions from the literature: ROCO, ROCOv2 and PMC-OA.

ROCO: Pelka et al. 2018, "Radiology Objects in COntext (ROCO): a multimodal image dataset", LABELS workshop; in
`data/{train,validation,test}/radiology/`, `captions.txt` (name, tab, caption) and `images/NAME.jpg`.
ROCOv2: Rückert et al. 2024, "ROCOv2: Radiology Objects in COntext version 2, an updated multimodal image dataset",
Scientific Data 11:688; `{train,valid,test}_captions.csv` (ID, Caption) and folders of `ID.jpg`.
PMC-OA: Lin et al. 2023, "PMC-CLIP", arXiv 2303.07240; `pmc_oa.jsonl` with `image` and `caption`, no split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vlmbench.domains.assemble import check_choice, image_key, read_text
from vlmbench.domains.base import DomainError
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.jsonl import read_lines, text_of
from vlmbench.domains.published.layout import Layout, found, table
from vlmbench.domains.published.rows import read_rows

_ARTICLE = re.compile(r"(PMC\d+)_")


def read_roco(root: Path, *, version: int = 2, subset: str = "radiology", bad_rows: str = "stop") -> Layout:
    """Read ROCO.

    Args:
        root: Folder that holds the layout.
        version: 2, or 1 for the first release, whose images its own script has to bring.
        subset: Version 1: `radiology` or `non-radiology`.
        bad_rows: `stop` at a line without a caption, or `leave_out` and count.

    Raises:
        DomainError: A table or a folder is missing, or a line has no caption.
    """
    check_choice("domain.settings.version", str(version), ("1", "2"))
    rows, left_out = [], []
    for split in ("train", "validation", "test") if version == 1 else ("train", "valid", "test"):
        path, folder, lines = _first(root, split, subset) if version == 1 else _second(root, split)
        some, bad = read_rows(lines, _captioned, bad_rows, path)
        rows += [
            {"id": name, "image": f"{folder}/{name}.jpg", "split": split, **row} for row in some for name in [row["id"]]
        ]
        left_out += bad
    frame = pd.DataFrame(rows)
    return Layout(frame.assign(group=frame["image"]), FolderImages(root), left_out)


def read_pmc_oa(
    root: Path,
    *,
    table: str = "pmc_oa.jsonl",
    folder: str = "caption_T060_filtered_top4_sep_v0_subfigures",
    bad_rows: str = "stop",
) -> Layout:
    """Read PMC-OA.

    Args:
        root: Folder that holds the table and `folder`.
        table: `pmc_oa.jsonl`, or `pmc_oa_beta.jsonl` with the whole caption of a compound figure at each panel.
        folder: Folder of the images, as `images.zip` unpacks.
        bad_rows: `stop` at a line without a caption, or `leave_out` and count.

    Raises:
        DomainError: The table or the folder is missing, or a line has no caption.
    """
    path = found(root, table)
    found(root, folder)
    lines = ((f"{path}: line {number}", (number, line)) for number, line in read_lines(path))
    rows, left_out = read_rows(lines, _figure, bad_rows, path)
    frame = pd.DataFrame(rows)
    return Layout(frame.assign(image=folder + "/" + frame["image"], split=""), FolderImages(root), left_out)


def _figure(numbered: tuple[int, dict[str, Any]], place: str) -> dict[str, str]:
    number, line = numbered
    image = image_key(text_of(line, "image", "", place))
    article = _ARTICLE.match(image)
    return {
        "id": f"line{number}",
        "image": image,
        "group": article[1] if article else image,
        "caption": text_of(line, "caption", "", place),
    }


def _captioned(pair: Sequence[str], place: str) -> dict[str, str]:
    name, caption = pair
    if not name or not caption:
        raise DomainError(f"{place}: {'a caption without an image' if not name else f'{name} has no caption'}")
    return {"id": name, "caption": caption}


def _second(root: Path, split: str) -> tuple[Path, str, list[tuple[str, tuple[str, str]]]]:
    name = f"{split}_captions.csv"
    frame = table(root, name, ["ID", "Caption"])
    pairs = zip(frame["ID"], frame["Caption"], strict=True)
    # Archives have been unpacked with and without a folder of their own.
    folders = (split, f"{split}_images", f"{split}_images/{split}", f"{split}/{split}")
    first = f"{frame['ID'].iloc[0]}.jpg"
    folder = next((folder for folder in folders if (root / folder / first).is_file()), folders[0])
    found(root, folder)
    return root / name, folder, [(f"{root / name}: row {n}", pair) for n, pair in zip(frame.index, pairs, strict=True)]


def _first(root: Path, split: str, subset: str) -> tuple[Path, str, list[tuple[str, tuple[str, str]]]]:
    folder = f"data/{split}/{subset}"
    path = found(root, f"{folder}/captions.txt")
    lines = []
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if text.strip():
            name, _, caption = text.partition("\t")
            lines.append((f"{path}: line {number}", (name.strip(), caption.strip())))
    found(root, f"{folder}/images")
    return path, f"{folder}/images", lines
