"""Conversion between RGB and CIE L*a*b*, and the scalings of Lab in records. Pure.

Lab is that of `skimage.color.rgb2lab`: from sRGB, D65 white, 2 degree observer. It is computed here
because tables replace the two powers, of linear light and of f, which take most of scikit-image's
time: without AVX-512, NumPy computes them number by number.
"""

from __future__ import annotations

import numpy as np

# Bins of a* and of b* are 10 wide, with centres at -110, -100, ... 110.
AB_BIN, AB_BINS = 10, 23

_LEVELS = np.arange(256) / 255
# IEC 61966-2-1: the linear light of each 8-bit level.
LINEAR = np.where(_LEVELS > 0.04045, ((_LEVELS + 0.055) / 1.055) ** 2.4, _LEVELS / 12.92).astype(
    np.float32
)
# The primaries of ITU-R BT.709, and D65 of the 2 degree observer. The numbers are scikit-image's,
# whose import would take half a second of every command.
_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)
# Maps linear RGB to X/Xn, Y/Yn, Z/Zn.
TO_XYZ = (np.transpose(_TO_XYZ) / _WHITE).astype(np.float32)

# Maps f(X), f(Y), f(Z) to L* + 16, a*, b*:
# L* = 116 f(Y) - 16, a* = 500 (f(X) - f(Y)), b* = 200 (f(Y) - f(Z)).
TO_LAB = np.array([[0, 500, 0], [116, -500, 200], [0, 0, -200]], np.float32)

# CIE 15:2004: f(t) is the cube root of t above the threshold, and a straight line below.
_THRESHOLD, _SLOPE, _OFFSET = 0.008856, 7.787, 16 / 116
# The pieces of f as lines: 2 ** _MANTISSA_BITS for each power of two from 2 ** _MIN_EXPONENT to 2.
# The first bits of a float32 are the index of its piece.
_MIN_EXPONENT, _MANTISSA_BITS = -7, 10
_SHIFT = 23 - _MANTISSA_BITS
_FIRST_PIECE = (127 + _MIN_EXPONENT) << _MANTISSA_BITS

_BLOCK = 16384  # pixels converted at a time: their arrays stay in the processor's cache


def _make_pieces() -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets and slopes of the pieces of f, float32."""
    indices = np.arange(_FIRST_PIECE, (128 << _MANTISSA_BITS) + 1, dtype=np.uint32)
    edges = (indices << np.uint32(_SHIFT)).view(np.float32).astype(np.float64)
    values = np.where(edges > _THRESHOLD, np.cbrt(edges), _SLOPE * edges + _OFFSET)
    slopes = np.diff(values) / np.diff(edges)
    offsets = values[:-1] - slopes * edges[:-1]
    is_straight = edges[1:] <= _THRESHOLD
    slopes[is_straight], offsets[is_straight] = _SLOPE, _OFFSET
    return offsets.astype(np.float32), slopes.astype(np.float32)


_OFFSETS, _SLOPES = _make_pieces()


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
    flat = pixels.reshape(-1, 3)
    lab = np.empty((3, len(flat)), np.float32)
    for start in range(0, len(flat), _BLOCK):
        part = slice(start, start + _BLOCK)
        # All indices are valid; "clip" is faster than the default, which checks them.
        linear = np.take(LINEAR, flat[part], mode="clip")
        x, y, z = _f(TO_XYZ.T @ linear.T)
        l, a, b = lab[:, part]
        np.multiply(y, 116, out=l)
        l -= 16
        np.subtract(x, y, out=a)
        a *= 500
        np.subtract(y, z, out=b)
        b *= 200
    return np.moveaxis(lab.reshape(3, *pixels.shape[:-1]), 0, -1)


def _f(t: np.ndarray) -> np.ndarray:
    """Compute f of CIE 15:2004 of float32 numbers in [0, 2), within 3e-7."""
    pieces = (t.view(np.int32) >> _SHIFT).astype(np.intp)
    pieces -= _FIRST_PIECE
    # Numbers below the first piece belong to the same line.
    result = _SLOPES.take(pieces, mode="clip")
    result *= t
    result += _OFFSETS.take(pieces, mode="clip")
    return result


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Convert CIE L*a*b*, float (H, W, 3), to sRGB, uint8 (H, W, 3).

    Colours out of gamut are clipped.
    """
    from skimage import color

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
