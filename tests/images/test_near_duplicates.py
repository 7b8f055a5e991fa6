"""Tests of finding similar hashes, against the comparison of all pairs."""

from __future__ import annotations

import io

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from beam_pipeline.images import near_duplicates
from beam_pipeline.images.near_duplicates import (
    BAND_BITS,
    BANDS,
    EMPTY,
    MAX_DISTANCE,
    Forest,
    band_bits,
    find_similar,
    join,
)
from beam_pipeline.images.perceptual_hash import compute_hash


def make_hashes(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, 32), np.uint8)


def flip(hashes: np.ndarray, bits: int, seed: int = 0) -> np.ndarray:
    """Return hashes at a distance from the given ones."""
    rng, flipped = np.random.default_rng(seed), np.unpackbits(hashes, axis=1)
    for row in flipped:
        row[rng.choice(256, bits, replace=False)] ^= 1
    return np.packbits(flipped, axis=1)


def labels_of(forest: Forest, number: int) -> np.ndarray:
    labels = np.arange(number)
    labels[forest.rows] = forest.roots
    return labels


def near_pairs(hashes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return all pairs at a distance of at most `MAX_DISTANCE`, by comparing all."""
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=-1)
    return np.nonzero(np.triu(distances <= MAX_DISTANCE, 1))


def vary(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Return a version of a photograph: cut, resized, brighter or darker, and compressed."""
    width, height = image.size
    left, top, right, bottom = rng.uniform(0, 0.025, 4) * [width, height, width, height]
    image = image.crop((int(left), int(top), int(width - right), int(height - bottom)))
    scale = rng.uniform(0.5, 1)
    image = image.resize((round(image.width * scale), round(image.height * scale)))
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.9, 1.1))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(40, 96)))
    return np.asarray(Image.open(file))


@pytest.fixture(scope="module")
def photographs() -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of versions of parts of photographs, and the part of each."""
    rng = np.random.default_rng(0)
    hashes: list[np.ndarray] = []
    parts: list[int] = []
    for name in ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry"):
        photograph = Image.fromarray(getattr(skimage.data, name)())
        for _ in range(4):
            left, top = (int(rng.integers(0, side - 199)) for side in photograph.size)
            part = photograph.crop((left, top, left + 200, top + 200))
            for _ in range(6):
                hashes.append(np.frombuffer(compute_hash(vary(part, rng)).pdq, np.uint8))
                parts.append(len(parts) // 6)
    return np.array(hashes), np.array(parts)


def test_similar_photographs_are_found(photographs):
    hashes, parts = photographs
    one, other = near_pairs(hashes)
    assert len(one) > 100
    labels = labels_of(find_similar(hashes, range(BANDS)), len(hashes))
    assert (labels[one] == labels[other]).mean() >= 0.98
    # No two images that are not similar, even over others, are in one cluster.
    for label in np.unique(labels):
        assert len(np.unique(parts[labels == label])) == 1


@pytest.mark.parametrize(("distance", "recall"), [(0, 1), (1, 1), (16, 1), (24, 0.99), (31, 0.97)])
def test_recall_of_random_changes(distance, recall):
    """PDQ's bits change together; independent changes are the worst case."""
    hashes = make_hashes(400)
    both = np.concatenate([hashes, flip(hashes, distance)])
    labels = labels_of(find_similar(both, range(BANDS)), len(both))
    assert (labels[:400] == labels[400:]).mean() >= recall
    # Random hashes differ in about 128 bits.
    assert len(np.unique(labels[:400])) == 400


def test_farther_hashes_are_not_joined():
    hashes = make_hashes(200)
    both = np.concatenate([hashes, flip(hashes, MAX_DISTANCE + 1)])
    assert len(find_similar(both, range(BANDS)).rows) == 0


@pytest.mark.parametrize("number", [0, 1, 2])
def test_few_hashes(number):
    forest = find_similar(make_hashes(number), range(4))
    assert (len(forest.rows), len(forest.roots), forest.capped) == (0, 0, 0)


def test_many_equal_hashes_are_one_cluster_at_no_cost():
    hashes = np.repeat(make_hashes(2), 50_000, axis=0)
    forest = find_similar(hashes, range(2))
    labels = labels_of(forest, len(hashes))
    assert (labels[:50_000] == 0).all() and (labels[50_000:] == 50_000).all()
    assert forest.capped == 0


def test_a_crowded_bucket_is_compared_in_part(monkeypatch):
    """Hashes that agree in a band but are not similar would take quadratic time."""
    monkeypatch.setattr(near_duplicates, "MAX_NEIGHBOURS", 5)
    hashes = make_hashes(200)
    bits = np.unpackbits(hashes, axis=1)
    bits[:, band_bits(0)] = 0
    forest = find_similar(np.packbits(bits, axis=1), [0])
    assert forest.capped == 200 - 6 and len(forest.rows) == 0
    assert find_similar(hashes, [0]).capped == 0


def test_many_nearly_equal_hashes_are_one_cluster_in_little_memory(monkeypatch):
    """Each is similar to a thousand others of its bucket."""
    monkeypatch.setattr(near_duplicates, "_DENSE", near_duplicates.MAX_NEIGHBOURS)
    hashes = flip(np.repeat(make_hashes(1), 3_000, axis=0), 3)
    expected = find_similar(hashes, range(2))
    monkeypatch.setattr(near_duplicates, "_MAX_PAIRS", 1_000)
    held = []
    join_pairs = near_duplicates.join

    def join_and_note(forests):
        held.append(sum(len(forest.rows) for forest in forests))
        return join_pairs(forests)

    monkeypatch.setattr(near_duplicates, "join", join_and_note)
    found = find_similar(hashes, range(2))
    np.testing.assert_array_equal(labels_of(found, 3_000), labels_of(expected, 3_000))
    assert len(found.rows) > 2_900
    # Twice the rows, the limit, and the pairs of one step.
    assert max(held) <= 1_000 + 3 * 3_000


def test_many_nearly_equal_hashes_need_few_comparisons():
    """100,000 rows would be compared a hundred million times."""
    hashes = np.repeat(make_hashes(1), 100_000, axis=0)
    hashes[:, :4] ^= np.arange(100_000, dtype=np.uint32)[:, None].view(np.uint8)
    forest = find_similar(hashes, range(3))
    assert len(forest.rows) == 99_999 and not forest.roots.any()


def test_bands_are_distinct_bits_and_cover_the_hash():
    bands = [band_bits(band) for band in range(BANDS)]
    assert all(len(np.unique(bits)) == BAND_BITS for bits in bands)
    assert {int(bit) for bits in bands for bit in bits} == set(range(256))
    assert len({tuple(sorted(bits.tolist())) for bits in bands}) == BANDS


def test_tasks_find_together_what_one_finds():
    hashes = make_hashes(300)
    both = np.concatenate([hashes, flip(hashes, 20), flip(hashes, 28, seed=1)])
    whole = find_similar(both, range(BANDS))
    tasks = [find_similar(both, list(range(BANDS))[task::8]) for task in range(8)]
    joined = join(tasks)
    assert (labels_of(joined, 900) == labels_of(whole, 900)).all()


@given(pairs=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30))
@settings(deadline=None)
def test_clusters_are_the_connected_components(pairs):
    parent = list(range(31))

    def find(row: int) -> int:
        return row if parent[row] == row else find(parent[row])

    for one, other in pairs:
        low, high = sorted((find(one), find(other)))
        parent[high] = low
    columns = np.array(pairs, np.int64).reshape(-1, 2).T
    forests = [Forest(*columns[:, ::2]), Forest(*columns[:, 1::2]), EMPTY]
    forest = join(forests)
    assert labels_of(forest, 31).tolist() == [find(row) for row in range(31)]
    assert (forest.roots < forest.rows).all()
