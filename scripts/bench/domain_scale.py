"""Seconds and peak memory of a CheXpert-sized domain: 223,414 rows of 64,540 patients, in the official columns.

python scripts/bench/domain_scale.py            # images are only said to be there
python scripts/bench/domain_scale.py --files    # a file of one byte for each image, looked for on the disk
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from PIL import Image

from vlmbench.catalogue.read import named_domain
from vlmbench.cell.domain import build_domain
from vlmbench.config import schema
from vlmbench.domains.assemble import fingerprint
from vlmbench.domains.audit import audit
from vlmbench.domains.base import Domain, Example
from vlmbench.domains.published import build
from vlmbench.domains.published.chexpert import FINDINGS, read
from vlmbench.domains.published.layout import Layout
from vlmbench.domains.published.readers import read_layout
from vlmbench.domains.published.rules import one_label
from vlmbench.domains.published.study import study_split
from vlmbench.domains.splits import make_splits

FOLDER = "CheXpert-v1.0-small"
SIZES = {"train": (223_414, 64_540, 1), "valid": (234, 200, 64_541)}


class SaidToBeThere:
    """Images of which each is one byte long and none is on the disk."""

    where = "nowhere"

    def load(self, key: str) -> Image.Image:
        """Return a black pixel."""
        return Image.new("RGB", (1, 1))

    def size(self, key: str) -> int:
        """Return 1."""
        return 1

    def stamp(self, key: str) -> str:
        """Return the key."""
        return key

    def digest(self, key: str) -> bytes:
        """Return 32 zeros."""
        return bytes(32)


def table(split: str, rows: int, patients: int, first: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return a table of exactly so many rows and patients, in the order of patients, studies and views."""
    skewed = rng.random(rows - patients) ** 3 * patients  # most patients have a few images, some have dozens
    owner = np.sort(np.concatenate([np.arange(patients), skewed.astype(int)]))
    view = pd.Series(owner).groupby(owner).cumcount().to_numpy()
    side = np.where(rng.random(rows) < 0.15, "lateral", "frontal")
    path = [
        f"{FOLDER}/{split}/patient{who + first:05d}/study{number // 2 + 1}/view{number % 2 + 1}_{name}.jpg"
        for who, number, name in zip(owner, view, side, strict=True)
    ]
    healthy = rng.random(rows) < 0.1
    columns: dict[str, Any] = {
        "Path": path,
        "Sex": np.where(rng.random(patients) < 0.5, "Male", "Female")[owner],
        "Age": rng.integers(18, 91, patients)[owner],
        "Frontal/Lateral": np.char.capitalize(side),
        "AP/PA": np.where(side == "frontal", np.where(rng.random(rows) < 0.8, "AP", "PA"), ""),
    }
    for finding in FINDINGS:
        drawn = rng.choice(np.array(["1.0", "0.0", "-1.0", ""]), rows, p=[0.2, 0.1, 0.05, 0.65])
        columns[finding] = np.where(healthy, "", drawn)
    columns["No Finding"] = np.where(healthy, "1.0", "")
    return pd.DataFrame(columns)


def write(root: Path, *, files: bool) -> None:
    """Write both tables and, where asked, the files of the images."""
    rng = np.random.default_rng(0)
    (root / FOLDER).mkdir(parents=True)
    for split, (rows, patients, first) in SIZES.items():
        frame = table(split, rows, patients, first, rng)
        frame.to_csv(root / FOLDER / f"{split}.csv", index=False)
        if files:
            for folder in frame["Path"].str.rpartition("/")[0].unique():
                (root / folder).mkdir(parents=True)
            for path in frame["Path"]:
                (root / path).write_bytes(b"x")


def peak() -> float:
    """Return the most memory that this process has held so far, in MiB."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / 2**20 if sys.platform == "darwin" else held / 2**10


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print how long a step takes, by the clock and in this process, and the peak after it."""
    start, worked = time.perf_counter(), time.process_time()
    yield
    took, worked = time.perf_counter() - start, time.process_time() - worked
    print(f"{name:<36}{took:>8.2f} s {worked:>8.2f} s {peak():>8,.0f} MiB", flush=True)


def check(domain: Domain, sizes: Sequence[int]) -> None:
    """Check that the splits have these sizes together, and share no patient.

    Raises:
        AssertionError: They do not.
    """
    found = {split: domain.split(split) for split in ("train", "val", "test")}
    groups = {split: {row.group for row in rows} for split, rows in found.items()}
    assert (len(found["train"]) + len(found["val"]), len(found["test"])) == tuple(sizes), domain.counts()
    assert found["val"], "no validation rows"
    assert not groups["train"] & groups["val"], "a patient in train and val"
    assert not (groups["train"] | groups["val"]) & groups["test"], "a patient of test elsewhere"
    assert len(groups["train"]) + len(groups["val"]) == SIZES["train"][1]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", action="store_true", help="make a file for each image and look for it")
    parser.add_argument("--steps", action="store_true", help="time the steps of building too, each by itself")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with step("making the dataset"):
            write(root, files=asked.files)
        print(f"{'':<36}{'clock':>10} {'processor':>10} {'peak so far':>12}")
        if asked.steps:
            steps(root)
        for split in ("study", "ours"):
            with step(f"listing, splitting, auditing: {split}"):
                whole(root, split, files=asked.files)


def steps(root: Path) -> None:
    """Time reading, the label rule, both ways of splitting, and the fingerprint."""
    config = named_domain("chexpert", overrides=[f"root={root}"])
    assert isinstance(config, schema.PublishedDomainConfig)
    rule = dataclasses.asdict(config.rules["diseased"])
    with step("  reading the tables"):
        frame = read(root).frame
    with step("  label rule"):
        labels, _ = one_label(frame, rule["column"], rule["map"], rule["leave_out"], rule["labels"])
    with step("  split=study, as published"):
        study_split("official", frame, labels, root)
    with step("  splits of all rows by patient"):
        splits = make_splits(list(frame["group"]), list(labels), fractions=(0.7, 0.1, 0.2))
    examples = [
        Example(id=key, image=key, group=group, split=split)
        for key, group, split in zip(frame["id"], frame["group"], splits, strict=True)
    ]
    with step("  fingerprint"):
        fingerprint(None, SaidToBeThere(), examples)


def whole(root: Path, split: str, *, files: bool) -> None:
    """Build the domain and audit its ids: what a user waits for."""

    def without_files(*args: Any) -> Layout:
        return Layout(read_layout(*args).frame, SaidToBeThere())

    config = named_domain("chexpert", overrides=[f"root={root}", f"split={split}"])
    with mock.patch.object(build, "read_layout", read_layout if files else without_files), step("  building"):
        domain = build_domain(config, "diagnosis")
    check(domain, [SIZES["train"][0], SIZES["valid"][0]])
    with step("  counts by split and label"):
        domain.counts()
    with step("  audit of ids"):
        audit(domain, hashes=False)


if __name__ == "__main__":
    main()
