"""Conversion between RGB and CIE L*a*b*, and the scalings of Lab in records. Pure.

Lab is that of `skimage.color.rgb2lab`: from sRGB, D65 white, 2 degree observer. It is computed here
because a table of the 256 levels replaces the conversion to linear light, which takes two fifths of
scikit-image's time.
"""

from __future__ import annotations

import numpy as np
from skimage import color

# Bins of a* and of b* are 10 wide, with centres at -110, -100, ... 110.
AB_BIN, AB_BINS = 10, 23

_LEVELS = np.arange(256) / 255
# IEC 61966-2-1: the linear light of each 8-bit level.
LINEAR = np.where(_LEVELS > 0.04045, ((_LEVELS + 0.055) / 1.055) ** 2.4, _LEVELS / 12.92).astype(
    np.float32
)
# Maps linear RGB to X/Xn, Y/Yn, Z/Zn with scikit-image's primaries and white.
TO_XYZ = (
    color.rgb2xyz(np.eye(3)) / color.xyz_tristimulus_values(illuminant="D65", observer="2")
).astype(np.float32)

# Maps f(X), f(Y), f(Z) to L* + 16, a*, b*:
# L* = 116 f(Y) - 16, a* = 500 (f(X) - f(Y)), b* = 200 (f(Y) - f(Z)).
TO_LAB = np.array([[0, 500, 0], [116, -500, 200], [0, 0, -200]], np.float32)


def rgb_to_lab(pixels: np.ndarray) -> np.ndarray:
    """Convert sRGB to CIE L*a*b*.

    Source: CIE 15:2004, with the constants of scikit-image.

    Args:
      pixels: uint8 (H, W, 3).

    Returns:
      float32 (H, W, 3): L* in [0, 100], a* and b* in about [-108, 99]. Within 2e-4 of
      `skimage.color.rgb2lab` in float64. In memory the three planes follow one another, since most
      users read them one by one.
    """
    # All indices are valid; "clip" is faster than the default, which checks them.
    linear = np.take(LINEAR, pixels, mode="clip").reshape(-1, 3)
    xyz = TO_XYZ.T @ linear.T
    f = np.cbrt(xyz)
    np.copyto(f, 7.787 * xyz + np.float32(16 / 116), where=xyz <= 0.008856)
    x, y, z = f
    l, a, b = lab = np.empty_like(f)
    np.multiply(y, 116, out=l)
    l -= 16
    np.subtract(x, y, out=a)
    a *= 500
    np.subtract(y, z, out=b)
    b *= 200
    return np.moveaxis(lab.reshape(3, *pixels.shape[:-1]), 0, -1)


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Convert CIE L*a*b*, float (H, W, 3), to sRGB, uint8 (H, W, 3).

    Colours out of gamut are clipped.
    """
    return np.round(color.lab2rgb(lab) * 255).astype(np.uint8)


def scale_lab(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale Lab, float32 (H, W, 3), as stored in `lab_float32` records.

    Returns:
      `L* / 50 - 1`, float32 (H, W, 1) in [-1, 1], and `a*, b*` divided by 127, float32 (H, W, 2)
      in (-1, 1).
    """
    l = lab[..., :1] / 50
    l -= 1
    ab = np.empty((*lab.shape[:-1], 2), np.float32)
    # Plane by plane is twice as fast.
    for plane in (0, 1):
        np.divide(lab[..., plane + 1], 127, out=ab[..., plane])
    return l.clip(-1, 1, out=l), ab


def unscale_lab(l: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """Invert `scale_lab`: float32 (H, W, 1) and (H, W, 2) to Lab, float32 (H, W, 3)."""
    return np.concatenate([(l + 1) * 50, ab * 127], axis=-1)


def quantize_lab(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round Lab, float32 (H, W, 3), to 8 bits as stored in `lab_uint8` records.

    The error is at most half a step: 0.2 in L*, 0.5 in a* and b*.

    Returns:
      `round(L* * 255 / 100)`, uint8 (H, W, 1), and `round(a*, b* + 128)`, uint8 (H, W, 2).
    """
    quantized_l = np.rint(lab[..., :1] * 2.55).clip(0, 255)
    ab = np.empty((*lab.shape[:-1], 2), np.uint8)
    for plane in (0, 1):
        ab[..., plane] = np.rint(lab[..., plane + 1] + 128).clip(0, 255)
    return quantized_l.astype(np.uint8), ab
