"""Tests of the perceptual hash."""

from __future__ import annotations

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image

from beam_pipeline.images import near_duplicates
from beam_pipeline.images.perceptual_hash import HASH_BYTES, compute_hash

PHOTOGRAPH = skimage.data.astronaut()


def distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def test_versions_of_a_photograph_have_similar_hashes():
    original = compute_hash(PHOTOGRAPH)
    assert len(original.pdq) == HASH_BYTES and original.quality >= near_duplicates.MIN_QUALITY
    file = io.BytesIO()
    Image.fromarray(PHOTOGRAPH).resize((300, 300)).save(file, "JPEG", quality=50)
    copy = compute_hash(np.asarray(Image.open(file)))
    other = compute_hash(skimage.data.coffee())
    assert distance(original.pdq, copy.pdq) <= near_duplicates.MAX_DISTANCE
    assert distance(original.pdq, other.pdq) > 2 * near_duplicates.MAX_DISTANCE


def test_a_large_image_has_the_hash_of_a_small_one():
    large = np.asarray(Image.fromarray(PHOTOGRAPH).resize((1800, 1800)))
    assert distance(compute_hash(large).pdq, compute_hash(PHOTOGRAPH).pdq) <= 8


@pytest.mark.parametrize("size", [(1, 1), (1, 299), (299, 1), (3, 200), (64, 64), (700, 20)])
def test_an_image_without_structure_has_no_quality(size):
    assert compute_hash(np.full((*size, 3), 200, np.uint8)).quality == 0


def test_a_view_has_the_hash_of_its_copy():
    view = PHOTOGRAPH[10:300, 20:250]
    assert compute_hash(view) == compute_hash(view.copy())
