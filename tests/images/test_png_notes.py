"""Tests of the PNGs of records and of kept images, with other readers."""

from __future__ import annotations

import io

import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from beam_pipeline.images import png_notes

IMAGES = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


def assert_is(data: bytes, pixels: np.ndarray) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.verify()  # the checksums of all chunks
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(image), pixels)
    np.testing.assert_array_equal(tf.io.decode_png(data).numpy(), pixels)


@given(pixels=IMAGES)
@settings(deadline=None, max_examples=50)
def test_any_pixels_are_kept(pixels):
    assert_is(png_notes.encode_png(pixels), pixels)


def test_photographs_are_small():
    pixels = np.asarray(Image.fromarray(skimage.data.astronaut()).resize((299, 299)))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    data = png_notes.encode_png(pixels)
    assert_is(data, pixels)
    assert len(data) < 1.15 * len(file.getvalue())


def test_notes_are_texts_directly_after_the_header():
    pixels = np.zeros((3, 5, 3), np.uint8)
    data = png_notes.encode_png(pixels, resize="pad", original=png_notes.note_size((40, 30)))
    assert_is(data, pixels)
    with Image.open(io.BytesIO(data)) as image:
        assert {name: image.info[name] for name in ("resize", "original")} == {
            "resize": "pad",
            "original": "40x30",
        }
    assert data[33 + 4 : 33 + 8] == b"tEXt"
    assert png_notes.read_note(data) == (40, 30)


@pytest.mark.parametrize("note", ["", "0x3", "3x", "axb", "3x4x5"])
def test_what_is_no_size_is_no_note(note):
    data = png_notes.encode_png(np.zeros((3, 5, 3), np.uint8), original=note)
    assert png_notes.read_note(data) is None
