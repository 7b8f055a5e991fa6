"""Tests of headers: TIFFs of every kind, and PNGs with large texts.

A TIFF yields its pixels or a reason, never other pixels. The texts of a PNG keep no decoder busy.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_icc import ADOBE_RGB
from tiffs import LAYOUTS, Layout, write_tiff

from beam_pipeline.images import decoding, headers, png_notes

WIDTH, HEIGHT = 21, 20
Y, X = np.mgrid[:HEIGHT, :WIDTH]
PLANES = [
    ((X * 11 + Y * 3) % 256),
    ((X * 7 + Y * 5 + 60) % 256),
    ((X * 3 + Y * 9 + 120) % 256),
    X * 9 % 256,
    Y * 11 % 256,
]
SAMPLES = np.stack(PLANES, -1).astype(np.uint8)
GREY, RGB, ALPHA = SAMPLES[..., :1], SAMPLES[..., :3], SAMPLES[..., 3:4]
GREY_ALPHA = np.concatenate([GREY, ALPHA], -1)
PREMULTIPLIED = np.concatenate([np.round(RGB * (ALPHA / 255)).astype(np.uint8), ALPHA], -1)
ON_WHITE = RGB * (ALPHA / 255) + 255 - ALPHA
CMYK_IN_RGB = (255.0 - RGB) * (255.0 - ALPHA) / 255
YCBCR = np.asarray(Image.fromarray(RGB).convert("YCbCr"))
PALETTE = np.random.default_rng(0).integers(0, 256, (3, 256))

# 8-bit samples, PhotometricInterpretation, further tags, the expected pixels. 338 is ExtraSamples,
# 530 the subsampling.
KINDS: dict[str, tuple[np.ndarray, int, dict, np.ndarray]] = {
    "black is zero": (GREY, 1, {}, GREY),
    "white is zero": (255 - GREY, 0, {}, GREY),
    "rgb": (RGB, 2, {}, RGB),
    "rgb and alpha": (SAMPLES[..., :4], 2, {"t338": 2}, ON_WHITE),
    "premultiplied": (PREMULTIPLIED, 2, {"t338": 1}, ON_WHITE),
    "rgb and something": (SAMPLES[..., :4], 2, {"t338": 0}, RGB),
    "rgb and more": (SAMPLES, 2, {"t338": [0, 0]}, RGB),
    "rgb, alpha and more": (SAMPLES, 2, {"t338": [2, 0]}, ON_WHITE),
    "rgb and unnamed": (SAMPLES[..., :4], 2, {}, ON_WHITE),
    "grey and alpha": (GREY_ALPHA, 1, {"t338": 2}, GREY * (ALPHA / 255) + 255 - ALPHA),
    "grey and something": (GREY_ALPHA, 1, {"t338": 0}, GREY),
    "cmyk": (SAMPLES[..., :4], 5, {}, CMYK_IN_RGB),
    "cmyk and more": (SAMPLES, 5, {"t338": 0}, CMYK_IN_RGB),
    "ycbcr": (YCBCR, 6, {"t530": [1, 1]}, RGB),
}
COLORMAP = {"t320": (PALETTE * 257).ravel().tolist()}
PALETTES: dict[str, tuple[np.ndarray, int, dict, np.ndarray]] = {
    "palette": (GREY, 3, COLORMAP, PALETTE.T[GREY[..., 0]]),
    "palette and alpha": (
        GREY_ALPHA,
        3,
        COLORMAP | {"t338": 2},
        PALETTE.T[GREY[..., 0]] * (ALPHA / 255) + 255 - ALPHA,
    ),
}
# The kinds that must be read in every layout; for the others a Failure is acceptable.
USUAL = ("black is zero", "rgb", "rgb and alpha", "premultiplied", "rgb and something", "cmyk")


def decode(data: bytes) -> np.ndarray:
    return decoding.decode(data, WIDTH, "pad", 10**6).pixels[:HEIGHT]


def assert_pixels_or_reason(data: bytes, pixels: np.ndarray, has_to_be_read: bool) -> None:
    try:
        decoded = decode(data)
    except headers.DecodeError as error:
        assert not has_to_be_read, error
        # libtiff does not read five planes in strips.
        assert error.reason in ("unsupported_format", "corrupt")
        assert error.detail
        return
    np.testing.assert_allclose(decoded, np.broadcast_to(pixels, decoded.shape), atol=2, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: repr(layout)[7:-1])
@pytest.mark.parametrize("kind", [*KINDS, *PALETTES])
def test_8_bit_samples(kind, layout):
    samples, photometric, tags, pixels = (KINDS | PALETTES)[kind]
    assert_pixels_or_reason(
        write_tiff(samples, photometric, layout, **tags),
        pixels,
        kind in (*USUAL, "white is zero", "palette"),
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: repr(layout)[7:-1])
@pytest.mark.parametrize("kind", KINDS)
def test_16_bit_samples(kind, layout):
    samples, photometric, tags, pixels = KINDS[kind]
    has_to_be_read = kind in USUAL or (kind == "white is zero" and layout.order == "<")
    assert_pixels_or_reason(
        write_tiff(samples.astype(np.uint16) * 257, photometric, layout, **tags),
        pixels,
        has_to_be_read,
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: repr(layout)[7:-1])
@pytest.mark.parametrize("kind", ["u4", "i1", "i2", "i4", "f2", "f4"])
@pytest.mark.parametrize("samples", [GREY, RGB], ids=["grey", "rgb"])
def test_numbers_of_an_unknown_range_are_not_guessed_at(samples, kind, layout):
    with pytest.raises(headers.DecodeError) as caught:
        decode(write_tiff(samples.astype(kind), 1 if samples is GREY else 2, layout))
    assert caught.value.reason == "unsupported_format"


def test_inks_of_other_colours_are_not_guessed_at():
    with pytest.raises(headers.DecodeError, match="inks"):
        decode(write_tiff(SAMPLES[..., :4], 5, LAYOUTS[0], t332=2))


def test_12_bit_grey():
    levels = (X[:, :20] * 187 + Y[:, :20] * 31) % 4096
    first, second = levels[:, ::2], levels[:, 1::2]
    compressed = (
        np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
        .astype(np.uint8)
        .reshape(HEIGHT, 30, 1)
    )
    data = write_tiff(compressed, 1, Layout("<", False, False, False), t256=20, t258=12)
    pixels = decoding.decode(data, 20, "pad", 10**6).pixels
    np.testing.assert_allclose(pixels[..., 0], levels * (255 / 4095), atol=0.5, rtol=0)
    # Pillow has no reader for PhotometricInterpretation 0 with 12 bits.
    with pytest.raises(headers.DecodeError, match="unsupported kind of pixels"):
        decode(write_tiff(compressed, 0, Layout("<", False, False, False), t256=20, t258=12))


# PNGs with large profiles and texts.


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def ztxt(text: bytes) -> bytes:
    return chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text, 9))


def itxt(text: bytes, keyword: bytes = b"Comment", flag: bytes = b"\1") -> bytes:
    return chunk(
        b"iTXt",
        keyword + b"\0" + flag + b"\0en\0\0" + (zlib.compress(text, 9) if flag != b"\0" else text),
    )


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"profile\0\0" + zlib.compress(profile, 9))


def make_png(*chunks: bytes, behind: bytes = b"") -> bytes:
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    png = file.getvalue()
    return png[:33] + b"".join(chunks) + png[33:-12] + behind + png[-12:]


def padded_profile(length: int) -> bytes:
    """Return the Adobe RGB profile with zeros after its tags."""
    return struct.pack(">I", length) + ADOBE_RGB[4:] + bytes(length - len(ADOBE_RGB))


LARGE = 3 * 2**20
BOMB = bytes(2 * headers.MAX_TEXT)
BROKEN = zlib.compress(bytes(headers.MAX_TEXT // 2), 9)[:-10] + b"broken at its end"


@pytest.mark.parametrize(
    "chunks",
    [
        [ztxt(b"x" * LARGE)],
        [itxt(b"x" * LARGE)],
        [itxt(b"x" * LARGE, flag=b"\0")],
        [chunk(b"tEXt", b"Comment\0" + b"x" * LARGE)],
        [ztxt(b"x" * LARGE)] * 30,
        [chunk(b"tEXt", b"Comment\0" + b"x" * LARGE)] * 30,
        [ztxt(BOMB)] * 3,
        [itxt(BOMB)] * 3,
        [itxt(BOMB, flag=b"\2")],
        [iccp(BOMB)] * 3,
        [chunk(b"zTXt", b"Comment\0\0" + BROKEN)],
        [chunk(b"zTXt", b""), chunk(b"iTXt", b""), chunk(b"tEXt", b""), chunk(b"iTXt", b"a\0\1\0")],
    ],
    ids=range(12),
)
@pytest.mark.parametrize("is_behind", [False, True])
def test_texts_of_any_length_cost_no_png(chunks, is_behind):
    # Only a profile before the pixels counts.
    png = make_png(behind=b"".join(chunks)) if is_behind else make_png(*chunks)
    np.testing.assert_array_equal(decode(png), RGB)
    assert png_notes.read_note(png) is None


def test_a_large_profile_counts():
    adobe = padded_profile(LARGE)
    expected = decode(make_png(iccp(ADOBE_RGB)))
    assert np.abs(expected.astype(int) - RGB).max() > 10
    np.testing.assert_array_equal(decode(make_png(iccp(adobe))), expected)
    np.testing.assert_array_equal(decode(make_png(ztxt(BOMB), iccp(adobe), iccp(BOMB))), expected)


def test_orientation_is_found_among_large_texts():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'.ljust(LARGE)
    upright = decode(make_png(itxt(xmp, b"XML:com.adobe.xmp"), itxt(BOMB)))
    np.testing.assert_array_equal(upright, RGB[::-1, ::-1])


def test_bombs_of_any_number_are_unpacked_once(monkeypatch):
    unpacked = 0
    decompressobj = zlib.decompressobj

    class Counting:
        def __init__(self) -> None:
            self._real = decompressobj()

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal unpacked
            out = b""
            try:
                out = self._real.decompress(data, most)
            finally:
                unpacked += len(out) or most
            return out

        @property
        def unconsumed_tail(self) -> bytes:
            return self._real.unconsumed_tail

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    broken = chunk(b"zTXt", b"Comment\0\0" + BROKEN)
    png = make_png(*[ztxt(BOMB)] * 50, *[itxt(BOMB)] * 50, *[iccp(BOMB)] * 50, *[broken] * 50)
    np.testing.assert_array_equal(decode(png), RGB)
    assert unpacked <= 3 * (headers.MAX_TEXT + headers.MAX_PROFILE)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"IDAT"]), st.binary(max_size=40)
        )
    ),
    st.data(),
)
def test_trimming_keeps_small_complete_files(chunks, data):
    png = make_png(*(chunk(kind, content) for kind, content in chunks))
    trimmed = headers.trim_png(png)
    assert headers.trim_png(trimmed) == trimmed
    assert trimmed.startswith(png[:33]) and trimmed.endswith(png[-12:])
    cut = png[: data.draw(st.integers(0, len(png)))]
    assert len(headers.trim_png(cut)) <= len(cut)


def test_what_is_no_png_is_not_trimmed():
    for data in (b"", b"\x89PNG", b"GIF89a", b"\x89PNG\r\n\x1a\n"):
        assert headers.trim_png(data) is data
