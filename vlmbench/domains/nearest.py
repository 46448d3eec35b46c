"""Near-duplicates among many images: candidates by perceptual hash, each checked on a small grey copy of the image.

pHash alone calls images alike that merely look alike at 8 x 8 frequencies, as radiographs of different patients in the
same view do. So it only proposes: pairs whose hashes differ in few bits are compared on thumbnails of 32 x 32, filtered
to what lies between large shapes, which a standard view shares, and the finest grain, which recompression changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

#: Side of a thumbnail in pixels.
SIDE = 32
#: Bits of 64 by which the hashes of two images may differ for the pair to be compared. Copies recompressed as JPEG of
#: quality 50 to 95 and resized by 0.5 to 1.5 differed in at most 6, 99 % of them in at most 4 (3,400 copies of chest
#: X-rays, dermoscopies, ultrasound, VQA-RAD and phantoms of six modalities).
MAX_DISTANCE = 8
#: Least correlation of two filtered thumbnails of near-duplicates. Of the same copies 99 % reached 0.992 in every set;
#: the most alike pairs that were none had 0.984 (phantom radiographs), 0.980 (phantom fundus) and 0.93 (X-rays).
MIN_CORRELATION = 0.988
#: Standard deviation of the filtered thumbnail, in grey levels, below which an image has no structure to compare.
FLAT = 1.0
#: Root mean square difference of two thumbnails, in grey levels, up to which images without structure are the same.
FLAT_RMS = 0.75
_SIGMAS = (0.8, 2.0)  # of the two Gaussians whose difference is the filter, in pixels of the thumbnail
_BLOCK = 1 << 20  # candidates at a time
_ROWS = 1 << 13  # pairs of thumbnails, or thumbnails, at a time
_TILE = 1 << 12  # pairs of two images' groups from which on they are compared as a matrix product

Indices = NDArray[np.int64]
#: Positions in the first and the second set, and how alike each pair is (1 is the same).
Pairs = tuple[Indices, Indices, NDArray[np.float32]]


@dataclass(frozen=True)
class Looks:
    """What images look like, in a form that is fast to compare; all arrays have a row per image.

    Attributes:
        phashes: (n,) uint64.
        details: (n, 1024) int8, the filtered thumbnail; its scale is arbitrary.
        lengths: (n,) float32, the Euclidean norm of `details`.
        flat: (n,) bool, without structure.
        thumbs: (n, 1024) uint8, grey.
    """

    phashes: NDArray[np.uint64]
    details: NDArray[np.int8]
    lengths: NDArray[np.float32]
    flat: NDArray[np.bool_]
    thumbs: NDArray[np.uint8]

    @classmethod
    def of(cls, phashes: NDArray[np.uint64], thumbs: NDArray[np.uint8]) -> Looks:
        """Filter thumbnails of shape (n, 1024)."""
        n = len(thumbs)
        details = np.empty((n, SIDE * SIDE), np.int8)
        lengths = np.empty(n, np.float32)
        flat = np.empty(n, bool)
        fine, coarse = (_smoothing(sigma) for sigma in _SIGMAS)
        for start in range(0, n, _ROWS):
            part = slice(start, start + _ROWS)
            grey = thumbs[part].reshape(-1, SIDE, SIDE).astype(np.float32)
            found = (fine @ grey @ fine.T - coarse @ grey @ coarse.T).reshape(len(grey), -1)
            found -= found.mean(axis=1, keepdims=True)
            flat[part] = found.std(axis=1) < FLAT
            found *= 127 / np.maximum(np.abs(found).max(axis=1, keepdims=True), 1e-6)
            details[part] = np.rint(found)
            lengths[part] = np.linalg.norm(details[part].astype(np.float32), axis=1)
        return cls(phashes, details, np.maximum(lengths, 1.0), flat, thumbs)

    def take(self, rows: Indices) -> Looks:
        """Return some of the images."""
        return Looks(
            self.phashes[rows], self.details[rows], self.lengths[rows], self.flat[rows], self.thumbs[rows]
        )


def near_pairs(first: Looks, second: Looks, max_distance: int = MAX_DISTANCE) -> Iterator[Pairs]:
    """Find the pairs of near-duplicates between two sets of images, each pair once, in no particular order.

    Time grows with the number of images and with that of candidates; memory is bounded by the block sizes.

    Args:
        first: One set.
        second: The other; may be the same one, then every image is found to be like itself and pairs come both ways.
        max_distance: Bits of 64 by which hashes of candidates may differ.

    Yields:
        Blocks of pairs.
    """
    rows = [(np.flatnonzero(~looks.flat), np.flatnonzero(looks.flat)) for looks in (first, second)]
    yield from _structured(first, second, rows[0][0], rows[1][0], max_distance)
    yield from _flat(first, second, rows[0][1], rows[1][1])


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
            for others_at, position in _expand(starts[wanted], counts[wanted]):
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
    count = max(4, radius // 3 + 1)  # no band wider than 16 bits, for its table; no more than two flips, for their number
    edges = [64 * i // count for i in range(count + 1)]
    # With r = m * s + a only the first a + 1 bands need s flips, the others s - 1; with -1 they need not be looked at.
    flips = [radius // count - (i > radius % count) for i in range(count)]
    return [(edges[i], edges[i + 1] - edges[i], flips[i]) for i in range(count) if flips[i] >= 0]


def _expand(starts: Indices, counts: Indices) -> Iterator[tuple[Indices, Indices]]:
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


def _structured(first: Looks, second: Looks, ones: Indices, others: Indices, max_distance: int) -> Iterator[Pairs]:
    hashes, groups, sizes = _grouped(first.phashes[ones])
    other_hashes, other_groups, other_sizes = _grouped(second.phashes[others])
    starts, other_starts = np.cumsum(sizes) - sizes, np.cumsum(other_sizes) - other_sizes
    for i, j in close_hashes(hashes, other_hashes, max_distance):
        pairs = sizes[i] * other_sizes[j]
        few = pairs < _TILE
        for which, position in _expand(np.zeros(int(few.sum()), np.int64), pairs[few]):
            a, b = i[few][which], j[few][which]
            rows = ones[groups[starts[a] + position // other_sizes[b]]]
            columns = others[other_groups[other_starts[b] + position % other_sizes[b]]]
            for start in range(0, len(rows), _ROWS):
                part = slice(start, start + _ROWS)
                yield from _checked(first, second, rows[part], columns[part])
        for a, b in zip(i[~few], j[~few], strict=True):  # many images of the same hash
            rows = ones[groups[starts[a] : starts[a] + sizes[a]]]
            columns = others[other_groups[other_starts[b] : other_starts[b] + other_sizes[b]]]
            yield from _tiles(first, second, rows, columns)


def _grouped(values: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], Indices, Indices]:
    """Return the distinct values, the positions in order of value, and how many there are of each."""
    distinct, counts = np.unique(values, return_counts=True)
    return distinct, np.argsort(values, kind="stable"), counts


def _checked(first: Looks, second: Looks, rows: Indices, columns: Indices) -> Iterator[Pairs]:
    a, b = first.details[rows].astype(np.float32), second.details[columns].astype(np.float32)
    alike = np.einsum("ij,ij->i", a, b) / (first.lengths[rows] * second.lengths[columns])
    good = alike >= MIN_CORRELATION
    if good.any():
        yield rows[good], columns[good], alike[good]


def _tiles(first: Looks, second: Looks, rows: Indices, columns: Indices) -> Iterator[Pairs]:
    side = 2048
    for start in range(0, len(rows), side):
        r = rows[start : start + side]
        a = first.details[r].astype(np.float32) / first.lengths[r, None]
        for begin in range(0, len(columns), side):
            c = columns[begin : begin + side]
            alike = a @ (second.details[c].astype(np.float32) / second.lengths[c, None]).T
            i, j = np.nonzero(alike >= MIN_CORRELATION)
            if len(i):
                yield r[i], c[j], alike[i, j]


def _flat(first: Looks, second: Looks, ones: Indices, others: Indices) -> Iterator[Pairs]:
    """Compare images without structure by the grey levels themselves, in order of their mean."""
    if not len(ones) or not len(others):
        return
    means, other_means = first.thumbs[ones].mean(axis=1), second.thumbs[others].mean(axis=1)
    ones, means = ones[np.argsort(means)], np.sort(means)
    others, other_means = others[np.argsort(other_means)], np.sort(other_means)
    side = 1024
    for start in range(0, len(ones), side):
        r = ones[start : start + side]
        a = first.thumbs[r].astype(np.float32)
        low, high = means[start], means[min(start + side, len(ones)) - 1]
        begin, end = np.searchsorted(other_means, [low - FLAT_RMS, high + FLAT_RMS], side="left")
        for at in range(int(begin), int(end) + 1, side):
            c = others[at : min(at + side, int(end) + 1)]
            b = second.thumbs[c].astype(np.float32)
            squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2 * (a @ b.T)
            rms = np.sqrt(np.maximum(squares, 0) / a.shape[1])
            i, j = np.nonzero(rms <= FLAT_RMS)
            if len(i):
                yield r[i], c[j], np.float32(1) - rms[i, j] / np.float32(255)


def _smoothing(sigma: float) -> NDArray[np.float32]:
    """Return the (32, 32) matrix that smooths along one axis with a Gaussian, the edge pixels going on outside."""
    reach = np.arange(-4 * SIDE, 5 * SIDE)
    weights = np.exp(-0.5 * ((np.arange(SIDE)[:, None] - reach[None, :]) / sigma) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((SIDE, SIDE))
    np.add.at(matrix.T, np.clip(reach, 0, SIDE - 1), weights.T)
    return matrix.astype(np.float32)
