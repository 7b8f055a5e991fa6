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
    small = _shrink(lab)
    pair = lab_color.lab_to_rgb(np.concatenate([small * [1, 0, 0], small], axis=1))
    return _encode(pair)


def make_match(one: np.ndarray, other: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """Return two images side by side as a JPEG, and its width and height in pixels.

    Each picture has a side of about 150 pixels. The lower one has white below.

    Args:
      one, other: float32 (H, W, 3), CIE L*a*b*.
    """
    pictures = [lab_color.lab_to_rgb(_shrink(lab)) for lab in (one, other)]
    height = max(map(len, pictures))
    return _encode(
        np.concatenate(
            [
                np.pad(picture, [(0, height - len(picture)), (0, 0), (0, 0)], constant_values=255)
                for picture in pictures
            ],
            axis=1,
        )
    )


def _shrink(lab: np.ndarray) -> np.ndarray:
    height, width = lab.shape[:2]
    # An image may be narrower than a step.
    step = min(math.ceil(max(height, width) / _SIDE), height, width)
    rows, columns = height // step, width // step
    blocks = lab[: rows * step, : columns * step].reshape(rows, step, columns, step, 3)
    return blocks.mean(axis=(1, 3))


def _encode(pixels: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return file.getvalue(), (pixels.shape[1], pixels.shape[0])
