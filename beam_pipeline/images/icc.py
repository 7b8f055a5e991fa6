"""Conversion from embedded colour profiles to sRGB. Pure."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_MAX_CACHED = 1 << 16  # bytes of a profile for which `_is_srgb` is cached

_SRGB = ImageCms.createProfile("sRGB")
# A coarse grid over the RGB cube: a profile that leaves it unchanged is equivalent to sRGB.
_PROBE = Image.fromarray(
    np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), -1).reshape(1, -1, 3)
)


def to_srgb(image: Image.Image, data: bytes) -> Image.Image:
    """Convert an image from its embedded ICC profile to sRGB.

    Args:
      image: An image of mode L, RGB, RGBA or CMYK.
      data: The profile. It is ignored if it is broken, made for another mode, or equivalent to
        sRGB.

    Returns:
      An image of mode RGB or RGBA, or the same image if the profile is ignored.
    """
    try:
        profile = ImageCms.getOpenProfile(io.BytesIO(data))
        is_srgb = _is_srgb if len(data) <= _MAX_CACHED else _is_srgb.__wrapped__
        if image.mode.startswith("RGB") and is_srgb(data):
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(image, profile, _SRGB, outputMode=mode) or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


@functools.lru_cache(256)
def _is_srgb(data: bytes) -> bool:
    probed = ImageCms.profileToProfile(
        _PROBE, ImageCms.getOpenProfile(io.BytesIO(data)), _SRGB, outputMode="RGB"
    )
    return (
        probed is not None
        and np.abs(np.asarray(probed).astype(int) - np.asarray(_PROBE)).max() <= 2
    )
