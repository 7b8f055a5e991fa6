"""Small pictures for reports. Pure."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from beam_pipeline.images import lab_color

_SIDE = 150  # of a picture, about, pixels


def make_pair(lab: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """Return the grey image beside the colour one as a JPEG, and its width and height in pixels.

    Each picture has a side of about 150 pixels.

    Args:
      lab: float32 (H, W, 3), CIE L*a*b*.
    """
    height, width = lab.shape[:2]
    # An image may be narrower than a step.
    step = min(math.ceil(max(height, width) / _SIDE), height, width)
    rows, columns = height // step, width // step
    blocks = lab[: rows * step, : columns * step].reshape(rows, step, columns, step, 3)
    small = blocks.mean(axis=(1, 3))
    pair = lab_color.lab_to_rgb(np.concatenate([small * [1, 0, 0], small], axis=1))
    file = io.BytesIO()
    Image.fromarray(pair).save(file, "JPEG", quality=80)
    return file.getvalue(), (2 * columns, rows)
