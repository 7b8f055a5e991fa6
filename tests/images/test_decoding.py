"""Tests of decoding: every format, mode and orientation, and files that are broken on purpose."""

import concurrent.futures
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageSequence, PngImagePlugin

from beam_pipeline.images import decoding, png_notes
from beam_pipeline.images.decoding import DecodeError, make_square

ROOT = Path(__file__).parents[2]
MAX_PIXELS = 1_000_000
REASONS = ("not_an_image", "truncated", "corrupt", "too_many_pixels", "unsupported_format")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

NEXT_FRAME = Image.new("RGB", (24, 16), RED)

# The options with which each format is lossless; JPEG has none.
LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "BMP": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
    "GIF": {},
}


def decode(data: bytes, size: int, resize: str, max_pixels: int) -> np.ndarray:
    return decoding.decode(data, size, resize, max_pixels).pixels


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def flat(mode: str, color, size: int = 8) -> Image.Image:
    return Image.new(mode, (size, size), color)


def photo(width: int = 24, height: int = 16) -> Image.Image:
    """Return an image of many colors, few enough for a GIF; no two neighbors are equal."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(
        np.stack(
            [x * 255 // width // 32 * 32, y * 255 // height // 32 * 32, (x + y) % 4 * 80], -1
        ).astype(np.uint8)
    )


def pixels_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def padded(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the pixels, at their size, in the middle of a white square."""
    height, width = pixels.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    square = np.full((size, size, 3), 255, np.uint8)
    square[top : top + height, left : left + width] = pixels
    return square


def reason_of(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(data, 8, "pad", max_pixels)
    assert caught.value.detail
    return caught.value.reason


def color_of(data: bytes) -> list[int]:
    """Return the color of an image that has only one."""
    pixels = decode(data, 4, "pad", MAX_PIXELS)
    assert (pixels == pixels[0, 0]).all()
    return pixels[0, 0].tolist()


def near(color: tuple[int, int, int], tolerance: int = 3):
    return pytest.approx(list(color), abs=tolerance)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(
    width: int, height: int, depth: int, color_type: int, row: bytes, *chunks: bytes
) -> bytes:
    """Return a PNG of a kind that Pillow cannot write; its rows are all the same."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + row) * height))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


TIFF_LZW = encode(photo(), "TIFF", compression="tiff_lzw")


# Squares.


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 80))
@example(300, 1, 7)
@example(1, 300, 8)
@example(3, 2, 3)
@example(200, 5, 20)
def test_pad_fits_the_image_inside_and_fills_with_white(width, height, size):
    square = np.asarray(make_square(Image.new("RGB", (width, height), "black"), size, "pad"))
    ratio = min(size / width, size / height)
    fitted = np.zeros((max(1, round(height * ratio)), max(1, round(width * ratio)), 3), np.uint8)
    np.testing.assert_array_equal(square, padded(fitted, size))


@pytest.mark.parametrize(
    ("width", "height", "size", "box"),
    [
        # left, top, right, bottom
        (600, 300, 299, (0, 74, 299, 224)),
        (300, 600, 299, (74, 0, 224, 299)),
        (100, 50, 299, (0, 74, 299, 224)),
        (10, 10, 299, (0, 0, 299, 299)),
        (1000, 1, 299, (0, 149, 299, 150)),
        (3, 2, 4, (0, 0, 4, 3)),
    ],
)
def test_pad_by_example(width, height, size, box):
    square = np.asarray(make_square(Image.new("RGB", (width, height), "black"), size, "pad"))
    left, top, right, bottom = box
    expected = np.full((size, size, 3), 255, np.uint8)
    expected[top:bottom, left:right] = 0
    np.testing.assert_array_equal(square, expected)


@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (1, 500), (500, 1), (299, 299), (640, 480), (7, 11)]
)
@pytest.mark.parametrize("size", [1, 2, 299])
def test_squares_have_the_size_that_was_asked_for(resize, width, height, size):
    image = make_square(Image.new("RGB", (width, height), (1, 2, 3)), size, resize)
    assert (image.mode, image.size) == ("RGB", (size, size))
    assert image.getpixel(((size - 1) // 2, (size - 1) // 2)) == (1, 2, 3)


def test_crop_cuts_out_the_centre():
    image = photo(40, 20)
    np.testing.assert_array_equal(make_square(image, 20, "crop"), pixels_of(image)[:, 10:30])
    image = photo(20, 40)
    np.testing.assert_array_equal(make_square(image, 20, "crop"), pixels_of(image)[10:30])


def test_crop_fills_the_square():
    for width, height in ((400, 20), (20, 400), (3, 2), (1, 9)):
        assert (
            np.asarray(make_square(Image.new("RGB", (width, height), "black"), 50, "crop")).max()
            == 0
        )


def test_stretch_shows_the_complete_image():
    image = Image.new("RGB", (400, 20), RED)
    image.paste(BLUE, (200, 0, 400, 20))
    square = np.asarray(make_square(image, 40, "stretch"))
    assert (square[:, :15] == RED).all()
    assert (square[:, 25:] == BLUE).all()


@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
def test_an_image_that_is_the_square_already_is_not_touched(resize):
    image = photo(24, 24)
    np.testing.assert_array_equal(make_square(image, 24, resize), pixels_of(image))


@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
def test_decode_makes_the_square_that_was_asked_for(resize):
    image = photo(40, 20)
    pixels = decode(encode(image, "PNG"), 10, resize, MAX_PIXELS)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (10, 10, 3))
    np.testing.assert_array_equal(pixels, make_square(image, 10, resize))


def test_resizing_is_smooth():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = make_square(Image.fromarray(stripes), 8, "stretch")
    assert np.abs(np.asarray(pixels).astype(int) - 127).max() < 20


# Formats.


@pytest.mark.parametrize("format", LOSSLESS)
def test_lossless_formats_give_their_pixels(format):
    image = photo()
    np.testing.assert_array_equal(
        decode(encode(image, format, **LOSSLESS[format]), 24, "pad", MAX_PIXELS),
        padded(pixels_of(image), 24),
    )


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": 2}),
        ("JPEG", {"optimize": True, "restart_marker_rows": 1}),
        ("WEBP", {}),
        ("MPO", {"save_all": True, "append_images": [NEXT_FRAME]}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"compression": "jpeg"}),
    ],
)
def test_formats_have_many_kinds(format, options):
    smooth = Image.new("RGB", (24, 16), (200, 100, 50))
    pixels = decode(encode(smooth, format, **options), 24, "pad", MAX_PIXELS)
    np.testing.assert_allclose(pixels, padded(pixels_of(smooth), 24), rtol=0, atol=4)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(flat("L", 77), "PNG"), (77, 77, 77)),
        (encode(flat("L", 77), "TIFF"), (77, 77, 77)),
        (encode(flat("L", 77), "BMP"), (77, 77, 77)),
        (encode(flat("L", 77), "GIF"), (77, 77, 77)),
        (encode(flat("1", 1), "PNG"), WHITE),
        (encode(flat("1", 0), "PNG"), (0, 0, 0)),
        (encode(flat("1", 1), "TIFF", compression="group4"), WHITE),
        (encode(flat("1", 0), "BMP"), (0, 0, 0)),
        (make_png(8, 8, 2, 0, b"\xaa\xaa"), (170, 170, 170)),
        (make_png(8, 8, 4, 0, b"\x33" * 4), (51, 51, 51)),
        (
            make_png(8, 8, 2, 3, b"\x55\x55", chunk(b"PLTE", bytes([1, 2, 3, 200, 100, 50]))),
            (200, 100, 50),
        ),
        (encode(flat("RGB", (200, 100, 50)).quantize(4), "PNG"), (200, 100, 50)),
        (encode(flat("RGB", (200, 100, 50)).quantize(4), "TIFF"), (200, 100, 50)),
        (encode(flat("RGB", (200, 100, 50)).quantize(4), "BMP"), (200, 100, 50)),
        (encode(flat("RGB", (200, 100, 50)).quantize(4), "GIF"), (200, 100, 50)),
    ],
    ids=str,
)
def test_grey_palette_and_black_and_white(data, expected):
    assert color_of(data) == list(expected)


def test_grey_jpeg():
    assert color_of(encode(flat("L", 77), "JPEG")) == near((77, 77, 77), 1)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0, 0),
        (65535, 255),
        (257 * 77, 77),
        (257 * 77 + 100, 77),
        (257 * 77 + 200, 78),
        (40_000, 156),
        (128, 0),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey(format, level, expected):
    image = Image.fromarray(np.full((8, 8), level, np.uint16))
    assert color_of(encode(image, format)) == [expected] * 3


def test_16_bit_grey_with_its_bytes_the_other_way_round():
    assert color_of(encode(flat("I;16B", 40_000), "TIFF")) == [156] * 3


def test_integers_of_32_bits_are_not_guessed_at():
    assert reason_of(encode(flat("I", 40_000), "TIFF")) == "unsupported_format"


@pytest.mark.parametrize(
    ("color_type", "pixel", "expected"),
    [
        (2, struct.pack(">3H", 200 * 257, 100 * 257, 50 * 257), (200, 100, 50)),
        (6, struct.pack(">4H", 200 * 257, 100 * 257, 50 * 257, 65535), (200, 100, 50)),
        (6, struct.pack(">4H", 200 * 257, 100 * 257, 50 * 257, 0), WHITE),
        (4, struct.pack(">2H", 100 * 257, 65535), (100, 100, 100)),
        (4, struct.pack(">2H", 100 * 257, 0), WHITE),
    ],
)
def test_16_bit_png_of_other_kinds(color_type, pixel, expected):
    assert color_of(make_png(8, 8, 16, color_type, pixel * 8)) == list(expected)


@pytest.mark.parametrize(
    "cmyk", [(0, 0, 0, 0), (255, 255, 255, 0), (0, 0, 0, 255), (0, 255, 255, 0), (55, 155, 205, 40)]
)
def test_cmyk(cmyk):
    c, m, y, k = cmyk
    expected = [(255 - ink) * (255 - k) / 255 for ink in (c, m, y)]
    assert color_of(encode(flat("CMYK", cmyk), "TIFF")) == pytest.approx(expected, abs=1)
    assert color_of(
        encode(flat("CMYK", cmyk), "JPEG", quality=100, subsampling=0)
    ) == pytest.approx(expected, abs=3)


@pytest.mark.parametrize(
    "cmyk", [(0, 255, 255, 0), (55, 155, 205, 40), (255, 0, 0, 0), (10, 20, 30, 200)]
)
def test_ycck(cmyk):
    # Adobe's way: the inks go through the formula for YCbCr, and all four channels are stored
    # inverted. Pillow writes CMYK only, so it receives the values that YCCK would hold, and the
    # test sets the marker that distinguishes the two.
    c, m, y, k = cmyk
    inks = np.asarray(Image.new("RGB", (1, 1), (c, m, y)).convert("YCbCr"))[0, 0].tolist()
    stored = (*(255 - ink for ink in inks), k)
    data = bytearray(encode(flat("CMYK", stored), "JPEG", quality=100, subsampling=0))
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    assert color_of(bytes(data)) == pytest.approx(
        [(255 - ink) * (255 - k) / 255 for ink in (c, m, y)], abs=4
    )


def test_colors_in_lab():
    image = Image.new("LAB", (8, 8), (127, 128, 128))
    assert color_of(encode(image, "TIFF")) == near((119, 119, 119))


def test_floating_point_pixels_are_not_guessed_at():
    assert reason_of(encode(flat("F", 0.5), "TIFF")) == "unsupported_format"


# Transparency.


@pytest.mark.parametrize(
    "data",
    [
        encode(flat("RGBA", (10, 20, 30, 0)), "PNG"),
        encode(flat("RGBA", (10, 20, 30, 0)), "TIFF"),
        encode(flat("RGBA", (10, 20, 30, 0)), "WEBP", lossless=True, exact=True),
        encode(flat("RGBA", (10, 20, 30, 0)), "GIF"),
        encode(flat("LA", (10, 0)), "PNG"),
        encode(flat("LA", (10, 0)), "TIFF"),
        encode(flat("RGB", (10, 20, 30)).quantize(2), "PNG", transparency=0),
        encode(flat("RGB", (10, 20, 30)).quantize(2), "PNG", transparency=b"\0"),
        encode(flat("RGB", (10, 20, 30)).quantize(2), "GIF", transparency=0),
        encode(flat("RGB", (10, 20, 30)), "PNG", transparency=(10, 20, 30)),
        encode(flat("L", 10), "PNG", transparency=10),
        encode(flat("1", 0), "PNG", transparency=0),
    ],
    ids=[
        "rgba-png",
        "tiff",
        "webp",
        "gif",
        "la-png",
        "la-tiff",
        "p-png",
        "p-png-bytes",
        "p-gif",
        "rgb-trns",
        "l-trns",
        "1-trns",
    ],
)
def test_what_is_transparent_is_white(data):
    assert color_of(data) == list(WHITE)


@pytest.mark.parametrize(
    "data",
    [
        encode(flat("RGBA", (0, 100, 200, 51)), "PNG"),
        encode(flat("RGBA", (0, 100, 200, 51)), "TIFF"),
        encode(flat("RGBA", (0, 100, 200, 51)), "WEBP", lossless=True),
        make_png(
            8, 8, 8, 3, bytes(8), chunk(b"PLTE", bytes([0, 100, 200])), chunk(b"tRNS", b"\x33")
        ),
    ],
    ids=["png", "tiff", "webp", "palette"],
)
def test_what_is_half_transparent_is_mixed_with_white(data):
    assert color_of(data) == near((204, 224, 244), 1)


def test_half_transparent_grey_is_mixed_with_white():
    assert color_of(encode(flat("LA", (0, 51)), "PNG")) == near((204, 204, 204), 1)


@pytest.mark.parametrize(
    ("depth", "color_type", "row", "value"),
    [
        *(
            (1, 0, b"\0", b"\0\0"),
            (2, 0, b"\x55" * 2, b"\0\1"),
            (4, 0, b"\x55" * 4, b"\0\5"),
            (8, 0, b"\x55" * 8, b"\0\x55"),
        ),
        *(
            (16, 0, b"\x12\x34" * 8, b"\x12\x34"),
            (8, 2, b"abc" * 8, b"\0a\0b\0c"),
            (16, 2, b"abcdef" * 8, b"abcdef"),
        ),
    ],
)
def test_the_transparent_color_of_a_png_is_white(depth, color_type, row, value):
    assert color_of(make_png(8, 8, depth, color_type, row, chunk(b"tRNS", value))) == list(WHITE)


@pytest.mark.parametrize(
    ("depth", "color_type", "row", "value", "expected"),
    [
        *((2, 0, b"\x55" * 2, b"\0\2", (85, 85, 85)), (8, 0, b"\x55" * 8, b"\0\x56", (85, 85, 85))),
        *(
            (16, 0, b"\x55\x55" * 8, b"\x56\x55", (85, 85, 85)),
            (8, 2, b"abc" * 8, b"\0a\0b\0d", (97, 98, 99)),
        ),
    ],
)
def test_other_colors_of_a_png_with_a_transparent_one_stay(depth, color_type, row, value, expected):
    assert color_of(make_png(8, 8, depth, color_type, row, chunk(b"tRNS", value))) == list(expected)


def test_transparent_and_opaque_parts_of_one_image():
    image = Image.new("RGBA", (8, 8), (*RED, 255))
    image.paste((0, 0, 0, 0), (4, 0, 8, 8))
    for data in (encode(image, "PNG"), encode(image, "GIF"), encode(image, "WEBP", lossless=True)):
        pixels = decode(data, 8, "pad", MAX_PIXELS)
        assert (pixels[:, :4] == RED).all()
        assert (pixels[:, 4:] == WHITE).all()


# Animations.


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_used(format):
    others = [flat("RGB", GREEN), flat("RGB", BLUE)]
    data = encode(flat("RGB", RED), format, save_all=True, append_images=others, **LOSSLESS[format])
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 3
    assert color_of(data) == list(RED)


def test_the_first_frame_of_an_animation_may_be_smaller_than_it():
    first = flat("RGB", RED, 8)
    data = bytearray(encode(first, "GIF"))
    assert struct.unpack_from("<HH", data, 6) == (8, 8)
    struct.pack_into("<HH", data, 6, 8, 16)
    pixels = decode(bytes(data), 16, "pad", MAX_PIXELS)
    assert (pixels[:8, 4:12] == RED).all()


# Orientation.

# The transformation of the stored pixels to the upright ones. Exif 2.32, 4.6.4, tag 274: the sides
# where row 0 and column 0 of the file belong.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,  # top, left
    2: lambda stored: stored[:, ::-1],  # top, right
    3: lambda stored: stored[::-1, ::-1],  # bottom, right
    4: lambda stored: stored[::-1],  # bottom, left
    5: lambda stored: stored.transpose(1, 0, 2),  # left, top
    6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],  # right, top
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: lambda stored: stored.transpose(1, 0, 2)[::-1],  # left, bottom
}


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied(format, orientation):
    data = encode(photo(24, 16), format, exif=oriented(orientation), **LOSSLESS[format])
    expected = padded(UPRIGHT[orientation](pixels_of(photo(24, 16))), 24)
    np.testing.assert_array_equal(decode(data, 24, "pad", MAX_PIXELS), expected)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_to_a_jpeg(orientation):
    corners = Image.new("RGB", (48, 32), RED)
    for color, box in (
        (GREEN, (24, 0, 48, 16)),
        (BLUE, (0, 16, 24, 32)),
        (WHITE, (24, 16, 48, 32)),
    ):
        corners.paste(color, box)
    data = encode(corners, "JPEG", quality=95, subsampling=0, exif=oriented(orientation))
    pixels = decode(data, 48, "pad", MAX_PIXELS)
    expected = padded(UPRIGHT[orientation](pixels_of(corners)), 48)
    assert np.abs(pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_is_ignored(orientation):
    data = encode(photo(24, 24), "PNG", exif=oriented(orientation))
    np.testing.assert_array_equal(decode(data, 24, "pad", MAX_PIXELS), pixels_of(photo(24, 24)))


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\xff" * 9],
    ids=ascii,
)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_absurd_metadata_costs_no_image(format, exif):
    assert color_of(
        encode(flat("RGB", (200, 100, 50)), format, exif=exif, **LOSSLESS.get(format, {}))
    ) == near((200, 100, 50))


def test_orientation_and_transparency_together():
    image = Image.new("RGBA", (24, 16), (*RED, 255))
    image.paste((0, 0, 0, 0), (0, 0, 12, 16))
    pixels = decode(encode(image.quantize(4), "PNG", exif=oriented(6)), 24, "pad", MAX_PIXELS)
    assert (pixels[:12] == WHITE).all()
    assert (pixels[12:, 4:20] == RED).all()


# Refusals.


@pytest.mark.parametrize("format", [*LOSSLESS, "JPEG"])
def test_an_image_may_have_as_many_pixels_as_are_allowed_and_no_more(format):
    data = encode(photo(24, 16), format)
    assert decode(data, 8, "pad", 24 * 16).shape == (8, 8, 3)
    assert reason_of(data, 24 * 16 - 1) == "too_many_pixels"


@pytest.mark.parametrize(
    ("width", "height"),
    [(1001, 1000), (10_000, 10_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)],
)
def test_too_many_pixels_are_found_in_the_header(width, height):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason_of(data) == "too_many_pixels"


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"save_all": True, "append_images": [Image.new("RGB", (48, 48))]}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        # A file with its directory at the end.
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
@pytest.mark.parametrize("part", [0.4, 0.7, 0.95])
def test_a_file_that_breaks_off_is_truncated(format, options, part):
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), format, **options)
    assert reason_of(data[: int(len(data) * part)]) == "truncated"


def test_a_sentence_of_the_decoder_is_the_detail():
    picture = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(picture, "JPEG")
    with pytest.raises(DecodeError) as caught:
        decode(picture.getvalue()[:-200], 16, "pad", 10**6)
    assert caught.value.detail.startswith("image file is truncated")


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"noise" * 99),
        b"RIFF" + struct.pack("<I", 112) + b"WEBPVP8 " + struct.pack("<I", 100) + b"noise" * 20,
        TIFF_LZW[:8] + b"\xff" * 32 + TIFF_LZW[40:],
    ],
    ids=["png", "webp", "tiff"],
)
def test_a_file_that_is_long_enough_but_makes_no_sense_is_corrupt(data):
    assert reason_of(data) == "corrupt"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"not found",
        b"GET / HTTP/1.1\r\n",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"  \r\n<html><head><title>Not found</title></head></html>",
        b"\xef\xbb\xbf<!doctype html>\n<html></html>",
        b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC '
        b'"-//W3C//DTD XHTML 1.0 Strict//EN" "">\n<html></html>',
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        b'{"error": "not found"}',
        encode(photo(), "PPM"),
        b"PK\3\4" + bytes(100),
        bytes(1000),
    ],
    ids=lambda data: ascii(data[:12]),
)
def test_a_file_that_is_not_an_image_is_refused(data):
    assert reason_of(data) == "not_an_image"


def test_a_web_page_is_called_one():
    with pytest.raises(DecodeError) as caught:
        decode(
            b"<!DOCTYPE html><title>This photo is no longer available</title>", 8, "pad", MAX_PIXELS
        )
    assert "web page" in caught.value.detail


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "SVG"),
        (b'\n <svg xmlns="http://www.w3.org/2000/svg"></svg>', "SVG"),
        (
            b'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>',
            "SVG",
        ),
        (
            b'\xef\xbb\xbf<?xml version="1.0"?><!-- Inkscape -->'
            b'<!DOCTYPE svg PUBLIC "" ""><svg></svg>',
            "SVG",
        ),
        (encode(photo(), "ICO"), "ICO"),
        (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(300), "Photoshop"),
        (encode(photo(), "JPEG2000"), "JPEG 2000"),
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1" + bytes(100), "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC"),
        (b"\xff\x0a" + bytes(100), "JPEG XL"),
        (b"%PDF-1.7\n" + bytes(100), "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_of_other_formats_have_their_own_reason(data, name):
    with pytest.raises(DecodeError) as caught:
        decode(data, 8, "pad", MAX_PIXELS)
    assert caught.value.reason == "unsupported_format"
    assert name in caught.value.detail


def test_a_page_that_shows_an_svg_is_a_page():
    assert reason_of(b"<!DOCTYPE html><html><body><svg></svg></body></html>") == "not_an_image"


# Files that are broken on purpose.

VALID = [
    *(encode(photo(), format, **options) for format, options in LOSSLESS.items()),
    encode(photo(), "JPEG"),
    encode(photo(), "JPEG", progressive=True, exif=oriented(6)),
    encode(photo().convert("CMYK"), "JPEG"),
    encode(photo(), "WEBP"),
    encode(photo(), "GIF", save_all=True, append_images=[NEXT_FRAME]),
    encode(photo(), "PNG", save_all=True, append_images=[NEXT_FRAME]),
    encode(photo(), "WEBP", save_all=True, append_images=[NEXT_FRAME]),
    encode(photo(), "MPO", save_all=True, append_images=[NEXT_FRAME]),
    encode(photo().quantize(8), "PNG", transparency=b"\0\x80\xff", exif=oriented(3)),
    encode(photo().convert("RGBA"), "TIFF", compression="tiff_lzw"),
    encode(photo().convert("1"), "TIFF", compression="group4"),
    encode(photo(), "TIFF", compression="jpeg"),
    encode(flat("I;16", 40_000), "PNG"),
    make_png(8, 8, 16, 2, b"abcdef" * 8, chunk(b"tRNS", b"abcdef")),
]


@st.composite
def broken_files(draw) -> bytes:
    """A valid file with damage: truncated, bytes changed, or a piece of another file inserted."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        # Most of the bytes that determine how a file is read are at its beginning.
        position = draw(st.one_of(st.integers(0, min(60, len(data))), st.integers(0, len(data))))
        match draw(st.sampled_from(["cut", "flip", "write", "splice", "drop"])):
            case "cut":
                del data[position:]
            case "flip" if position < len(data):
                data[position] ^= 1 << draw(st.integers(0, 7))
            case "write":
                written = draw(
                    st.one_of(
                        st.binary(max_size=8),
                        st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"]),
                    )
                )
                data[position : position + len(written)] = written
            case "splice":
                other = draw(st.sampled_from(VALID))
                start = draw(st.integers(0, len(other)))
                data[position:] = other[start:]
            case "drop":
                del data[position : position + draw(st.integers(1, 20))]
    return bytes(data)


def check_hostile(data: bytes, resize: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            pixels = decode(data, 9, resize, MAX_PIXELS)
        except DecodeError as error:
            assert error.reason in REASONS
            assert error.detail
            return
    assert (pixels.dtype, pixels.shape) == (np.uint8, (9, 9, 3))


@settings(max_examples=800, deadline=None)
@given(broken_files(), st.sampled_from(["pad", "crop", "stretch"]))
@example(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"short"), "pad")
def test_a_broken_file_gives_pixels_or_a_reason_and_nothing_else(data, resize):
    check_hostile(data, resize)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(
        [
            b"",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"RIFF",
            b"BM",
            b"II*\0",
            b"MM\0*",
            b"<",
        ]
    ),
    st.binary(),
)
def test_noise_gives_a_reason_and_nothing_else(magic, noise):
    check_hostile(magic + noise, "pad")


@pytest.mark.parametrize("data", VALID, ids=range(len(VALID)))
def test_a_complete_file_causes_no_warning(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data, 9, "pad", MAX_PIXELS).shape == (9, 9, 3)


def make_gif_with_comments(length: int) -> bytes:
    comment = b"!\xfe" + b"\x01x" * length + b"\0"
    gif = encode(Image.new("L", (8, 8)), "GIF")
    first = gif.index(b",")
    return gif[:first] + comment + gif[first:]


def make_tiff(width: int, height: int, *tags: tuple[int, list[int]]) -> bytes:
    """Return a TIFF with an arbitrary header: grey, 8 bits, and tags of 32-bit numbers."""
    fields = dict(
        [(256, [width]), (257, [height]), (258, [8]), (259, [1]), (262, [1]), (277, [1]), *tags]
    )
    offset = 8 + 2 + 12 * len(fields) + 4
    entries, behind = b"", b""
    for tag, values in sorted(fields.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, behind = struct.pack("<I", offset + len(behind)), behind + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + behind


def make_scans(count: int) -> bytes:
    jpeg = encode(photo(), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * count + jpeg[-2:]


# Each of them would keep a decoder busy for minutes, or fill gigabytes, if only its pixels counted.
BUSY = {
    "GIF of comments": make_gif_with_comments(2_000_000),
    "JPEG of scans": make_scans(2000),
    "TIFF of strips on one another": make_tiff(
        1000, 900, (278, [899]), (273, [8] * 300), (279, [899_000] * 300)
    ),
    "TIFF of one tile": make_tiff(8, 8, (322, [40_000]), (323, [40_000]), (324, [8]), (325, [100])),
}


@pytest.mark.parametrize("data", BUSY.values(), ids=BUSY.keys())
def test_a_file_that_keeps_a_decoder_busy_is_refused(data):
    assert reason_of(data) in ("corrupt", "truncated", "too_many_pixels")


def test_comments_and_scans_of_usual_files_are_fine():
    assert decode(make_gif_with_comments(1000), 8, "pad", MAX_PIXELS).shape == (8, 8, 3)
    assert decode(make_scans(3), 8, "pad", MAX_PIXELS).shape == (8, 8, 3)


@pytest.mark.parametrize(("pixels", "at_a_time"), [(1000, 1), (60, 1), (30, 3)])
def test_no_more_is_decoded_at_a_time_than_memory_is_meant_for(monkeypatch, pixels, at_a_time):
    monkeypatch.setattr(decoding, "_MAX_PIXELS", 100)
    load, lock, running, most = ImageFile.ImageFile.load, threading.Lock(), 0, 0
    # As many decoders as are allowed wait for one another; `most` would show any more of them.
    together = threading.Barrier(at_a_time)

    def watched_load(image: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(timeout=60)
        with lock:
            running -= 1
        return load(image)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", watched_load)
    data = encode(Image.new("RGB", (pixels // 10, 10), RED), "PNG")
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        pictures = list(executor.map(lambda _: decode(data, 8, "stretch", MAX_PIXELS), range(12)))
    assert (np.array(pictures) == RED).all()
    assert most == at_a_time


def test_the_size_before_resizing_is_that_of_the_upright_image():
    sideways = Image.new("RGB", (40, 20))
    exif = sideways.getexif()
    exif[0x112] = 6
    assert decoding.decode(
        encode(sideways, "JPEG", exif=exif), 8, "pad", MAX_PIXELS
    ).original_size == (20, 40)
    # The note that a server writes into its own file is ignored.
    note = PngImagePlugin.PngInfo()
    note.add_text("original", "999999999x1")
    noted = encode(sideways, "PNG", pnginfo=note)
    assert decoding.decode(noted, 8, "pad", MAX_PIXELS).original_size == (40, 20)
    assert png_notes.read_note(noted) == (999999999, 1)
    for text in ("0x4", "40", "4x4x4", "1e3x4"):
        note = PngImagePlugin.PngInfo()
        note.add_text("original", text)
        assert png_notes.read_note(encode(sideways, "PNG", pnginfo=note)) is None
    assert png_notes.read_note(encode(sideways, "BMP")) is None


# Low memory.

IN_LITTLE_MEMORY = """
import resource, sys
import numpy as np
from beam_pipeline.images import decoding

with open(sys.argv[1], "rb") as file:
    data = file.read()
whole, short = np.load(sys.argv[2]), 0
for megabytes in (1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 50, 60, 80, 110, 150):
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + megabytes * 2**20, resource.RLIM_INFINITY))
    try:
        same = (decoding.decode(data, 64, "pad", 10**7).pixels == whole).all()
    except MemoryError as error:
        same, short = "2000x1500" in str(error), short + 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert same, megabytes
assert short
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {}) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")),
        ("JPEG", {"progressive": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_a_lack_of_memory_is_not_the_images_fault(tmp_path, kind, options):
    pixels = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    data = encode(Image.fromarray(pixels).resize((2000, 1500)), kind, **options)
    (tmp_path / "image").write_bytes(data)
    np.save(tmp_path / "whole.npy", decode(data, 64, "pad", 10**7))
    command = [
        sys.executable,
        "-c",
        IN_LITTLE_MEMORY,
        str(tmp_path / "image"),
        str(tmp_path / "whole.npy"),
    ]
    # Freed memory is returned to the system at once, so that it counts for the next limit.
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "seam",
    [
        "PIL.ImageFile.ImageFile.load",
        "PIL.ImageOps.exif_transpose",
        "cykooz_resizer.Resizer.resize_pil",
    ],
)
def test_a_memory_error_anywhere_is_raised(monkeypatch, seam):
    def fail(*unused_arguments, **unused_options):
        raise MemoryError

    monkeypatch.setattr(seam, fail)
    with pytest.raises(MemoryError, match=r"24x16 pixels.*--max_image_pixels"):
        decode(encode(photo(), "JPEG", exif=oriented(6)), 8, "pad", MAX_PIXELS)


@pytest.mark.parametrize(
    "header",
    [
        b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\x3f\0\xff\x3f\0",
        b"VP8L" + struct.pack("<I", 10) + b"\x2f" + struct.pack("<I", 0x3FFF | 0x3FFF << 14),
        b"VP8 "
        + struct.pack("<I", 10)
        + b"\x30\1\0\x9d\x01\x2a"
        + struct.pack("<HH", 16383, 16383),
    ],
)
def test_a_webp_of_absurd_size_takes_no_memory(monkeypatch, header):
    monkeypatch.setattr("PIL.Image.open", None)
    data = header.ljust(100, b"\0")
    assert (
        reason_of(b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data) == "too_many_pixels"
    )
