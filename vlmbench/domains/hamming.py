"""Pairs of 64-bit hashes that differ in few bits, without comparing all with all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 20  # candidates at a time

Indices = NDArray[np.int64]


def close_hashes(
    ones: NDArray[np.uint64], others: NDArray[np.uint64], max_distance: int
) -> Iterator[tuple[Indices, Indices]]:
    """Find the pairs of two lists of distinct hashes that differ in few bits, each pair once.

    Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing"):
    of m bands of bits, at least one differs in no more than r / m of them, rounded down. With 4 bands and the radius of
    8 that are two flips in the first band and one in the others (section 3.1): 188 look-ups in tables of 65,536 find
    all candidates.

    Args:
        ones: (n,) distinct hashes.
        others: (m,) distinct hashes.
        max_distance: r, in bits, 0 to 64.

    Yields:
        Positions in `ones` and in `others`.
    """
    if not len(ones) or not len(others):
        return
    bands = _bands(max_distance)
    for number, (shift, width, flips) in enumerate(bands):
        low = np.uint64((1 << width) - 1)
        keys = ((ones >> np.uint64(shift)) & low).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        counts = np.bincount(keys, minlength=1 << width)
        starts = np.cumsum(counts) - counts
        asked = ((others >> np.uint64(shift)) & low).astype(np.int64)
        for mask in (sum(bits) for n in range(flips + 1) for bits in combinations([1 << b for b in range(width)], n)):
            wanted = asked ^ mask
            for others_at, position in expand(starts[wanted], counts[wanted]):
                ones_at = order[position]
                differ = ones[ones_at] ^ others[others_at]
                good = np.bitwise_count(differ) <= max_distance
                ones_at, others_at, differ = ones_at[good], others_at[good], differ[good]
                new = np.ones(len(differ), bool)  # a pair belongs to the first band that finds it
                for earlier_shift, earlier_width, earlier_flips in bands[:number]:
                    bits_apart = (differ >> np.uint64(earlier_shift)) & np.uint64((1 << earlier_width) - 1)
                    new &= np.bitwise_count(bits_apart) > earlier_flips
                if new.any():
                    yield ones_at[new], others_at[new]


def _bands(radius: int) -> list[tuple[int, int, int]]:
    """Return first bit, width and flips of each band, such that any two hashes within the radius meet in one."""
    # No band is wider than 16 bits, for its table, and none has more than two flips, for their number.
    count = max(4, radius // 3 + 1)
    edges = [64 * i // count for i in range(count + 1)]
    # With r = m * s + a only the first a + 1 bands need s flips, the others s - 1; with -1 they need not be looked at.
    flips = [radius // count - (i > radius % count) for i in range(count)]
    return [(edges[i], edges[i + 1] - edges[i], flips[i]) for i in range(count) if flips[i] >= 0]


def expand(starts: Indices, counts: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Spell out ranges: yield, in blocks, which range and which position in it."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _BLOCK, side="right")))
        n = counts[first:last]
        which = np.repeat(np.arange(first, last), n)
        within = np.arange(len(which)) - np.repeat(ends[first:last] - n - done, n)
        if len(which):
            yield which, starts[which] + within
        first = last
