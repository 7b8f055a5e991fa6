"""Tests that a photograph has the same colours with every profile."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from beam_pipeline.images import icc
from beam_pipeline.images.decoding import decode
from beam_pipeline.images.lab_color import rgb_to_lab

# Adobe RGB (1998): its primaries adapted to D50, as in ICC profiles, and its gamma.
ADOBE_TO_PCS = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)
ADOBE_GAMMA = 563 / 256
# The primaries of IEC 61966-2-1, also adapted to D50.
SRGB_TO_PCS = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def make_profile(to_pcs: np.ndarray | None, gamma: float) -> bytes:
    """Return a matrix profile, or a grey one without a matrix (ICC.1:2010, 7 and 8)."""

    def fixed(*numbers: float) -> bytes:
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"text\0\0\0\0none\0\0\0\0"
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(90), b"cprt": text}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)
    if to_pcs is None:
        tags[b"kTRC"] = curve
    else:
        for name, column in zip((b"r", b"g", b"b"), to_pcs.T, strict=True):
            tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(*column)
            tags[name + b"TRC"] = curve
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    space = b"GRAY" if to_pcs is None else b"RGB "
    header = struct.pack(
        ">I4sI4s4s4s", offset + len(body), b"lcms", 0x02100000, b"mntr", space, b"XYZ "
    ) + bytes(12)
    header += b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249) + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body


ADOBE_RGB = make_profile(ADOBE_TO_PCS, ADOBE_GAMMA)


def photograph() -> np.ndarray:
    """Return soft colours within Adobe RGB and sRGB, uint8 (64, 64, 3)."""
    patches = np.random.default_rng(3).integers(30, 226, (5, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(patches).resize((64, 64), Image.Resampling.BICUBIC))


def to_adobe_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return what an Adobe RGB camera would store for an sRGB image, by the standards."""
    encoded = pixels / 255
    linear = np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    adobe = np.clip(linear @ SRGB_TO_PCS.T @ np.linalg.inv(ADOBE_TO_PCS).T, 0, 1)
    return np.round(adobe ** (1 / ADOBE_GAMMA) * 255).astype(np.uint8)


def lab_of(file: bytes) -> np.ndarray:
    return rgb_to_lab(decode(file, 64, "pad", 10**6).pixels)


def save(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_an_adobe_rgb_photograph_gives_the_lab_of_its_srgb_twin(kind, options):
    srgb = photograph()
    adobe = to_adobe_rgb(srgb)
    twin = lab_of(save(srgb))
    assert np.abs(lab_of(save(adobe)) - twin).max() > 10, (
        "the twins are too alike to prove anything"
    )
    difference = np.abs(lab_of(save(adobe, kind, icc_profile=ADOBE_RGB, **options)) - twin)
    assert difference.max() < 3.5
    assert difference.mean() < 0.6


def test_transparency_survives_a_profile():
    adobe = to_adobe_rgb(photograph())
    alpha = np.zeros((64, 64, 1), np.uint8)
    alpha[:32] = 255
    decoded = decode(
        save(np.concatenate([adobe, alpha], -1), icc_profile=ADOBE_RGB), 64, "pad", 10**6
    ).pixels
    assert (decoded[32:] == 255).all()
    np.testing.assert_array_equal(
        decoded[:32], decode(save(adobe, icc_profile=ADOBE_RGB), 64, "pad", 10**6).pixels[:32]
    )


@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_a_grey_profile_is_converted(gamma):
    level = 128
    decoded = decode(
        save(np.full((64, 64), level, np.uint8), icc_profile=make_profile(None, gamma)),
        64,
        "pad",
        10**6,
    ).pixels
    linear = (level / 255) ** gamma
    encoded = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(decoded.astype(float) - encoded).max() < 2


@pytest.mark.parametrize(
    "profile",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        b"no profile",
        ADOBE_RGB[:200],
        ADOBE_RGB[:128] + bytes(len(ADOBE_RGB) - 128),
        make_profile(None, 1.8),  # for grey images
    ],
    ids=["sRGB", "text", "cut", "empty", "for another mode"],
)
def test_pixels_stay_under_srgb_and_under_a_profile_that_is_not_valid(profile):
    pixels = photograph()
    np.testing.assert_array_equal(
        decode(save(pixels, icc_profile=profile), 64, "pad", 10**6).pixels, pixels
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_profile_costs_no_more_than_colours(data):
    profile = bytearray(ADOBE_RGB)
    for index in data.draw(st.lists(st.integers(0, len(profile) - 1), min_size=1, max_size=12)):
        profile[index] = data.draw(st.integers(0, 255))
    assert decode(
        save(photograph(), icc_profile=bytes(profile)), 64, "pad", 10**6
    ).pixels.shape == (64, 64, 3)


def test_large_profiles_are_not_kept():
    before = icc._is_srgb.cache_info().currsize
    for index in range(3):
        large = (
            struct.pack(">I", 1 << 17)
            + ADOBE_RGB[4:]
            + bytes([index]) * ((1 << 17) - len(ADOBE_RGB))
        )
        icc.to_srgb(Image.fromarray(photograph()), large)
    assert icc._is_srgb.cache_info().currsize == before
