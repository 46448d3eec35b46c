"""PMC-VQA in miniature, both versions: tables of four choices, figures of some articles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from miniatures.pictures import picture

_CHOICES = ("Focal uptake pattern", "Diffuse uptake pattern", "No uptake pattern", "Cannot be determined")


def table(rng: np.random.Generator, articles: range, version: int) -> pd.DataFrame:
    """Return a table in the published columns, two questions on each figure, one or two figures an article."""
    rows: list[dict[str, object]] = []
    for article in articles:
        for figure in range(1, 2 + article % 2):
            for question in ("What is the uptake pattern?", "Which pattern does the figure show?"):
                order = rng.permutation(4)
                right = int(np.flatnonzero(order == article % 2)[0])
                path = f"PMC{1064000 + article}_" + (f"F{figure}.jpg" if version == 1 else f"Fig{figure}_1.jpg")
                choices = {f"Choice {c}": f" {c}:{_CHOICES[n]} " for c, n in zip("ABCD", order, strict=True)}
                asked = {"Figure_path": path, "Question": question}
                if version == 1:
                    rows.append({**asked, "Answer": _CHOICES[order[right]], **choices, "Answer_label": "ABCD"[right]})
                else:
                    caption = {"Caption": "A pattern, at left."}
                    rows.append({"index": len(rows), **caption, **asked, **choices, "Answer": "ABCD"[right]})
    return pd.DataFrame(rows)


def make(out: Path, seed: int = 0, version: int = 1) -> None:
    """Write the tables and the images below `out`."""
    rng = np.random.default_rng(seed)
    names = ("train", "test_clean") if version == 1 else ("train_2", "test_2")
    folder = out / ("images" if version == 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    for name, articles in zip(names, (range(14), range(14, 20)), strict=True):
        frame = table(rng, articles, version)
        frame.to_csv(out / f"{name}.csv", index=False)
        for path in dict.fromkeys(frame["Figure_path"]):
            marked = int(path[3:10]) % 2 == 0
            Image.fromarray(picture(rng, 48, marked=marked)).save(folder / path)
