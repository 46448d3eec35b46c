"""How the audit grows: identifiers of a CheXpert-sized table, hashing of JPEGs, and the search for near-duplicates.

`python scripts/bench/audit_scale.py` prints seconds of processor time, memory and the ratio of time(2n) to time(n),
which is 2 where time is linear. Every count is checked, the search against all pairs of a subset.
About half a minute on one core.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmbench.domains.audit import audit
from vlmbench.domains.base import Domain, Example, Split
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.hamming import Indices, close_hashes
from vlmbench.domains.hashing import hash_image, hash_images
from vlmbench.domains.nearest import MAX_DISTANCE, Looks, near_pairs

ROWS, PATIENTS = 223_414, 64_540
T = TypeVar("T")


def timed(function: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    """Return the seconds of processor time a call takes, whatever else the machine does, and its result."""
    start = time.process_time()
    result = function(*arguments)
    return time.process_time() - start, result


def held_mib() -> float:
    """Return the memory this process holds, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """Return the most memory this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def identifiers() -> None:
    """Audit the identifiers of as many rows and patients as CheXpert trains on."""
    rng = np.random.default_rng(0)
    patients = rng.integers(PATIENTS, size=ROWS).tolist()
    names: list[Split] = [*["train"] * 14, *["val"] * 2, *["test"] * 4]  # type: ignore[list-item]
    examples = [
        Example(f"{i:06d}", f"train/patient{p:05d}/study{i}/view1_frontal.jpg", f"patient{p:05d}", names[p % 20])
        for i, p in enumerate(patients)
    ]
    domain = Domain("chexpert", "xray", "diagnosis", examples, FolderImages("."))
    before = held_mib()
    seconds, found = timed(lambda: audit(domain, hashes=False))
    if any(found[pair]["groups"] for pair in ("train-val", "train-test", "val-test")):
        raise SystemExit("groups are said to be shared, and none is")
    print(f"identifiers of {ROWS:,} rows: {seconds:.1f} s, {peak_mib() - before:.0f} MiB above the domain", flush=True)


def hashing(n: int) -> None:
    """Hash n, 2n and 4n JPEGs of 320 pixels, anew and from the cache, and say what hashing adds to decoding."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        rng = np.random.default_rng(0)
        keys = [f"{i}.jpg" for i in range(4 * n)]
        for key in keys:
            coarse: NDArray[np.uint8] = rng.integers(0, 255, (20, 20), np.uint8)
            Image.fromarray(coarse).resize((320, 320), Image.Resampling.BICUBIC).save(folder / key, quality=90)
        source = FolderImages(folder)
        load, images = timed(lambda: [source.load(key) for key in keys[:200]])
        whole, _ = timed(lambda: [hash_image(image) for image in images])
        phash, _ = timed(lambda: [imagehash.phash(image.convert("L")) for image in images])
        print(
            f"one JPEG of 320 px: {load * 5:.2f} ms to decode, {whole * 5:.2f} to hash, of which pHash {phash * 5:.2f}"
        )
        before = 0.0
        for count in (n, 2 * n, 4 * n):
            cache = folder / f"cache{count}"
            seconds, found = timed(hash_images, source, keys[:count], cache)
            again, same = timed(hash_images, source, keys[:count], cache)
            if len(found.keys) != count or not (found.pixels == same.pixels).all():
                raise SystemExit("the cache gives other hashes")
            ratio = f", ratio {seconds / before:.2f}" if before else ""
            print(f"hashing {count:,} images: {seconds:.2f} s{ratio}; from the cache {again:.2f} s", flush=True)
            before = seconds


def all_close(ones: NDArray[np.uint64], others: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Return all pairs of close hashes."""
    blocks = close_hashes(ones, others, MAX_DISTANCE)
    return [pair for i, j in blocks for pair in zip(i.tolist(), j.tolist(), strict=True)]


def search(sizes: tuple[int, ...]) -> None:
    """Look for close hashes among random ones, half of them in one set and half in the other, some planted."""
    rng = np.random.default_rng(0)
    before = 0.0
    for n in sizes:
        ones = np.unique(rng.integers(0, 2**64, n, dtype=np.uint64))
        others = np.unique(rng.integers(0, 2**64, n, dtype=np.uint64))
        planted = rng.choice(len(ones), 500, replace=False)
        flips = [rng.choice(64, int(rng.integers(MAX_DISTANCE + 1)), replace=False) for _ in planted]
        copies = [int(ones[i]) ^ sum(1 << int(bit) for bit in bits) for i, bits in zip(planted, flips, strict=True)]
        others = np.unique(np.r_[others, np.array(copies, np.uint64)])
        seconds, pairs = timed(all_close, ones, others)
        few = 200
        distance = np.bitwise_count(ones[:few, None] ^ others[None, :])
        brute = set(zip(*(each.tolist() for each in np.nonzero(distance <= MAX_DISTANCE)), strict=True))
        if len(set(pairs)) != len(pairs) or {pair for pair in pairs if pair[0] < few} != brute or len(pairs) < 500:
            raise SystemExit("the search finds other pairs than the comparison of all")
        ratio = f", ratio {seconds / before:.2f}" if before else ""
        print(f"search of {n:,} in {n:,} hashes: {seconds:.2f} s{ratio}; as all pairs give on {few:,}", flush=True)
        before = seconds


def count_near(looks: Looks, ones: Indices, others: Indices) -> int:
    """Count the near-duplicates between some images and others."""
    return sum(len(i) for i, _, _ in near_pairs(looks, looks, ones, others))


def collisions(n: int) -> None:
    """Compare n images with n others where all have the same hash, and n black ones with n."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, 1024)
    noisy = np.clip(base + rng.normal(0, 1, (2 * n, 1024)), 0, 255).astype(np.uint8)
    for name, thumbs in (("alike", noisy), ("black", np.zeros((2 * n, 1024), np.uint8))):
        looks = Looks.of(np.zeros(2 * n, np.uint64), thumbs)
        rows = np.arange(2 * n)
        seconds, pairs = timed(count_near, looks, rows[:n], rows[n:])
        if pairs != n * n:
            raise SystemExit(f"{pairs:,} of {n * n:,} pairs are found")
        print(
            f"{n:,} and {n:,} images {name}, all of one hash: {seconds:.1f} s, {peak_mib():.0f} MiB in all", flush=True
        )


def main() -> None:
    """Measure one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500, help="n; 4n are decoded")
    parser.add_argument("--hashes", type=int, nargs="*", default=[25_000, 50_000, 100_000, 200_000])
    parser.add_argument("--collisions", type=int, default=5000)
    args = parser.parse_args()
    identifiers()
    hashing(args.images)
    collisions(args.collisions)
    search(tuple(args.hashes))


if __name__ == "__main__":
    main()
