"""Reading of image files, and of images in archives that can be read by their offset."""

from __future__ import annotations

import zlib

from apache_beam.io.filesystem import BeamIOError

from beam_pipeline.elements import EncodedImage, Extent, Failure, ImageRef
from beam_pipeline.storage import filesystem, ranges


def read_file(ref: ImageRef, max_bytes: int) -> EncodedImage | Failure:
    """Read an image file, or an image in an archive, from any filesystem that Beam supports.

    Args:
      ref: The image; its `location` is an `Extent`.
      max_bytes: Maximum size of the image, in bytes.
    """
    assert isinstance(ref.location, Extent)
    try:
        data = _read_extent(ref.location, max_bytes + 1)
    except zlib.error as error:
        detail = f"its compressed bytes are damaged: {error}"
        return Failure(ref, "read", "corrupt_container", detail, 1, ref.url)
    except (OSError, BeamIOError) as error:
        return Failure(ref, "fetch", "not_found", str(error), 1, ref.url)
    if not data:
        return Failure(ref, "fetch", "empty", "a file of 0 bytes", 1, ref.url)
    if len(data) > max_bytes:
        return Failure(
            ref,
            "fetch",
            "too_large",
            f"more than the {max_bytes} bytes that are allowed",
            1,
            ref.url,
        )
    return EncodedImage(ref, data, 1, ref.url)


def _read_extent(extent: Extent, limit: int) -> bytes:
    """Return the bytes of an image, at most `limit`.

    Raises:
      OSError: The file cannot be read.
      zlib.error: The compressed bytes are damaged.
    """
    if extent.size is None:
        with filesystem.client_errors(extent.path):
            return filesystem.read_bytes(extent.path, limit)
    if not extent.is_deflated:
        return ranges.read_range(extent.path, extent.offset, min(extent.size, limit))
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    data = unpacker.decompress(
        ranges.read_range(extent.path, extent.offset, extent.size), max_length=limit
    )
    if not unpacker.eof and len(data) < limit:
        raise zlib.error("they end early")
    return data
