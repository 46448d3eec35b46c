"""Near-duplicates among many images: candidates by perceptual hash, each checked on a small grey copy of the image.

pHash alone calls images alike that merely look alike at 8 x 8 frequencies, as radiographs of different patients in the
same view do. So it only proposes: pairs whose hashes differ in few bits are compared on thumbnails of 32 x 32, filtered
to what lies between large shapes, which a standard view shares, and the finest grain, which recompression changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmbench.domains.hamming import Indices, close_hashes, expand

#: Side of a thumbnail in pixels.
SIDE = 32
#: Bits of 64 by which the hashes of two images may differ for the pair to be compared. Copies recompressed as JPEG of
#: quality 50 to 95 and resized by 0.5 to 1.5 differed in at most 6, 99 % of them in at most 4 (3,400 copies of chest
#: X-rays, dermoscopies, ultrasound, VQA-RAD and phantoms of six modalities).
MAX_DISTANCE = 8
#: Least correlation of two filtered thumbnails of near-duplicates. Of the same copies 99 % reached 0.992 in every set;
#: the most alike pairs that were none had 0.985 (phantom radiographs), 0.974 (phantom fundus) and 0.92 (X-rays).
MIN_CORRELATION = 0.99
#: The same after what all images of the sets have in common is taken off, such as the ribs of every radiograph: 0.990,
#: and 0.957, 0.920 and 0.857. This finds the same scene a moment later or with marks drawn on it, too: 99 of the 134
#: pairs that BUSI's images are grouped by, and no other pair.
MIN_OWN_CORRELATION = 0.97
#: Images by which the common part has to be supported: of n images' mean n / (n + 50) is taken off.
_SUPPORT = 50
#: Standard deviation of the filtered thumbnail, in grey levels, below which an image has no structure to compare.
FLAT = 1.0
#: The same below which recompression changes so much of the little structure that grey levels are compared as well.
FAINT = 2.0
#: Root mean square difference of two smoothed thumbnails, in grey levels, up to which faint images are near-duplicates.
#: Where there is structure, images with none of it in common differ by its standard deviation times the root of two.
FAINT_RMS = 0.75
_SIGMAS = (0.8, 2.0)  # of the two Gaussians whose difference is the filter, in pixels of the thumbnail
_ROWS = 1 << 13  # pairs of thumbnails, or thumbnails, at a time
_TILE = 1 << 12  # pairs of images of two hashes, from which on they are compared as a matrix product
_SIDE = 1 << 11  # of a block of such a product

#: Rows of the first and of the second set, and how alike each pair is (1 is the same).
Pairs = tuple[Indices, Indices, NDArray[np.float32]]


@dataclass(frozen=True)
class Looks:
    """What images look like, in a form that is fast to compare; all arrays have a row per image.

    Attributes:
        phashes: (n,) uint64.
        details: (n, 1024) int8, the filtered thumbnail; its scale is arbitrary.
        lengths: (n,) float32, the Euclidean norm of `details`.
        contrast: (n,) float32, the standard deviation of the filtered thumbnail in grey levels.
        thumbs: (n, 1024) uint8, grey.
        total: (1024,) float32, sum of `details / lengths` over the images with structure.
        count: Their number.
    """

    phashes: NDArray[np.uint64]
    details: NDArray[np.int8]
    lengths: NDArray[np.float32]
    contrast: NDArray[np.float32]
    thumbs: NDArray[np.uint8]
    total: NDArray[np.float32]
    count: int

    @property
    def flat(self) -> NDArray[np.bool_]:
        """(n,) bool, without structure."""
        return self.contrast < FLAT

    @classmethod
    def of(cls, phashes: NDArray[np.uint64], thumbs: NDArray[np.uint8]) -> Looks:
        """Filter thumbnails of shape (n, 1024)."""
        n = len(thumbs)
        details = np.empty((n, SIDE * SIDE), np.int8)
        lengths = np.empty(n, np.float32)
        contrast = np.empty(n, np.float32)
        total = np.zeros(SIDE * SIDE, np.float32)
        fine, coarse = (_smoothing(sigma) for sigma in _SIGMAS)
        for start in range(0, n, _ROWS):
            part = slice(start, start + _ROWS)
            grey = thumbs[part].reshape(-1, SIDE, SIDE).astype(np.float32)
            found = (fine @ grey @ fine.T - coarse @ grey @ coarse.T).reshape(len(grey), -1)
            found -= found.mean(axis=1, keepdims=True)
            contrast[part] = found.std(axis=1)
            found *= 127 / np.maximum(np.abs(found).max(axis=1, keepdims=True), 1e-6)
            details[part] = np.rint(found)
            kept = details[part].astype(np.float32)
            lengths[part] = np.maximum(np.linalg.norm(kept, axis=1), 1.0)
            total += (kept / lengths[part, None])[contrast[part] >= FLAT].sum(axis=0)
        return cls(phashes, details, lengths, contrast, thumbs, total, int((contrast >= FLAT).sum()))


def near_pairs(
    first: Looks, second: Looks, ones: Indices, others: Indices, max_distance: int = MAX_DISTANCE
) -> Iterator[Pairs]:
    """Find the pairs of near-duplicates between two sets of images, each pair once, in no particular order.

    Time grows with the number of images and with that of candidates; memory is bounded by the block sizes.

    Args:
        first: The one kind of images; what is common to all of them, and to all of `second`, is taken off.
        second: The other; may be the same.
        ones: The rows of `first` that are compared.
        others: The rows of `second` that they are compared with. A row in both is found to be like itself.
        max_distance: Bits of 64 by which hashes of candidates may differ.

    Yields:
        Blocks of pairs.
    """
    comparison = _Comparison(first, second)
    yield from _structured(comparison, ones[~first.flat[ones]], others[~second.flat[others]], max_distance)
    faint = ones[first.contrast[ones] < FAINT], others[second.contrast[others] < FAINT]
    yield from _faint(comparison, *faint, max_distance)


class _Comparison:
    """Compares images with structure by the correlation of their filtered thumbnails, with and without the common part.

    With unit vectors a and b and the common part m, the product of a - m and b - m is ab - am - bm + mm, so that
    beside ab it takes but one number of each image.
    """

    def __init__(self, first: Looks, second: Looks) -> None:
        self.first, self.second = first, second
        common = (first.total + second.total) / np.float32(first.count + second.count + _SUPPORT)
        self.square = np.float32(common @ common)
        self.shares = [self._share(looks, common) for looks in (first, second)]

    @staticmethod
    def _share(looks: Looks, common: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.empty(len(looks.details), np.float32)
        for start in range(0, len(out), _ROWS):
            part = slice(start, start + _ROWS)
            out[part] = looks.details[part].astype(np.float32) @ common / looks.lengths[part]
        return out

    def pairs(self, rows: Indices, columns: Indices) -> Iterator[Pairs]:
        """Compare each row with the column beside it, and yield those that are near."""
        good, alike = self.near(rows, columns)
        if good.any():
            yield rows[good], columns[good], alike[good]

    def near(self, rows: Indices, columns: Indices) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Tell whether each row and the column beside it are near, and how alike they are."""
        a, b = self.first.details[rows].astype(np.float32), self.second.details[columns].astype(np.float32)
        alike = np.einsum("ij,ij->i", a, b) / (self.first.lengths[rows] * self.second.lengths[columns])
        return self._near(alike, self.shares[0][rows], self.shares[1][columns]), alike

    def all_pairs(self, rows: Indices, columns: Indices) -> Iterator[Pairs]:
        """Compare each row with each column."""
        for start in range(0, len(rows), _SIDE):
            r = rows[start : start + _SIDE]
            a = self.first.details[r].astype(np.float32) / self.first.lengths[r, None]
            for begin in range(0, len(columns), _SIDE):
                c = columns[begin : begin + _SIDE]
                alike = a @ (self.second.details[c].astype(np.float32) / self.second.lengths[c, None]).T
                i, j = np.nonzero(self._near(alike, self.shares[0][r, None], self.shares[1][None, c]))
                if len(i):
                    yield r[i], c[j], alike[i, j]

    def _near(
        self, alike: NDArray[np.float32], share: NDArray[np.float32], other: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        own, other_own = (np.maximum(1 - 2 * each + self.square, 1e-3) for each in (share, other))
        without = (alike - share - other + self.square) / np.sqrt(own * other_own)
        return (alike >= MIN_CORRELATION) | (without >= MIN_OWN_CORRELATION)


def _structured(comparison: _Comparison, ones: Indices, others: Indices, max_distance: int) -> Iterator[Pairs]:
    first, second = comparison.first, comparison.second
    hashes, groups, sizes = _grouped(first.phashes[ones])
    other_hashes, other_groups, other_sizes = _grouped(second.phashes[others])
    starts, other_starts = np.cumsum(sizes) - sizes, np.cumsum(other_sizes) - other_sizes
    for i, j in close_hashes(hashes, other_hashes, max_distance):
        pairs = sizes[i] * other_sizes[j]
        few = pairs < _TILE
        for which, position in expand(np.zeros(int(few.sum()), np.int64), pairs[few]):
            a, b = i[few][which], j[few][which]
            rows = ones[groups[starts[a] + position // other_sizes[b]]]
            columns = others[other_groups[other_starts[b] + position % other_sizes[b]]]
            for start in range(0, len(rows), _ROWS):
                part = slice(start, start + _ROWS)
                yield from comparison.pairs(rows[part], columns[part])
        for a, b in zip(i[~few], j[~few], strict=True):  # many images of the same hash
            rows = ones[groups[starts[a] : starts[a] + sizes[a]]]
            columns = others[other_groups[other_starts[b] : other_starts[b] + other_sizes[b]]]
            yield from comparison.all_pairs(rows, columns)


def _grouped(values: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], Indices, Indices]:
    """Return the distinct values, the positions in order of value, and how many there are of each."""
    distinct, counts = np.unique(values, return_counts=True)
    return distinct, np.argsort(values, kind="stable"), counts


def _faint(comparison: _Comparison, ones: Indices, others: Indices, max_distance: int) -> Iterator[Pairs]:
    """Compare images of little structure by the grey levels themselves, in order of their mean."""
    if not len(ones) or not len(others):
        return
    first, second = comparison.first, comparison.second
    smooth, other_smooth = _smoothed(first.thumbs[ones]), _smoothed(second.thumbs[others])
    means, other_means = smooth.mean(axis=1), other_smooth.mean(axis=1)
    order, other_order = np.argsort(means), np.argsort(other_means)
    for start in range(0, len(ones), _SIDE):
        r = order[start : start + _SIDE]
        low, high = means[r[0]], means[r[-1]]
        a = smooth[r] - low  # near zero, where squares are exact
        begin, end = np.searchsorted(other_means[other_order], [low - FAINT_RMS - 0.01, high + FAINT_RMS + 0.01])
        for at in range(begin, end, _SIDE):
            c = other_order[at : min(at + _SIDE, end)]
            b = other_smooth[c] - low
            squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2 * (a @ b.T)
            rms = np.sqrt(np.maximum(squares, 0) / a.shape[1])
            i, j = np.nonzero(rms <= FAINT_RMS)
            rows, columns, alike = ones[r[i]], others[c[j]], 1 - rms[i, j] / np.float32(255)
            new = ~_found_by_structure(comparison, rows, columns, max_distance)
            if new.any():
                yield rows[new], columns[new], alike[new]


def _found_by_structure(
    comparison: _Comparison, rows: Indices, columns: Indices, max_distance: int
) -> NDArray[np.bool_]:
    first, second = comparison.first, comparison.second
    found = np.bitwise_count(first.phashes[rows] ^ second.phashes[columns]) <= max_distance
    found &= ~first.flat[rows] & ~second.flat[columns]
    left = np.flatnonzero(found)
    for start in range(0, len(left), _ROWS):
        part = left[start : start + _ROWS]
        found[part] = comparison.near(rows[part], columns[part])[0]
    return found


def _smoothed(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    fine = _smoothing(_SIGMAS[0])
    out = np.empty(thumbs.shape, np.float32)
    for start in range(0, len(thumbs), _ROWS):
        grey = thumbs[start : start + _ROWS].reshape(-1, SIDE, SIDE).astype(np.float32)
        out[start : start + _ROWS] = (fine @ grey @ fine.T).reshape(len(grey), -1)
    return out


def _smoothing(sigma: float) -> NDArray[np.float32]:
    """Return the (32, 32) matrix that smooths along one axis with a Gaussian, the edge pixels going on outside."""
    reach = np.arange(-4 * SIDE, 5 * SIDE)
    weights = np.exp(-0.5 * ((np.arange(SIDE)[:, None] - reach[None, :]) / sigma) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((SIDE, SIDE))
    np.add.at(matrix.T, np.clip(reach, 0, SIDE - 1), weights.T)
    return matrix.astype(np.float32)
