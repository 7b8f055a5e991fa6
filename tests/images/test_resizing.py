import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beam_pipeline.images import resizing
from beam_pipeline.images.resizing import resize

LANCZOS = Image.Resampling.LANCZOS


def lanczos_weights(length: int, result: int, start: float, end: float) -> np.ndarray:
    """Return the weights of pixels, (result, length), of Lanczos with three lobes."""
    scale = (end - start) / result
    support = max(scale, 1.0)
    centres = start + (np.arange(result) + 0.5) * scale
    x = (np.arange(length) + 0.5 - centres[:, None]) / support
    # Pillow leaves out pixels whose centre is half a pixel or more beyond the lobes.
    weights = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def resize_exactly(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize in float64, with the values between the passes clipped to the range of pixels."""
    height, width = pixels.shape[:2]
    across = np.einsum("xw,hwc->hxc", lanczos_weights(width, size[0], 0, width), pixels)
    down = lanczos_weights(height, size[1], 0, height)
    return np.einsum("yh,hxc->yxc", down, across.clip(0, 255)).clip(0, 255)


def noise(size: tuple[int, int], seed: int, levels: int = 256) -> Image.Image:
    random = np.random.default_rng(seed).integers(0, levels, (size[1], size[0], 3))
    return Image.fromarray((random * (255 // (levels - 1))).astype(np.uint8))


def difference(image, other) -> np.ndarray:
    return np.abs(np.asarray(image).astype(float) - np.asarray(other))


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 600), st.integers(1, 600)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from((2, 256)),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_it_is_pillows_resize_within_two_levels(before, after, levels, is_cropped, seed):
    image = noise(before, seed, levels)
    box = None
    if is_cropped:
        left, top, right, bottom = np.random.default_rng(seed).uniform(0, 0.4, 4) * (
            *before,
            *before,
        )
        box = (left, top, before[0] - right, before[1] - bottom)
    resized = resize(image, after, box)
    assert (resized.mode, resized.size) == ("RGB", after)
    assert difference(resized, image.resize(after, LANCZOS, box)).max() <= 2


@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize(
    ("before", "after"), [((500, 375), (299, 224)), ((90, 60), (299, 199)), ((700, 31), (10, 31))]
)
def test_its_error_is_that_of_pillow(before, after, levels):
    image = noise(before, 0, levels)
    exact = resize_exactly(np.asarray(image).astype(float), after)
    own = difference(resize(image, after), exact)
    pillows = difference(image.resize(after, LANCZOS), exact)
    assert own.mean() == pytest.approx(pillows.mean(), rel=0.01)
    assert own.max() <= pillows.max() + 1
    assert own.max() < 2.5  # rounding of each pass
    assert (difference(resize(image, after), image.resize(after, LANCZOS)) > 0).mean() < 0.01


@pytest.mark.parametrize(
    ("before", "after"), [((65500, 3), (299, 1)), ((3, 65500), (1, 299)), ((1200, 1200), (8, 8))]
)
def test_large_ratios_are_resized_as_exactly(before, after):
    image = Image.effect_noise(before, 100).convert("RGB")
    assert difference(resize(image, after), image.resize(after, LANCZOS)).max() <= 1


def test_the_size_of_the_image_leaves_its_pixels():
    image = noise((40, 30), 0)
    assert difference(resize(image, (40, 30)), image).max() == 0
    assert (
        difference(resize(image, (20, 10), (5, 6, 25, 16)), image.crop((5, 6, 25, 16))).max() == 0
    )


def test_without_the_fast_library_it_is_pillows_resize(monkeypatch):
    monkeypatch.setattr(resizing, "cykooz_resizer", None)
    image = noise((50, 40), 0)
    box = (1.5, 2, 40, 30.25)
    assert difference(resize(image, (30, 20), box), image.resize((30, 20), LANCZOS, box)).max() == 0


def test_threads_do_not_disturb_one_another():
    images = [noise((300 + 10 * index, 200), index) for index in range(4)]
    expected = [np.asarray(resize(image, (99, 77))) for image in images]
    wrong = []

    def repeat(index: int) -> None:
        for _ in range(50):
            if difference(resize(images[index], (99, 77)), expected[index]).max():
                wrong.append(index)

    threads = [threading.Thread(target=repeat, args=[index]) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
