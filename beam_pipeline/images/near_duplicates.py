"""Finds pairs of similar perceptual hashes among many, and joins them to clusters. Pure.

Hashes are compared if they agree in one of `BANDS` bands of `BAND_BITS` bits. Each band is a random
choice of bits, because PDQ's bits do not change independently; 12 bands cover nearly all bits once.
Two hashes at the distance d agree in a band of b of 256 bits with probability
C(256 - b, d) / C(256, d): at the distance 31, 0.075 in one band and 0.99 in one of 64. Photographs
do better, because their distances are mostly smaller: `tests/images/test_near_duplicates.py`.

14 million hashes fill the 2**20 buckets of a band with 13 each, and take 4 GB of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

# ThreatExchange's recommendation for PDQ: https://github.com/facebook/ThreatExchange.
MAX_DISTANCE, MIN_QUALITY = 31, 50

BANDS, BAND_BITS = 64, 20
# A hash is compared with at most so many others of its bucket, the next ones.
MAX_NEIGHBOURS = 1_000
_CHUNK = 1 << 16  # rows compared at a time
_DENSE = 16  # neighbours that are all similar, after which a row is compared no further
_MAX_PAIRS = 1 << 22  # pairs held before they are joined


class Forest(NamedTuple):
    """Clusters of some of N rows: each row of a cluster but the first, and that first row.

    Attributes:
      rows, roots: int64 (M,), `roots[i] < rows[i]`.
      capped: Number of rows that were not compared with their complete bucket.
    """

    rows: np.ndarray
    roots: np.ndarray
    capped: int = 0


EMPTY = Forest(np.empty(0, np.int64), np.empty(0, np.int64))


def find_similar(hashes: np.ndarray, bands: Sequence[int]) -> Forest:
    """Join the hashes that some of the bands find to be similar, and equal ones.

    Args:
      hashes: uint8 (N, 32).
      bands: Indices of bands, from 0 to `BANDS - 1`.
    """
    representatives, equal = _join_equal(hashes)
    distinct = np.ascontiguousarray(hashes[representatives]).view(np.uint64)
    forests, capped = [equal], np.zeros(len(distinct), bool)
    for band in bands:
        found, is_capped = _compare_band(distinct, band_bits(band))
        capped |= is_capped
        forests.append(Forest(representatives[found.rows], representatives[found.roots]))
    return join(forests)._replace(capped=int(capped.sum()))


def join(forests: Iterable[Forest]) -> Forest:
    """Join clusters that have a row in common.

    The order of the two rows of a pair may be any.
    """
    # Their import would take a third of a second of every command.
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    forests = list(forests)
    pairs = [np.concatenate([forest[side] for forest in forests]) for side in (0, 1)]
    if not len(pairs[0]):
        return EMPTY._replace(capped=max((forest.capped for forest in forests), default=0))
    used, indices = np.unique(np.concatenate(pairs), return_inverse=True)
    ones = np.ones(len(pairs[0]), np.int8)
    graph = coo_matrix((ones, np.split(indices, 2)), shape=(len(used), len(used)))
    labels = connected_components(graph, directed=False)[1]
    # Labels ascend with the first row of each cluster, as `used` does.
    first = np.unique(labels, return_index=True)[1]
    roots = used[first[labels]]
    is_child = used != roots
    capped = max(forest.capped for forest in forests)
    return Forest(used[is_child], roots[is_child], capped)


def band_bits(band: int) -> np.ndarray:
    """Return the indices of the bits of a band, int (BAND_BITS,)."""
    per_permutation = 256 // BAND_BITS
    permutation = np.random.default_rng(band // per_permutation).permutation(256)
    start = band % per_permutation * BAND_BITS
    return permutation[start : start + BAND_BITS]


def _join_equal(hashes: np.ndarray) -> tuple[np.ndarray, Forest]:
    """Return the first row of each distinct hash, and the others as a forest.

    Many equal hashes, such as those of a placeholder, would make the number of pairs quadratic.
    """
    _, first, inverse = np.unique(_digest(hashes), return_index=True, return_inverse=True)
    roots = first[inverse]
    # A collision of digests leaves a hash in its bucket.
    is_equal = (hashes == hashes[roots]).all(axis=1) if len(hashes) else np.empty(0, bool)
    rows = np.arange(len(hashes))
    is_copy = is_equal & (roots != rows)
    return rows[~is_copy], Forest(rows[is_copy], roots[is_copy])


def _digest(hashes: np.ndarray) -> np.ndarray:
    """Return a digest of each hash, uint64 (N,)."""
    words = np.ascontiguousarray(hashes).view(np.uint64)
    digest = np.zeros(len(hashes), np.uint64)
    for column in range(words.shape[1]):
        digest = (digest ^ words[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        digest ^= digest >> np.uint64(29)
    return digest


def _compare_band(words: np.ndarray, bits: np.ndarray) -> tuple[Forest, np.ndarray]:
    """Join the similar rows that agree in some bits.

    Args:
      words: uint64 (N, 4).
      bits: Indices of the bits.

    Returns:
      The clusters, and which rows the cap affected, bool (N,).
    """
    octets = words.view(np.uint8)
    keys = np.zeros(len(words), np.uint32)
    for bit in bits:
        keys = keys << 1 | octets[:, bit // 8] >> (7 - bit % 8) & 1
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    # The end of the bucket of each row.
    ends = np.searchsorted(keys, keys, side="right")
    capped = np.zeros(len(words), bool)
    capped[order] = ends - np.arange(len(words)) > MAX_NEIGHBOURS + 1
    pairs, size, limit = [EMPTY], 0, _MAX_PAIRS
    for start in range(0, len(words), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(words)))
        # Rows with a neighbour that is not similar. The next ones of a row whose first neighbours
        # are all similar are in its cluster, by way of these.
        is_mixed = np.zeros(len(rows), bool)
        for step in range(1, MAX_NEIGHBOURS + 1):
            goes_on = (rows + step < ends[rows]) & (is_mixed | (step <= _DENSE))
            rows, is_mixed = rows[goes_on], is_mixed[goes_on]
            if not len(rows):
                break
            one, other = order[rows], order[rows + step]
            distances = np.bitwise_count(words[one] ^ words[other]).sum(axis=1)
            near = distances <= MAX_DISTANCE
            is_mixed |= ~near
            pairs.append(Forest(one[near], other[near]))
            size += len(pairs[-1].rows)
            # Among many images that are nearly equal, each is similar to a thousand others.
            if size > limit:
                pairs = [join(pairs)]
                size = len(pairs[0].rows)
                limit = _MAX_PAIRS + 2 * size
    return join(pairs), capped
