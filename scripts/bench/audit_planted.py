"""Plant re-encoded and resized copies in an image set, across its splits, and count how many the audit finds.

`python scripts/bench/audit_planted.py FOLDER...` for folders of images, and `--phantom MODALITY...` for phantoms. Every
line has recall over the planted copies and two figures of precision. `new` leaves aside the pairs that are found
without planting, and pairs of a copy with an image that its original is found alike with; `strict` counts those as
false. `--sheet FILE` draws the pairs that are found without planting, to judge by eye which of the two holds.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from vlmbench.domains.audit import audit
from vlmbench.domains.base import SPLITS, Domain, Example, ImageSource
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.hashing import hash_images
from vlmbench.domains.nearest import near_pairs
from vlmbench.domains.phantom.build import build_phantom

COPY = "copy of "


@dataclass(frozen=True)
class Measured:
    """Recall and precision on one set.

    Attributes:
        images: Number of images before planting.
        planted: Number of copies.
        missed: Originals whose copy was not found.
        natural: Pairs of images that are found without planting, of whatever splits.
        false: Pairs across splits that neither planting nor `natural` explains.
        found: Pairs across splits that are explained by planting.
        across: Of `natural`, the pairs across splits.
        audited: Sum of `near_duplicates` in the audit itself.
    """

    images: int
    planted: int
    missed: list[str]
    natural: list[tuple[str, str]]
    false: list[tuple[str, str]]
    found: int
    across: int
    audited: int

    @property
    def recall(self) -> float:
        """Share of the planted copies that were found."""
        return 1 - len(self.missed) / self.planted

    @property
    def precision(self) -> float:
        """Share of true pairs among those that are not found without planting."""
        return self.found / max(1, self.found + len(self.false))

    @property
    def strict_precision(self) -> float:
        """The same where every pair that is found without planting counts as false."""
        return self.found / max(1, self.found + len(self.false) + self.across)


class Planted:
    """A source with altered copies of some images: resized by 0.5 to 1.5, and a JPEG of quality 50 to 95."""

    def __init__(self, images: ImageSource, seed: int) -> None:
        self.images, self.seed = images, seed

    def load(self, key: str) -> Image.Image:
        """Return an image, or a copy of one, the same at each call."""
        image = self.images.load(key.removeprefix(COPY))
        if not key.startswith(COPY):
            return image
        rng = np.random.default_rng([self.seed, *key.encode()])
        scale, quality = rng.uniform(0.5, 1.5), int(rng.integers(50, 96))
        filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        file = io.BytesIO()
        image.resize(size, filters[rng.integers(3)]).save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")


def measure(images: ImageSource, keys: Sequence[str], share: float = 0.1, seed: int = 0) -> Measured:
    """Deal images into splits, plant copies of a share of them in other splits, and look for them.

    Args:
        images: The source.
        keys: Its images.
        share: Of the images that get a copy.
        seed: Of the splits and the planting.
    """
    rng = np.random.default_rng(seed)
    split_of = {key: SPLITS[rng.choice(3, p=[0.6, 0.15, 0.25])] for key in keys}
    originals = [str(key) for key in rng.choice(keys, max(1, round(share * len(keys))), replace=False)]
    for key in originals:
        split_of[COPY + key] = rng.choice([split for split in SPLITS if split != split_of[key]])
    domain = Domain(
        "planted",
        "any",
        "diagnosis",
        [Example(id=key, image=key, group=key, split=split) for key, split in split_of.items()],
        Planted(images, seed),
    )
    hashed = hash_images(domain.images, list(split_of))
    rows = np.arange(len(hashed.keys))
    pairs = {
        (hashed.keys[a], hashed.keys[b])
        for i, j, _ in near_pairs(hashed.looks, hashed.looks, rows, rows)
        for a, b in zip(i.tolist(), j.tolist(), strict=True)
        if a < b and hashed.pixels[a] != hashed.pixels[b]
    }
    natural = {pair for pair in pairs if not any(key.startswith(COPY) for key in pair)}
    across = {pair for pair in pairs if split_of[pair[0]] != split_of[pair[1]]}
    root = {pair: frozenset(key.removeprefix(COPY) for key in pair) for pair in across}
    alike = {frozenset(pair) for pair in natural}
    planted = {pair for pair in across if len(root[pair]) == 1}
    report = audit(domain)
    return Measured(
        images=len(keys),
        planted=len(originals),
        missed=[key for key in originals if (key, COPY + key) not in planted],
        natural=sorted(natural),
        false=sorted(pair for pair in across - planted - natural if root[pair] not in alike),
        found=len(planted),
        across=len(across & natural),
        audited=sum(report[f"{a}-{b}"]["near_duplicate_pairs"] for a, b in combinations(SPLITS, 2)),
    )


def phantom(modality: str, count: int) -> tuple[ImageSource, list[str]]:
    """Return phantom images of a modality and the keys of `count` of them."""
    domain = build_phantom("phantom", modality, "pretrain", n_patients=count)
    return domain.images, list(dict.fromkeys(example.image for example in domain.examples))[:count]


def sheet(images: ImageSource, pairs: Sequence[tuple[str, str]], path: Path, side: int = 160) -> None:
    """Draw pairs of images, six pairs a row."""
    rows = -(-len(pairs) // 6)
    page = Image.new("RGB", (6 * (2 * side + 12), rows * (side + 8)), "white")
    for n, pair in enumerate(pairs):
        for k, key in enumerate(pair):
            tile = images.load(key).resize((side, side))
            page.paste(tile, (n % 6 * (2 * side + 12) + k * side, n // 6 * (side + 8)))
    page.save(path)


def main() -> None:
    """Measure each set that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--phantom", nargs="*", default=[], metavar="MODALITY")
    parser.add_argument("--count", type=int, default=1200, help="phantom images of a modality")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    sets: list[tuple[str, ImageSource, list[str]]] = []
    for folder in args.folders:
        keys = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        sets.append((str(folder), FolderImages(folder), keys))
    sets += [(f"phantom {modality}", *phantom(modality, args.count)) for modality in args.phantom]
    print(f"{'set':44} images planted recall  precision new, strict  found without planting  audit")
    for name, images, keys in sets:
        for seed in range(args.seeds):
            found = measure(images, keys, seed=seed)
            print(
                f"{name[-44:]:44} {found.images:6} {found.planted:7} {found.recall:6.4f}  {found.precision:9.4f}"
                f" {found.strict_precision:11.4f}  {len(found.natural):22}  {found.audited:5}",
                flush=True,
            )
        if args.sheet and found.natural:
            sheet(images, found.natural[:60], args.sheet.with_stem(f"{args.sheet.stem}-{Path(name).parent.name}"))


if __name__ == "__main__":
    main()
