"""Checks on the headers of image files.

They find files that keep a decoder busy, files that Pillow misreads, and the reason of a failure.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import operator
import struct
import zlib
from collections.abc import Iterator

from PIL import Image, TiffImagePlugin

# Progressive JPEGs have about ten scans; GIFs have a comment or two, and a profile.
MAX_SCANS, MAX_EXTENSIONS = 500, 1 << 20
# Decompressed bytes of the profile of a PNG, and of all its texts together.
MAX_PROFILE, MAX_TEXT = 16 * 2**20, 16 * 2**20
_PNG = b"\x89PNG\r\n\x1a\n"
# Tags of TIFF 6.0.
_BITS, _PHOTOMETRIC, _PLANAR, _TILE_WIDTH, _TILE_LENGTH, _INK_SET, _EXTRA, _FORMAT = (
    258,
    262,
    284,
    322,
    323,
    332,
    338,
    339,
)
_OFFSETS_AND_LENGTHS = ((273, 279), (324, 325))  # offsets and lengths, of strips and of tiles
_SEPARATE, _SIGNED, _NOT_CMYK = 2, 2, 2

_TIFF = (b"II*\0", b"MM\0*")

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")

# Signatures of other image formats, to separate them from other files: (offset, bytes,
# name).
_OTHER_FORMATS = (
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"II\xbc", "JPEG XR"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
)


class DecodeError(Exception):
    """The bytes cannot be decoded to an image.

    Attributes:
      reason: `not_an_image`, `truncated`, `corrupt`, `too_many_pixels` or `unsupported_format`.
      detail: A description for a person.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def check_headers(data: bytes) -> None:
    """Raise DecodeError for a small file that would keep a decoder busy for minutes."""
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MAX_SCANS:
        raise DecodeError("corrupt", f"the JPEG has more than {MAX_SCANS} scans")
    if data.startswith(b"GIF8"):
        position = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
        # An extension is a label and blocks; an empty block ends it.
        while data[position : position + 1] == b"!":
            position += 2
            while position < len(data) and data[position]:
                position += 1 + data[position]
                if position > MAX_EXTENSIONS:
                    raise DecodeError(
                        "corrupt", f"the GIF has more than {MAX_EXTENSIONS} bytes before its image"
                    )
            position += 1


def trim_png(data: bytes) -> bytes:
    """Return a PNG without oversized texts and profiles.

    Texts beyond `MAX_TEXT` bytes in total are removed, and a profile beyond `MAX_PROFILE` bytes or
    after the first one. Pillow decompresses all of them and rejects the image if one is large.
    Other files are returned unchanged.
    """
    if not data.startswith(_PNG):
        return data
    kept, position = [], 0
    budget = {b"iCCP": MAX_PROFILE, b"text": MAX_TEXT}
    for start, end, kind in _chunks_of_png(data):
        if kind not in (b"iCCP", b"tEXt", b"zTXt", b"iTXt"):
            continue
        pool = kind if kind in budget else b"text"
        if budget[pool]:
            length = _unpacked_length(data[start + 8 : end - 4], kind, budget[pool])
            if length <= budget[pool]:
                budget[pool] = 0 if kind == b"iCCP" else budget[pool] - length
                continue
        budget[pool] = 0
        kept.append(data[position:start])
        position = end
    return b"".join([*kept, data[position:]]) if kept else data


def _chunks_of_png(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield start, end and type of the complete chunks (PNG specification, 5.3)."""
    start = len(_PNG)
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            return
        yield start, end, kind
        start = end


def _unpacked_length(chunk: bytes, kind: bytes, limit: int) -> int:
    """Return the decompressed bytes of a text or profile (PNG specification, 11.3.3 and 11.3.4).

    Args:
      chunk: The chunk's data.
      kind: The chunk's type.
      limit: Maximum length. Returns `limit + 1` for compressed data that is longer or broken.
    """
    compressed = chunk.partition(b"\0")[2][1:]
    if kind == b"iTXt":
        compressed = compressed[1:].split(b"\0", 2)[-1]
    if kind == b"tEXt" or (kind == b"iTXt" and chunk.partition(b"\0")[2][:1] in (b"", b"\0")):
        return len(chunk)
    try:
        return len(zlib.decompressobj().decompress(compressed, limit + 1))
    except zlib.error:
        return limit + 1


def canvas_of_webp(data: bytes) -> tuple[int, int]:
    """Return width and height by the header of a WebP; (0, 0) for any other file.

    Pillow allocates the memory of a WebP when it opens it.
    """
    if not (data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30):
        return 0, 0
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if data[12:16] == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(
            data[28:30], "little"
        ) & 0x3FFF
    return 0, 0


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise DecodeError for an image of more than `max_pixels` pixels."""
    if width * height > max_pixels:
        raise DecodeError("too_many_pixels", f"{width}x{height} pixels, more than {max_pixels}")


def check_work(image: Image.Image, max_pixels: int) -> None:
    """Raise DecodeError for an image whose tiles or strips hold more pixels than it has."""
    tags = getattr(image, "tag_v2", {})
    width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    if isinstance(width, int) and isinstance(length, int) and width * length > max_pixels:
        raise DecodeError(
            "too_many_pixels", f"tiles of {width}x{length} pixels, more than {max_pixels}"
        )
    area = sum(
        (right - left) * (bottom - top)
        for _, (left, top, right, bottom), *_ in getattr(image, "tile", ())
    )
    if area > image.width * image.height * len(image.getbands()):
        raise DecodeError("corrupt", "its tiles overlap")


def check_tiff(image: Image.Image) -> None:
    """Raise DecodeError for a TIFF that Pillow misreads or whose values have no known range."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    if image.mode == "F":
        raise DecodeError(
            "unsupported_format", "its pixels are floating-point numbers, whose range is unknown"
        )
    if image.mode == "I" or _SIGNED in tags.get(_FORMAT, ()):
        raise DecodeError(
            "unsupported_format", "its pixels are signed or 32-bit integers, whose range is unknown"
        )
    if tags.get(_INK_SET, 1) == _NOT_CMYK:
        raise DecodeError("unsupported_format", "its inks are not cyan, magenta, yellow and black")
    unnamed = image.mode == "RGBA" and _EXTRA not in tags
    if tags.get(_PLANAR, 1) == _SEPARATE and (unnamed or image.mode in ("LA", "PA", "LAB")):
        raise DecodeError("unsupported_format", f"{image.mode} in separate planes")


def grey_range(image: Image.Image) -> tuple[int, int]:
    """Return the values of black and white in an image of 16-bit grey pixels."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return 0, 65535
    top = 4095 if tags.get(_BITS) == (12,) else 65535
    return (top, 0) if tags.get(_PHOTOMETRIC, 0) == 0 else (0, top)


def is_cut(data: bytes) -> bool:
    """Return whether a WebP or TIFF is shorter than its header says.

    Pillow reports such a file as broken or as no image.
    """
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if not data.startswith(_TIFF):
        return False
    if (
        len(data) < 8
        or len(data) < int.from_bytes(data[4:8], "little" if data.startswith(b"II") else "big") + 2
    ):
        return True
    # Exceptions from broken tags carry no information about the length.
    with contextlib.suppress(Exception):
        tags = TiffImagePlugin.TiffImageFile(io.BytesIO(data)).tag_v2
        pieces = [
            map(operator.add, *(tags.get(tag, ()) for tag in pair)) for pair in _OFFSETS_AND_LENGTHS
        ]
        return max(itertools.chain(*pieces)) > len(data)
    return False


def explain_unidentified(data: bytes) -> DecodeError:
    """Return the error for a file that Pillow does not identify as an image."""
    if is_cut(data):
        return DecodeError("truncated", f"{len(data)} bytes, fewer than its header says")
    if data.startswith(_TIFF) and _has_unknown_pixels(data):
        return DecodeError("unsupported_format", "a TIFF with an unsupported kind of pixels")
    head = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    is_page = head.startswith((b"<!doctype html", b"<html", b"<head")) or b"<!doctype html" in head
    formats = [name for offset, magic, name in _OTHER_FORMATS if data.startswith(magic, offset)]
    if head.startswith(b"<") and b"<svg" in head and not is_page:
        formats.append("SVG")
    if formats:
        return DecodeError(
            "unsupported_format", f"{formats[0]}; only {', '.join(FORMATS)} are read"
        )
    if is_page:
        return DecodeError("not_an_image", "a web page")
    return DecodeError("not_an_image", f"{len(data)} bytes that begin with {data[:16]!r}")


def _has_unknown_pixels(data: bytes) -> bool:
    """Return whether Pillow reads the header of a TIFF, but does not support its pixels."""
    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(data)).close()
    except Exception as error:
        return str(error).startswith("unknown ")
    return False
