"""Conversion of parsed records to NumPy arrays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from beam_pipeline.dataset_info import Features
from beam_pipeline.images import lab_color


def decode_planes(values: dict[str, Any], features: Features, encoding: str) -> dict[str, Any]:
    """Decode a parsed record to the arrays of `dataset.examples`.

    The NumPy counterpart of `tf_decode.decode_planes`.

    Args:
      values: The result of `example_codec.decode_example`.
      features: The features of a record, as in `dataset.json`.
      encoding: `lab_float32`, `lab_uint8` or `rgb_png`.

    Raises:
      ValueError: The PNG is broken or has another size.
    """
    # Arrays are views of the record. Arithmetic in place saves a third of its time.
    values = {
        name: value.astype(np.float32) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }
    if encoding == "lab_uint8":
        values["image_l"] /= np.float32(127.5)
        values["image_l"] -= 1
        values["image_ab"] -= 128
        values["image_ab"] /= 127
    elif encoding == "rgb_png":
        pixels = _decode_png(values.pop("image_png"), tuple(features["image_png"].shape))
        values["image_l"], values["image_ab"] = lab_color.scale_lab(lab_color.rgb_to_lab(pixels))
    return values


def _decode_png(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            size, mode = (image.height, image.width, 3), image.mode
            pixels = np.asarray(image) if (size, mode) == (shape, "RGB") else None
    # Pillow may raise any exception on broken data.
    except Exception as error:
        raise ValueError(f"image_png cannot be decoded: {error}") from error
    if pixels is None:
        raise ValueError(f"image_png is {mode} of {size}, not RGB of {shape}")
    return pixels
