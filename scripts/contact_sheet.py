"""Draw a labelled sheet of phantom images: a row of patients for every modality, a title over every image.

Example:
    python scripts/contact_sheet.py --out docs/phantom.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from vlmbench.domains.phantom.build import label_names
from vlmbench.domains.phantom.world import MODALITIES, WORLD, World


def examples(world: World, modality: str, columns: int) -> list[tuple[str, np.ndarray]]:
    """Return titles and images of one modality: its findings in turn, each image of another patient."""
    names = label_names(modality, "multiclass") if modality != WORLD else ("",)
    wanted = [names[k * len(names) // columns] for k in range(columns)]
    found: list[tuple[str, np.ndarray]] = []
    patient = 0
    for name in wanted:
        while name and world.scene(modality, patient, 0).main != name:
            patient += 1
        title = name or world.caption(WORLD, patient, 0)
        found.append((title, world.render(modality, patient, 0)))
        patient += 1
    return found


def _wrap(text: str, width: int = 24) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--columns", type=int, default=10, help="images per modality (default 10)")
    parser.add_argument("--size", type=int, default=96, help="side of an image in pixels (default 96)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world (default 0)")
    parser.add_argument("--modality", nargs="*", default=[*MODALITIES, WORLD], help="which rows (default all)")
    options = parser.parse_args(argv)

    world = World(options.seed, options.size)
    rows, columns = len(options.modality), options.columns
    figure, axes = plt.subplots(rows, columns, figsize=(1.35 * columns, 1.6 * rows), squeeze=False)
    for row, modality in zip(axes, options.modality, strict=True):
        for axis, (title, pixels) in zip(row, examples(world, modality, columns), strict=True):
            axis.imshow(pixels)
            axis.set_title(_wrap(title), fontsize=4.5 if modality == WORLD else 6.5, pad=2)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(modality, fontsize=8)
    figure.tight_layout(pad=0.3, h_pad=0.6, w_pad=0.2)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=100)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
