"""What two sets of examples share: groups, images, pixels, near-duplicates, questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from itertools import product
from typing import Any

import numpy as np

from vlmbench.domains.base import Example
from vlmbench.domains.hamming import Indices
from vlmbench.domains.hashing import Hashed
from vlmbench.domains.nearest import near_pairs

#: Of each kind of overlap, so that a record stays small.
EXAMPLES = 5

#: By kind of overlap, the count and a few examples.
Found = dict[str, tuple[int, list[dict[str, Any]]]]


@dataclass(frozen=True)
class Part:
    """The examples of one split."""

    rows: Sequence[Example]

    @cached_property
    def groups(self) -> set[str]:
        """Groups, such as patients."""
        return {row.group for row in self.rows}

    @cached_property
    def images(self) -> set[str]:
        """Keys of images."""
        return {row.image for row in self.rows}

    @cached_property
    def asked(self) -> Mapping[str, set[str]]:
        """By image, the questions about it, without case and spacing."""
        asked: dict[str, set[str]] = defaultdict(set)
        for row in self.rows:
            if row.question:
                asked[row.image].add(" ".join(row.question.lower().split()))
        return asked

    @cached_property
    def questions(self) -> set[tuple[str, str]]:
        """Pairs of image and question."""
        return {(image, question) for image, questions in self.asked.items() for question in questions}

    @cached_property
    def texts(self) -> set[str]:
        """Questions, whatever the image."""
        return set().union(*self.asked.values())

    def within(self, hashed: Hashed) -> Indices:
        """Return the rows of `hashed` that hold this part's readable images."""
        return np.array([i for i, key in enumerate(hashed.keys) if key in self.images], dtype=np.int64)


def in_both(kind: str, ones: set[Any], others: set[Any]) -> tuple[int, list[dict[str, Any]]]:
    """Return how much two sets have in common, and the first few of it."""
    both = ones & others if len(ones) < len(others) else others & ones
    few = sorted(both)[:EXAMPLES]
    return len(both), [{"kind": kind, "what": list(item) if isinstance(item, tuple) else item} for item in few]


def shared_images(
    first: Part, first_hashed: Hashed, second: Part, second_hashed: Hashed, max_distance: int, *, one_source: bool
) -> Found:
    """Compare the pixels of two parts.

    Args:
        first: One part.
        first_hashed: Its images, and perhaps others.
        second: The other part, whose images are counted.
        second_hashed: Its images, and perhaps others.
        max_distance: For `nearest.near_pairs`.
        one_source: Whether equal keys mean the same image. It is not spoken of as a copy then.

    Returns:
        `pixels` and `near_duplicates`, the images of `second` that have an exact copy, or a near but not exact one, in
        `first`; `near_duplicate_pairs`; `questions_on_copies`, the pairs of image and question in `second` for which
        `first` asks the same on a copy of the image.
    """
    ones, others = first.within(first_hashed), second.within(second_hashed)
    asked = _Asked(first, second)
    held, copies_of = _by_pixels(first_hashed, ones), _by_pixels(second_hashed, others)
    copied = 0
    copies: list[tuple[str, str]] = []
    for j in others:
        key, same = second_hashed.keys[j], held.get(second_hashed.pixels[j], [])
        copied += bool(same)
        if asked.any or len(copies) < EXAMPLES:
            unlike = [one for one in same if one != key] if one_source else same
            copies += [(one, key) for one in unlike[:1]]
            asked.compare((one, key) for one in unlike)
    # Of images with the same pixels one is compared for all.
    ones, weights = _distinct(first_hashed, ones)
    others, other_weights = _distinct(second_hashed, others)
    near = np.zeros(len(second_hashed.keys), bool)
    pairs = 0
    best: list[tuple[float, int, int]] = []
    for i, j, alike in near_pairs(first_hashed.looks, second_hashed.looks, ones, others, max_distance):
        # Exact copies are not near-duplicates, they are counted already.
        unequal = first_hashed.pixels[i] != second_hashed.pixels[j]
        i, j, alike = i[unequal], j[unequal], alike[unequal]
        pairs += int(weights[i] @ other_weights[j])
        near[j] = True
        most = np.argsort(-alike, kind="stable")[:EXAMPLES]
        best = nlargest(EXAMPLES, best + [(float(alike[k]), -int(i[k]), -int(j[k])) for k in most])
        if asked.any:
            for a, b in zip(i, j, strict=True):
                asked.compare(product(held[first_hashed.pixels[a]], copies_of[second_hashed.pixels[b]]))
    shown = [
        {
            "kind": "near_duplicates",
            "what": [first_hashed.keys[-i], second_hashed.keys[-j]],
            "distance": int(np.bitwise_count(first_hashed.looks.phashes[-i] ^ second_hashed.looks.phashes[-j])),
            "alike": round(alike, 4),
        }
        for alike, i, j in best
    ]
    return {
        "pixels": (copied, [{"kind": "pixels", "what": list(pair)} for pair in copies[:EXAMPLES]]),
        "near_duplicates": (int(other_weights[near].sum()), shown),
        "near_duplicate_pairs": (pairs, []),
        "questions_on_copies": (len(asked.found), asked.examples),
    }


def _by_pixels(hashed: Hashed, rows: Indices) -> dict[bytes, list[str]]:
    """Return the keys of some images by their pixels."""
    keys: dict[bytes, list[str]] = defaultdict(list)
    for row in rows:
        keys[hashed.pixels[row]].append(hashed.keys[row])
    return dict(keys)


def _distinct(hashed: Hashed, rows: Indices) -> tuple[Indices, Indices]:
    """Return one row for all that have the same pixels, and for each image of `hashed` how many it then stands for."""
    _, first, counts = np.unique(hashed.pixels[rows], return_index=True, return_counts=True)
    weights = np.zeros(len(hashed.keys), np.int64)
    weights[rows[first]] = counts
    return rows[first], weights


class _Asked:
    """The questions that two parts ask of copies of an image."""

    def __init__(self, first: Part, second: Part) -> None:
        self.first, self.second = first.asked, second.asked
        self.any = bool(self.first and self.second)
        self.found: set[tuple[str, str]] = set()
        self.examples: list[dict[str, Any]] = []

    def compare(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Note the questions that both ask, given pairs of an image of the first and its copy in the second."""
        if not self.any:
            return
        for one, other in pairs:
            for question in sorted(self.first.get(one, set()) & self.second.get(other, set())):
                if (other, question) not in self.found:
                    self.found.add((other, question))
                    if len(self.examples) < EXAMPLES:
                        self.examples.append({"kind": "questions_on_copies", "what": [one, other, question]})
