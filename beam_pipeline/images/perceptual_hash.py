"""The perceptual hash PDQ of an image. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

HASH_BYTES = 32
_MAX_SIDE = 512  # of the hashed image, pixels, as PDQ's description recommends


class PerceptualHash(NamedTuple):
    """A PDQ hash: https://github.com/facebook/ThreatExchange/tree/main/pdq.

    Attributes:
      pdq: 32 bytes. Versions of one photograph differ in few of the 256 bits, others in about 128.
      quality: In [0, 100]; low for images without structure, whose hashes mean nothing.
    """

    pdq: bytes
    quality: int


def compute_hash(pixels: np.ndarray) -> PerceptualHash:
    """Return the hash of an image, uint8 (H, W, 3), sRGB, without padding."""
    # Readers import this module, and need no hashes.
    import pdqhash

    factor = math.ceil(max(pixels.shape) / _MAX_SIDE)
    if factor > 1:
        pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).reduce(factor))
    bits, quality = pdqhash.compute(pixels)
    return PerceptualHash(np.packbits(bits.astype(np.uint8)).tobytes(), quality)
