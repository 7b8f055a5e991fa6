"""PNG files with text that records how an image was made."""

from __future__ import annotations

import io
import re
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

from beam_pipeline.images import headers
from beam_pipeline.images.headers import FORMATS

# Photographs repeat little but runs: matching only those is smaller and faster than zlib's level 1.
PNG_COMPRESSION = zlib.Z_RLE


def encode_png(pixels: np.ndarray, **notes: str) -> bytes:
    """Encode pixels, uint8 (H, W, 3), as a PNG with notes as its text chunks."""
    file, text = io.BytesIO(), PngImagePlugin.PngInfo()
    for name, note in notes.items():
        text.add_text(name, note)
    Image.fromarray(pixels).save(file, "PNG", compress_type=PNG_COMPRESSION, pnginfo=text)
    return file.getvalue()


def note_size(size: tuple[int, int]) -> str:
    """Format the size of an original for the note `original` of `encode_png`.

    Args:
      size: Width and height, pixels.
    """
    return f"{size[0]}x{size[1]}"


def read_note(data: bytes) -> tuple[int, int] | None:
    """Return the size in the note `original` of a PNG; None if there is no such note."""
    with Image.open(io.BytesIO(headers.trim_png(data)), formats=FORMATS) as image:
        note = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", str(image.info.get("original", "")))
    return (int(note[1]), int(note[2])) if note else None
