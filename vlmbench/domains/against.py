"""How much two domains overlap: what one trains on and the other tests with, above all."""

from __future__ import annotations

from itertools import product
from typing import Any

from vlmbench.domains.audit import SKIPPED
from vlmbench.domains.base import SPLITS, Domain
from vlmbench.domains.hashing import Hashed, hash_images
from vlmbench.domains.nearest import MAX_DISTANCE
from vlmbench.domains.overlap import EXAMPLES, Found, Part, in_both, shared_images


def audit_against(
    domain: Domain, other: Domain, *, max_distance: int = MAX_DISTANCE, hashes: bool = True
) -> dict[str, Any]:
    """Count what the splits of two domains share, whatever kinds of source their images are in.

    Args:
        domain: One domain.
        other: The other one, whose images are counted.
        max_distance: Bits of 64 by which two perceptual hashes may differ for the pair to be looked at.
        hashes: False leaves out what needs pixels, and says so under `skipped`.

    Returns:
        A JSON-able mapping. `domain` and `against` are the names. For each of the nine pairs of splits, the first of
        `domain` and the second of `other`, such as `train-test`:
        `bytes` (images of the same stored bytes, where both sources are files), `pixels` and `near_duplicates` are
        images of `other` that have such a copy in `domain`; `near_duplicate_pairs` counts pairs; `questions_on_copies`
        are the questions of `other` that `domain` asks of a copy or a near-duplicate of the image; `question_texts`
        counts the texts that both ask of whatever image; `groups` are names of groups that both have, which is a hint
        alone, since the identifiers of two datasets may coincide; `examples` has up to five of each kind.
        Beside these: `max_distance`, and per domain `flat_images` and `unreadable`, or `skipped`.
    """
    sides = [{split: Part(each.split(split)) for split in SPLITS} for each in (domain, other)]
    out: dict[str, Any] = {"domain": domain.name, "against": other.name, "max_distance": max_distance}
    hashed: list[Hashed] = []
    if hashes:
        for each, parts in zip((domain, other), sides, strict=True):
            hashed.append(hash_images(each.images, sorted(set().union(*(part.images for part in parts.values())))))
        out["flat_images"] = [int(one.looks.flat.sum()) for one in hashed]
        out["unreadable"] = [one.unreadable for one in hashed]
    else:
        out["skipped"] = SKIPPED
    for first, second in product(SPLITS, SPLITS):
        ones, others = sides[0][first], sides[1][second]
        found: Found = {
            "groups": in_both("groups", ones.groups, others.groups),
            "question_texts": (len(ones.texts & others.texts), []),
        }
        if hashes:
            found |= _same_bytes(ones, hashed[0], others, hashed[1])
            found |= shared_images(ones, hashed[0], others, hashed[1], max_distance, one_source=False)
        examples = [example for _, some in found.values() for example in some]
        out[f"{first}-{second}"] = {kind: count for kind, (count, _) in found.items()} | {"examples": examples}
    return out


def _same_bytes(first: Part, first_hashed: Hashed, second: Part, second_hashed: Hashed) -> Found:
    if first_hashed.stored is None or second_hashed.stored is None:
        return {"bytes": (0, [])}
    holders = {first_hashed.stored[i]: first_hashed.keys[i] for i in reversed(first.within(first_hashed))}
    pairs = [
        (holders[second_hashed.stored[j]], second_hashed.keys[j])
        for j in second.within(second_hashed)
        if second_hashed.stored[j] in holders
    ]
    return {"bytes": (len(pairs), [{"kind": "bytes", "what": list(pair)} for pair in pairs[:EXAMPLES]])}
