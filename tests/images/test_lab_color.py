"""Tests of Lab against scikit-image in double precision, and of the scalings in records."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage import color as reference

from beam_pipeline.images import lab_color

LEVELS = np.append(np.arange(0, 255, 15), 255).astype(np.uint8)
# All colours of 18 levels per channel, including the corners of the cube.
COLORS = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS, indexing="ij"), axis=-1).reshape(
    18, 18 * 18, 3
)
IMAGES = arrays.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)))


def exact_lab(pixels: np.ndarray) -> np.ndarray:
    return reference.rgb2lab(pixels.astype(np.float64) / 255)


# The second levels cover the linear part near black.
@pytest.mark.parametrize("levels", [LEVELS, np.arange(18, dtype=np.uint8)])
def test_lab_is_that_of_scikit_image(levels):
    colors = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(
        len(levels), -1, 3
    )
    lab = lab_color.rgb_to_lab(colors)
    assert (lab.dtype, lab.shape) == (np.float32, colors.shape)
    np.testing.assert_allclose(lab, exact_lab(colors), rtol=0, atol=2e-4)


def test_lab_of_an_image_that_is_converted_in_several_blocks():
    pixels = np.random.default_rng(0).integers(0, 256, (210, 199, 3), np.uint8)
    assert pixels.size // 3 > 2 * lab_color._BLOCK
    np.testing.assert_allclose(lab_color.rgb_to_lab(pixels), exact_lab(pixels), rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        # http://www.brucelindbloom.com, sRGB, D65.
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_lab_of_well_known_colors(rgb, lab):
    np.testing.assert_allclose(
        lab_color.rgb_to_lab(np.array([[rgb]], np.uint8))[0, 0], lab, rtol=0, atol=0.02
    )


def test_every_grey_is_neutral():
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=-1)
    lab = lab_color.rgb_to_lab(greys)
    assert np.abs(lab[..., 1:]).max() < 0.02
    assert (np.diff(lab[0, :, 0]) > 0).all()


def test_lab_stays_in_its_documented_range():
    lab = lab_color.rgb_to_lab(COLORS)
    assert lab[..., 0].min() == pytest.approx(0, abs=1e-3)
    assert lab[..., 0].max() == pytest.approx(100, abs=1e-3)
    assert lab[..., 1:].min() == pytest.approx(-107.86, abs=0.01)
    assert lab[..., 1:].max() == pytest.approx(98.23, abs=0.01)


def test_the_way_back_gives_every_color_again():
    np.testing.assert_array_equal(lab_color.lab_to_rgb(lab_color.rgb_to_lab(COLORS)), COLORS)


@settings(max_examples=50, deadline=None)
@given(IMAGES)
def test_the_way_there_and_back_changes_nothing(pixels):
    before = pixels.copy()
    rgb = lab_color.lab_to_rgb(lab_color.rgb_to_lab(pixels))
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(pixels, before)


def test_colors_out_of_gamut_are_clipped():
    np.testing.assert_array_equal(
        lab_color.lab_to_rgb(np.array([[[100.0, 0, 0], [120, 0, 0], [-10, 0, 0]]])),
        [[[255] * 3] * 2 + [[0] * 3]],
    )


def test_scale_lab_has_the_documented_formulas():
    lab = np.array([[[0, 0, 0], [50, -127, 127], [100, 12.7, -63.5], [75, -108, 98]]], np.float32)
    l, ab = lab_color.scale_lab(lab)
    assert (l.dtype, l.shape) == (np.float32, (1, 4, 1))
    assert (ab.dtype, ab.shape) == (np.float32, (1, 4, 2))
    np.testing.assert_allclose(l[..., 0], [[-1, 0, 1, 0.5]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        ab, np.array([[[0, 0], [-1, 1], [0.1, -0.5], [-108 / 127, 98 / 127]]]), rtol=0, atol=1e-6
    )


def test_scaled_lab_stays_within_one():
    l, ab = lab_color.scale_lab(lab_color.rgb_to_lab(COLORS))
    assert (l.min(), l.max()) == (-1, pytest.approx(1, abs=1e-5))
    assert l.max() <= 1
    assert np.abs(ab).max() < 1


def test_scale_lab_rounds_no_white_beyond_one():
    l, _ = lab_color.scale_lab(np.array([[[100.00001, 0, 0], [-0.00001, 0, 0]]], np.float32))
    assert (l.max(), l.min()) == (1, -1)


def test_unscale_lab_is_the_inverse():
    lab = lab_color.rgb_to_lab(COLORS)
    back = lab_color.unscale_lab(*lab_color.scale_lab(lab))
    assert (back.dtype, back.shape) == (np.float32, lab.shape)
    np.testing.assert_allclose(back, lab, rtol=0, atol=5e-5)
    np.testing.assert_array_equal(lab_color.lab_to_rgb(back), COLORS)


def test_quantize_lab_has_the_documented_formulas():
    lab = np.array(
        [[[0, -128, 127], [100, 0, 0.4], [50, 0.6, -0.6], [20, -107.86, 98.23]]], np.float32
    )
    l, ab = lab_color.quantize_lab(lab)
    assert (l.dtype, l.shape) == (np.uint8, (1, 4, 1))
    assert (ab.dtype, ab.shape) == (np.uint8, (1, 4, 2))
    # 127.5 may be rounded up or down.
    assert l[0, :, 0].tolist() in ([0, 255, 127, 51], [0, 255, 128, 51])
    assert ab.tolist() == [[[0, 255], [128, 128], [129, 127], [20, 226]]]


def test_the_quantization_error_is_half_a_step_at_most():
    lab = lab_color.rgb_to_lab(COLORS)
    l, ab = lab_color.quantize_lab(lab)
    assert np.abs(l * (100 / 255) - lab[..., :1]).max() <= 100 / 255 / 2 + 1e-4
    assert np.abs(ab.astype(np.float32) - 128 - lab[..., 1:]).max() <= 0.5 + 1e-4


def test_quantize_lab_wraps_nothing_around():
    l, ab = lab_color.quantize_lab(
        np.array([[[100.3, 127.6, 300], [-0.3, -128.6, -300]]], np.float32)
    )
    assert l[..., 0].tolist() == [[255, 0]]
    assert ab.tolist() == [[[255, 255], [0, 0]]]
