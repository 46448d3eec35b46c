"""ROCO, ROCOv2 and PMC-OA in miniature: images and sentences on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from miniatures.pictures import picture

_OA = "caption_T060_filtered_top4_sep_v0_subfigures"


def _draw(rng: np.random.Generator, path: Path, marked: bool) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(rng, 48, marked=marked, colour=False)).save(path)
    return "A bright, round lesion, with a sharp border." if marked else 'Normal findings, "no" lesion.'


def make_roco(out: Path, seed: int = 0, version: int = 2) -> None:
    """Write ROCOv2, or the first ROCO, below `out`."""
    rng = np.random.default_rng(seed)
    number = 0
    for split, count in (("train", 18), ("valid", 6), ("test", 6)):
        rows = []
        name = "validation" if version == 1 and split == "valid" else split
        folder = out / f"data/{name}/radiology/images" if version == 1 else out / split
        for n in range(count):
            number += 1
            key = f"ROCO_{number:05d}" if version == 1 else f"ROCOv2_2023_{split}_{n + 1:06d}"
            rows.append({"ID": key, "Caption": _draw(rng, folder / f"{key}.jpg", n % 2 == 0)})
        if version == 1:
            lines = [f"{row['ID']}\t {row['Caption']}\n" for row in rows]
            (folder.parent / "captions.txt").write_text("".join(lines), encoding="utf-8")
        else:
            pd.DataFrame(rows).to_csv(out / f"{split}_captions.csv", index=False)


def make_pmc_oa(out: Path, seed: int = 0, articles: int = 16) -> None:
    """Write PMC-OA below `out`: panels of figures, two an article; as in the release, one caption is empty."""
    rng = np.random.default_rng(seed)
    lines = []
    for article in range(articles):
        for panel in range(2):
            name = f"PMC{212300 + article}_Fig3_{panel}.jpg"
            lines.append({"image": name, "caption": _draw(rng, out / _OA / name, (article + panel) % 2 == 0)})
    lines[3]["caption"] = ""
    (out / "pmc_oa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
