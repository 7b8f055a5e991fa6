"""Encoded bytes -> square 8-bit sRGB pixels: decode, orient, flatten, convert, resize. In any thread."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from beam_pipeline import profiles

# decode has a limit of its own, which a user may set higher.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of odd metadata.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Pixels of the images that are being decoded in all threads together, but of one image that has more: each takes some 24 bytes.
_MOST_PIXELS = 64_000_000
_decoding: list[int] = []
_decoded = threading.Condition()

# Progressive JPEGs have ten or so; files have a comment or two, and a profile.
MOST_SCANS, MOST_EXTENSIONS = 500, 1 << 20
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # of TIFF 6.0, section 15

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")

# Images that are none of the six, told from what is no image at all: (offset, bytes there, name).
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
    """The bytes give no image. `reason`: `not_an_image`, `truncated`, `corrupt`, `too_many_pixels` or `unsupported_format`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Decoded(NamedTuple):
    """A square, `pixels` uint8 (size, size, 3), sRGB; width and height of the image of which it was made, upright, in pixels."""

    pixels: np.ndarray
    original_size: tuple[int, int]


def decode(data: bytes, size: int, resize: str, max_pixels: int) -> Decoded:
    """Decodes an image file and makes it a square.

    EXIF orientation is applied; transparency lies on white; an animation gives its first frame; grey, palette, CMYK, YCCK
    and 16-bit images become 8-bit sRGB; an embedded colour profile that is valid and not sRGB is converted.

    Args:
      data: A JPEG, PNG, GIF, WebP, BMP or TIFF file.
      size: Side of the square, pixels.
      resize: `pad`, `crop` or `stretch`, as `make_square` has them.
      max_pixels: An image whose header tells more is refused before it is decoded.

    Raises:
      DecodeError: the bytes give no image.
    """
    try:
        _check_headers(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise DecodeError("too_many_pixels", f"{image.width}x{image.height} pixels, {max_pixels} are allowed")
            _check_work(image, max_pixels)
            with _room_for(pixels):
                image.load()
                _scale_transparent_color(image, data)
                upright = _orient(image)
                return Decoded(np.asarray(make_square(_to_srgb(upright), size, resize)), upright.size)
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise _explain_unidentified(data) from None
    # What Pillow's decoders raise on hostile bytes is bounded by nothing, and all of it is the image's fault.
    except Exception as error:
        is_cut = "truncated" in str(error).lower() or isinstance(error, EOFError) or _is_cut(data)
        reason = "truncated" if is_cut else "corrupt"
        raise DecodeError(reason, f"{type(error).__name__}: {error}") from None


def note_size(size: tuple[int, int]) -> str:
    """What `encode_png` notes as `original` of the size of which an image was made."""
    return f"{size[0]}x{size[1]}"


def read_note(data: bytes) -> tuple[int, int] | None:
    """The size that such an image has as a note; None if it has not."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        note = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", str(image.info.get("original", "")))
    return (int(note[1]), int(note[2])) if note else None


@contextlib.contextmanager
def _room_for(pixels: int) -> Iterator[None]:
    """Waits until an image may be decoded beside those of other threads."""
    with _decoded:
        _decoded.wait_for(lambda: not _decoding or sum(_decoding) + pixels <= _MOST_PIXELS)
        _decoding.append(pixels)
    try:
        yield
    finally:
        with _decoded:
            _decoding.remove(pixels)
            _decoded.notify_all()


def _check_headers(data: bytes) -> None:
    """Raises DecodeError for a file that would keep a decoder busy for minutes with next to nothing."""
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MOST_SCANS:
        raise DecodeError("corrupt", f"more than {MOST_SCANS} scans")
    if data.startswith(b"GIF8"):
        place = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
        while data[place : place + 1] == b"!":  # an extension: its label, then blocks up to an empty one
            place += 2
            while place < len(data) and data[place]:
                place += 1 + data[place]
                if place > MOST_EXTENSIONS:
                    raise DecodeError("corrupt", f"more than {MOST_EXTENSIONS} bytes before the first image")
            place += 1


def _check_work(image: Image.Image, max_pixels: int) -> None:
    """Raises DecodeError for an image whose tiles or strips hold more pixels than it has."""
    tags = getattr(image, "tag_v2", {})
    width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    if isinstance(width, int) and isinstance(length, int) and width * length > max_pixels:
        raise DecodeError("too_many_pixels", f"tiles of {width}x{length} pixels, {max_pixels} are allowed")
    area = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in getattr(image, "tile", ()))
    if area > image.width * image.height * len(image.getbands()):
        raise DecodeError("corrupt", "tiles that lie on one another")


def make_square(image: Image.Image, size: int, resize: str) -> Image.Image:
    """Makes an RGB image a square, with Lanczos.

    Args:
      image: Any size.
      size: Side of the square, pixels.
      resize: `pad`: fitted inside, enlarged if smaller, white around; `crop`: filled, the centre cut out; `stretch`.
    """
    if resize == "stretch":
        return image.resize((size, size), Image.Resampling.LANCZOS)
    if resize == "crop":
        return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    ratio = min(size / image.width, size / image.height)
    width, height = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    square = Image.new("RGB", (size, size), "white")
    square.paste(image.resize((width, height), Image.Resampling.LANCZOS), ((size - width) // 2, (size - height) // 2))
    return square


def _orient(image: Image.Image) -> Image.Image:
    """Applies EXIF orientation; absurd EXIF data is no reason to lose the image."""
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _to_srgb(image: Image.Image) -> Image.Image:
    """Any mode and profile to RGB, on white."""
    profile = image.info.get("icc_profile")
    if image.mode == "F":
        raise DecodeError("unsupported_format", "pixels are floating point numbers, whose range is not known")
    if image.mode.startswith("I"):
        plane, transparent = np.asarray(image), image.info.get("transparency")
        image = Image.fromarray(_to_8_bits(plane))
        if transparent is not None:
            image.putalpha(Image.fromarray(np.where(plane == transparent, 0, 255).astype(np.uint8)))
    if "transparency" in image.info or image.mode in ("PA", "LA", "La", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "RGBA", "CMYK"):
        image = image.convert("RGB")
    if profile:
        image = profiles.to_srgb(image, profile)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_transparent_color(image: Image.Image, data: bytes) -> None:
    """Pillow brings a PNG's pixels to 8 bits, but leaves the transparent color in the file's depth (PNG, 11.3.2.1)."""
    color = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("L", "RGB") or color is None:
        return
    depth = data[24]  # of IHDR, which comes first
    scale = 255 / (2**depth - 1) if depth < 8 else 2.0 ** (8 - depth)
    image.info["transparency"] = tuple(int(c * scale) for c in color) if isinstance(color, tuple) else int(color * scale)


def _to_8_bits(plane: np.ndarray) -> np.ndarray:
    """A grey plane of 16 bits, uint16 or int32, to uint8."""
    return np.round(np.clip(plane.astype(np.float32), 0, 65535) / 257).astype(np.uint8)


def _is_cut(data: bytes) -> bool:
    """Whether a WebP or TIFF is shorter than it says; Pillow calls it broken then, or no image at all."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data.startswith((b"II*\0", b"MM\0*")):
        return len(data) < 8 or len(data) < int.from_bytes(data[4:8], "little" if data.startswith(b"II") else "big") + 2
    return False


def _explain_unidentified(data: bytes) -> DecodeError:
    if _is_cut(data):
        return DecodeError("truncated", f"{len(data)} bytes, and its header tells of more")
    head = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    is_page = head.startswith((b"<!doctype html", b"<html", b"<head")) or b"<!doctype html" in head
    formats = [name for offset, magic, name in _OTHER_FORMATS if data.startswith(magic, offset)]
    if head.startswith(b"<") and b"<svg" in head and not is_page:
        formats.append("SVG")
    if formats:
        return DecodeError("unsupported_format", f"{formats[0]}; only {', '.join(FORMATS)} are read")
    if is_page:
        return DecodeError("not_an_image", "a web page")
    return DecodeError("not_an_image", f"{len(data)} bytes that begin with {data[:16]!r}")
