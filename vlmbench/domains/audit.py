"""How much the splits of a domain overlap: groups, images, pixels, near-duplicates, questions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import imagehash
import numpy as np

from vlmbench.domains.base import SPLITS, Domain, Example, ImageError
from vlmbench.domains.parallel import over_images

#: Bits of 64 by which two perceptual hashes may differ and still count as near-duplicates.
DEFAULT_MAX_DISTANCE = 4
_EXAMPLES = 5
#: Standard deviation in grey levels below which an image has no structure for a perceptual hash to hold on to.
_FLAT = 2.0
#: Pairs compared at a time, at 8 bytes or a little more each.
_BLOCK = 4_000_000

#: By kind of overlap, the count and a few examples.
Found = dict[str, tuple[int, list[dict[str, Any]]]]


def audit(domain: Domain, *, max_distance: int = DEFAULT_MAX_DISTANCE, hashes: bool = True) -> dict[str, Any]:
    """Count what each pair of splits shares.

    Perceptual hashes are pHash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions"),
    64 bits of the low frequencies of a 32 x 32 reduction. They find resized, recompressed and slightly cropped copies.
    They also call images alike that merely look alike at that size, as radiographs in a standard view can, and smooth
    or black images collide altogether: their number is given as `flat_images`, and the pairs are for a look, not proof.

    Args:
        domain: Its images are loaded through `domain.images`, each once.
        max_distance: Bits of 64, 0 to 64.
        hashes: False leaves out what needs pixels, and says so under `skipped`.

    Returns:
        A JSON-able mapping. For each of `train-val`, `train-test` and `val-test`: `groups`, `images` (keys) and
        `questions` (the same question on the same image; VQA only, else 0) are what both splits have; `pixels` and
        `near_duplicates` are the images of the later split that have a copy, or a near but not exact copy, in the
        earlier; `near_duplicate_pairs` counts pairs; `examples` has up to five of each kind. Beside these:
        `max_distance`, `flat_images`, `unreadable` (`{key: reason}`) and, with `hashes=False`, `skipped`.
    """
    rows = {split: domain.split(split) for split in SPLITS}
    keys = {split: sorted({row.image for row in rows[split]}) for split in SPLITS}
    out: dict[str, Any] = {"max_distance": max_distance}
    pixels: dict[str, tuple[bytes, int]] = {}
    if hashes:
        pixels, out["flat_images"], out["unreadable"] = _hash_images(domain, sorted(set().union(*keys.values())))
    else:
        out["skipped"] = "pixels and near-duplicates were not compared: hashes=False"
    for first, second in combinations(SPLITS, 2):
        found = _shared_rows(rows[first], rows[second])
        if hashes:
            readable = [[key for key in keys[split] if key in pixels] for split in (first, second)]
            found |= _shared_pixels(readable[0], readable[1], pixels, max_distance)
        examples = [example for _, some in found.values() for example in some]
        out[f"{first}-{second}"] = {kind: count for kind, (count, _) in found.items()} | {"examples": examples}
    return out


def _shared_rows(first: Sequence[Example], second: Sequence[Example]) -> Found:
    def shared(kind: str, ones: set[Any], others: set[Any]) -> tuple[int, list[dict[str, Any]]]:
        both = sorted(ones & others)
        return len(both), [
            {"kind": kind, "what": list(item) if isinstance(item, tuple) else item} for item in both[:_EXAMPLES]
        ]

    def questions(rows: Sequence[Example]) -> set[tuple[str, str]]:
        return {(row.image, " ".join(row.question.lower().split())) for row in rows if row.question}

    return {
        "groups": shared("groups", {row.group for row in first}, {row.group for row in second}),
        "images": shared("images", {row.image for row in first}, {row.image for row in second}),
        "questions": shared("questions", questions(first), questions(second)),
    }


def _hash_images(domain: Domain, keys: Sequence[str]) -> tuple[dict[str, tuple[bytes, int]], int, dict[str, str]]:
    """Return per readable image the SHA-256 of its pixels and its pHash; the number of flat ones; the unreadable."""

    def hash_one(key: str) -> tuple[bytes, int, bool] | str:
        try:
            image = domain.images.load(key)
        except ImageError as error:
            return error.reason
        digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
        grey = image.convert("L")
        return digest, int(str(imagehash.phash(grey, hash_size=8)), 16), float(np.asarray(grey).std()) < _FLAT

    hashed = dict(zip(keys, over_images(hash_one, keys, "Hashing images"), strict=True))
    good = {key: found for key, found in hashed.items() if not isinstance(found, str)}
    bad = {key: found for key, found in hashed.items() if isinstance(found, str)}
    return {key: found[:2] for key, found in good.items()}, sum(found[2] for found in good.values()), bad


def _shared_pixels(
    first: Sequence[str], second: Sequence[str], pixels: dict[str, tuple[bytes, int]], max_distance: int
) -> Found:
    holders = {pixels[key][0]: key for key in reversed(first)}
    copies = [(holders[pixels[key][0]], key) for key in second if pixels[key][0] in holders]
    unlike = [pair for pair in copies if pair[0] != pair[1]]  # the same key is an example of `images` already
    near = 0
    pairs = 0
    shown: list[dict[str, Any]] = []
    ones, others = (np.array([pixels[key][1] for key in keys], dtype=np.uint64) for keys in (first, second))
    # The same number for the same pixels: exact copies are not near-duplicates, they are counted already.
    number = {digest: i for i, digest in enumerate({pixels[key][0] for key in (*first, *second)})}
    contents, other_contents = (np.array([number[pixels[key][0]] for key in keys]) for keys in (first, second))
    step = max(1, _BLOCK // max(1, len(first)))
    for start in range(0, len(second), step):
        # (step, len(first)): the number of bits in which two hashes differ.
        distance = np.bitwise_count(others[start : start + step, None] ^ ones[None, :])
        hits = (distance <= max_distance) & (other_contents[start : start + step, None] != contents[None, :])
        pairs += int(hits.sum())
        near += int(hits.any(axis=1).sum())
        if len(shown) < _EXAMPLES:
            for i, j in np.argwhere(hits)[: _EXAMPLES - len(shown)]:
                images = [first[j], second[start + i]]
                shown.append({"kind": "near_duplicates", "what": images, "distance": int(distance[i, j])})
    return {
        "pixels": (len(copies), [{"kind": "pixels", "what": list(pair)} for pair in unlike[:_EXAMPLES]]),
        "near_duplicates": (near, shown),
        "near_duplicate_pairs": (pairs, []),
    }
