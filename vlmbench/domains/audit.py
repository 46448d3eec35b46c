"""How much the splits of a domain overlap: groups, images, pixels, near-duplicates, questions."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from vlmbench.domains.base import SPLITS, Domain
from vlmbench.domains.hashing import hash_images
from vlmbench.domains.nearest import MAX_DISTANCE
from vlmbench.domains.overlap import Part, in_both, shared_images

SKIPPED = "pixels and near-duplicates were not compared: hashes=False"


def audit(domain: Domain, *, max_distance: int = MAX_DISTANCE, hashes: bool = True) -> dict[str, Any]:
    """Count what each pair of splits shares.

    Near-duplicates are copies that were resized, recompressed, or slightly changed in brightness or sharpness, and
    images taken so shortly after one another that they cannot be told apart at 32 x 32 pixels. Two images of a patient
    from different days, or of two patients in the same view, are none. How they are found, and how surely: `nearest`.
    Images without structure, such as black ones, are near-duplicates where their grey levels are the same.

    Of changed copies of 60 images each of chest X-rays, dermoscopies, ultrasound and VQA-RAD, all were found that were
    halved and a JPEG of quality 50, grey, 10 % brighter, of 0.8 times the contrast, with noise of 5 grey levels, or
    cropped by 1 % of their sides. Cropped by 2 %, 65 to 100 % were found, by set; by 5 %, 0 to 15 %; 30 % brighter, 92
    to 98 %; of 1.5 times the contrast, which saturates, 55 to 100 %; turned by one degree, 18 to 100 %. Mirrored
    copies, such as two eyes could be, and ones turned by 90 degrees or inverted, are not found at all.

    Args:
        domain: Its images are loaded through `domain.images`, each once, or not at all where they were hashed before.
        max_distance: Bits of 64 by which two perceptual hashes may differ for the pair to be looked at.
        hashes: False leaves out what needs pixels, and says so under `skipped`.

    Returns:
        A JSON-able mapping. For each of `train-val`, `train-test` and `val-test`: `groups`, `images` (keys) and
        `questions` (the same question on the same image; VQA only, else 0) are what both splits have; `pixels` and
        `near_duplicates` are the images of the later split that have a copy, or a near but not exact copy, in the
        earlier; `near_duplicate_pairs` counts pairs; `questions_on_copies` are the questions of the later split that
        the earlier asks of a copy or a near-duplicate of the image; `examples` has up to five of each kind. Beside
        these: `max_distance`, `flat_images` (without structure), `unreadable` (`{key: reason}`) and, with
        `hashes=False`, `skipped`.
    """
    parts = {split: Part(domain.split(split)) for split in SPLITS}
    out: dict[str, Any] = {"max_distance": max_distance}
    if hashes:
        hashed = hash_images(domain.images, sorted(set().union(*(part.images for part in parts.values()))))
        out["flat_images"], out["unreadable"] = int(hashed.looks.flat.sum()), hashed.unreadable
    else:
        out["skipped"] = SKIPPED
    for first, second in combinations(SPLITS, 2):
        ones, others = parts[first], parts[second]
        found = {
            "groups": in_both("groups", ones.groups, others.groups),
            "images": in_both("images", ones.images, others.images),
            "questions": in_both("questions", ones.questions, others.questions),
        }
        if hashes:
            found |= shared_images(ones, hashed, others, hashed, max_distance, one_source=True)
        examples = [example for _, some in found.values() for example in some]
        out[f"{first}-{second}"] = {kind: count for kind, (count, _) in found.items()} | {"examples": examples}
    return out
