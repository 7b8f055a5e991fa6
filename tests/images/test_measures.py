"""Tests of the measures against hand-worked images and independent computations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from skimage import color, transform

from beam_pipeline.images import lab_color, measures
from beam_pipeline.images.measures import BIN_EDGES, Measures, find_bin

IMAGES = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


def measure(pixels: np.ndarray) -> Measures:
    return measures.measure(pixels, lab_color.rgb_to_lab(pixels))


def fill(*rgb: int) -> np.ndarray:
    return np.full((48, 64, 3), rgb, np.uint8)


def tone(grey: np.ndarray, *rgb: float) -> np.ndarray:
    """Return a grey image, (H, W), in shades of a colour."""
    return np.rint(grey[..., None] * np.array(rgb)).clip(0, 255).astype(np.uint8)


PHOTOGRAPH = skimage.data.astronaut()[::2, ::2]
GREY = np.repeat(np.rint(color.rgb2gray(PHOTOGRAPH) * 255).astype(np.uint8)[..., None], 3, 2)
SEPIA = tone(GREY[..., 0], 0.95, 0.80, 0.62)
SATURATED = np.stack(np.meshgrid([0, 255], [0, 255], indexing="ij"), -1)[..., [0, 1, 1]].astype(
    np.uint8
)
IMAGES_BY_NAME = {
    "photograph": PHOTOGRAPH,
    "grey": GREY,
    "sepia": SEPIA,
    "cyanotype": tone(GREY[..., 0], 0.45, 0.70, 0.95),
    "saturated": np.kron(SATURATED, np.ones((32, 32, 1), np.uint8)),
    "dark": PHOTOGRAPH // 8,
    "uniform": fill(200, 30, 90),
}


def reference(pixels: np.ndarray) -> dict[str, float]:
    """Compute the measures in float64, from their definitions."""
    r, g, b = np.moveaxis(pixels.astype(np.float64), 2, 0)
    rg, yb = r - g, (r + g) / 2 - b
    lab = color.rgb2lab(pixels / 255)
    lightness = lab[..., 0] / 100
    counts = np.unique(np.rint(lightness * 255), return_counts=True)[1]
    return {
        "colorfulness": math.hypot(rg.std(), yb.std()) + 0.3 * math.hypot(rg.mean(), yb.mean()),
        "colorfulness_abs": math.hypot(abs(rg).std(), abs(yb).std())
        + 0.3 * math.hypot(abs(rg).mean(), abs(yb).mean()),
        "max_chroma_ab": float(np.abs(lab[..., 1:]).max()),
        "brightness_p5": float(np.percentile(lightness, 5, method="inverted_cdf")),
        "brightness_p99": float(np.percentile(lightness, 99, method="inverted_cdf")),
        "entropy": float(-(counts / counts.sum() * np.log2(counts / counts.sum())).sum()),
    }


@pytest.mark.parametrize("name", IMAGES_BY_NAME)
def test_measures_agree_with_their_definitions(name):
    found = measure(IMAGES_BY_NAME[name])._asdict()
    for measure_name, value in reference(IMAGES_BY_NAME[name]).items():
        tolerance = 0.01 if measure_name == "entropy" else 1e-3
        assert found[measure_name] == pytest.approx(value, abs=tolerance), measure_name


def test_tint_agrees_with_its_definition():
    # Of a size that a thumbnail of 40x40 divides, each of its pixels is the mean of a block.
    pixels = PHOTOGRAPH[:240, :240]
    thumbnail = transform.downscale_local_mean(pixels.astype(np.float64), (6, 6, 1))
    rest = 0.0
    bias = (thumbnail - thumbnail.mean(axis=2, keepdims=True)).reshape(-1, 3).mean(axis=0)
    for pixel in thumbnail.reshape(-1, 3):
        rest += sum((pixel[k] - pixel.mean() - bias[k]) ** 2 for k in range(3))
    assert measure(pixels).tint == pytest.approx(rest / 1600, rel=0.02)


def test_hand_worked_values():
    # Half red, half green: rg = 255 and -255, yb = 127.5 everywhere.
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, :, 0], pixels[1, :, 1] = 255, 255
    found = measure(pixels)
    assert found.colorfulness == pytest.approx(255 + 0.3 * 127.5)
    # |rg| = 255 everywhere.
    assert found.colorfulness_abs == pytest.approx(0.3 * math.hypot(255, 127.5))
    # Two lightnesses, each of half of the pixels.
    assert found.entropy == 1
    # a* of sRGB green is -86.2, b* 83.2; of red 80.1 and 67.2 (http://www.brucelindbloom.com).
    assert found.max_chroma_ab == pytest.approx(86.2, abs=0.1)
    # Per pixel the deviations are (170, -85, -85) and (-85, 170, -85), their mean
    # (42.5, 42.5, -85): (127.5, -127.5, 0) and its negative remain.
    assert found.tint == pytest.approx(2 * 127.5**2)


@pytest.mark.parametrize(("level", "brightness"), [(0, 0), (255, 1)])
def test_black_and_white_have_no_colour_and_no_entropy(level, brightness):
    found = measure(fill(level, level, level))
    assert found._replace(max_chroma_ab=0) == Measures(0, 0, 0, 0, brightness, brightness, 0)
    assert found.max_chroma_ab == pytest.approx(0, abs=0.01)
    assert math.copysign(1, found.entropy) == 1


def test_what_each_measure_sees():
    found = {name: measure(pixels) for name, pixels in IMAGES_BY_NAME.items()}
    # Grey passes no test for colour.
    assert found["grey"].max_chroma_ab < 0.1 and found["grey"].tint == 0
    # Toned images are not grey, and have one hue.
    for name in ("sepia", "cyanotype"):
        assert found[name].max_chroma_ab > 5 and found[name].colorfulness > 10
    assert found["sepia"].tint < found["photograph"].tint / 5
    assert found["saturated"].colorfulness > 100
    assert found["dark"].brightness_p99 < 0.32 < found["photograph"].brightness_p99
    assert found["uniform"].entropy == 0 and found["uniform"].tint == pytest.approx(0, abs=1e-9)


def test_subtraction_does_not_wrap_around():
    # In uint8, 10 - 20 is 246.
    assert measure(fill(10, 20, 10)).colorfulness == pytest.approx(0.3 * math.hypot(10, 5))


@given(pixels=IMAGES)
@settings(deadline=None, max_examples=50)
def test_any_image_has_measures_in_their_ranges(pixels):
    found = measure(pixels)
    assert 0 <= found.colorfulness <= 400 and 0 <= found.colorfulness_abs <= 400
    assert 0 <= found.max_chroma_ab <= 108
    assert 0 <= found.tint <= 65025 * 2 / 3 + 1
    assert 0 <= found.brightness_p5 <= found.brightness_p99 <= 1
    assert 0 <= found.entropy <= 8
    assert all(type(value) is float for value in found)


def test_a_view_is_measured_as_its_copy():
    part = (slice(3, 60), slice(7, 90))
    lab = lab_color.rgb_to_lab(PHOTOGRAPH)
    assert measures.measure(PHOTOGRAPH[part], lab[part]) == measure(PHOTOGRAPH[part].copy())


def test_the_square_of_a_large_image_is_exact():
    """Sums of float32 would lose the difference of large squares."""
    pixels = np.asarray(Image.new("RGB", (1000, 1000), (255, 0, 0)))
    assert measure(pixels).colorfulness == pytest.approx(0.3 * math.hypot(255, 127.5), abs=1e-9)


@pytest.mark.parametrize("name", Measures._fields)
def test_bins_hold_their_values(name):
    edges = BIN_EDGES[name]
    assert list(edges) == sorted(set(edges))
    for index, (low, high) in enumerate(itertools.pairwise(edges)):
        assert find_bin(name, low) == find_bin(name, (low + high) / 2) == index
    assert find_bin(name, -1.0) == 0
    assert find_bin(name, edges[-1]) == find_bin(name, 1e9) == len(edges) - 2


def test_the_maxima_of_colorfulness_are_the_documented_ones():
    """They are reached by mixtures of the corners of the RGB cube."""

    def make(shares: dict[tuple[int, int, int], int]) -> np.ndarray:
        return np.concatenate([np.full((n, 10, 3), rgb, np.uint8) for rgb, n in shares.items()])

    extreme = measure(make({(0, 255, 0): 350, (255, 0, 0): 20, (255, 0, 255): 630}))
    assert 297 < extreme.colorfulness < 297.7
    extreme = measure(
        make(
            {
                (0, 0, 0): 113,
                (0, 0, 255): 73,
                (0, 255, 0): 345,
                (255, 0, 0): 110,
                (255, 0, 255): 28,
                (255, 255, 0): 331,
            }
        )
    )
    assert 214 < extreme.colorfulness_abs < 214.3
