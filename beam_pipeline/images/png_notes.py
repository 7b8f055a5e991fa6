"""PNG files with text that records how an image was made."""

from __future__ import annotations

import io
import re
import struct
import zlib

import numpy as np
from PIL import Image

from beam_pipeline.images import headers
from beam_pipeline.images.headers import FORMATS
from beam_pipeline.process import deflate

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AVERAGE = 3  # the filter whose rows compress best of those that take little time


def encode_png(pixels: np.ndarray, **notes: str) -> bytes:
    """Encode pixels, uint8 (H, W, 3), as a PNG with notes as its text chunks.

    All rows have one filter, of the mean of the left and the upper pixel, and ISA-L compresses
    them: a seventh of Pillow's time, and 4% more bytes for photographs. Format:
    https://www.w3.org/TR/png-3.
    """
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    means = np.zeros(rows.shape, np.uint16)
    means[:, channels:] = rows[:, :-channels]
    means[1:] += rows[:-1]
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _AVERAGE
    # Differences are modulo 256.
    filtered[:, 1:] = rows - (means >> 1).astype(np.uint8)
    # Bit depth, colour type (RGB), compression, filter and interlace methods.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    texts = (f"{name}\0{note}".encode("latin-1") for name, note in notes.items())
    chunks = (
        (b"IHDR", header),
        *((b"tEXt", text) for text in texts),
        (b"IDAT", deflate.compress_zlib(filtered.tobytes())),
        (b"IEND", b""),
    )
    return _SIGNATURE + b"".join(part for kind, data in chunks for part in _chunk(kind, data))


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)


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
