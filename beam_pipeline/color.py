"""RGB <-> CIE L*a*b*, and the scalings under which records hold Lab. Pure.

Lab is that of `skimage.color.rgb2lab`: from sRGB, D65 white, 2 degree observer.
"""

from __future__ import annotations

import numpy as np
from skimage import color


def rgb_to_lab(pixels: np.ndarray) -> np.ndarray:
    """Converts sRGB to CIE L*a*b*.

    Args:
      pixels: uint8 (H, W, 3).

    Returns:
      float32 (H, W, 3): L* in [0, 100], a* and b* in about [-108, 99].
    """
    return color.rgb2lab(np.divide(pixels, 255, dtype=np.float32))


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Converts CIE L*a*b*, float (H, W, 3), back to sRGB, uint8 (H, W, 3); colours out of gamut are clipped."""
    return np.round(color.lab2rgb(lab) * 255).astype(np.uint8)


def scale_lab(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales Lab, float32 (H, W, 3), as `lab_float32` records hold it.

    Returns:
      `L* / 50 - 1`, float32 (H, W, 1) in [-1, 1], and `a*, b*` divided by 127, float32 (H, W, 2) in (-1, 1).
    """
    return np.clip(lab[..., :1] / 50 - 1, -1, 1), lab[..., 1:] / 127


def unscale_lab(l: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """The inverse of `scale_lab`: float32 (H, W, 1) and (H, W, 2) to Lab, float32 (H, W, 3)."""
    return np.concatenate([(l + 1) * 50, ab * 127], axis=-1)


def quantize_lab(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds Lab, float32 (H, W, 3), to 8 bits as `lab_uint8` records hold it.

    The error is at most half a step: 0.2 in L*, 0.5 in a* and b*.

    Returns:
      `round(L* * 255 / 100)`, uint8 (H, W, 1), and `round(a*, b* + 128)`, uint8 (H, W, 2).
    """
    quantized_l = np.clip(np.rint(lab[..., :1] * 2.55), 0, 255)
    return quantized_l.astype(np.uint8), np.clip(np.rint(lab[..., 1:] + 128), 0, 255).astype(np.uint8)
