"""Decode image files to square 8-bit sRGB pixels: decode, orient, flatten, convert, resize.

Thread-safe.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from beam_pipeline.images import headers, icc, resizing
from beam_pipeline.images.headers import FORMATS, DecodeError

# `decode` checks its own limit, which a user may set higher.
Image.MAX_IMAGE_PIXELS = None
# Load all format plugins now: one that fails to load later, for lack of memory, stays unknown.
Image.init()
# Pillow's own reader of uncompressed TIFFs misreads 16-bit planes and YCbCr.
TiffImagePlugin.READ_LIBTIFF = True
# `headers.trim_png` enforces its own limits.
PngImagePlugin.MAX_TEXT_CHUNK = max(headers.MAX_PROFILE, headers.MAX_TEXT) + 1
# Pillow warns about odd metadata.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Maximum total pixels of the images being decoded at once in all threads; one larger image is
# decoded alone. Each pixel takes up to `_BYTES_PER_PIXEL`; `_SPARE_BYTES` cover profiles and the
# like.
_MAX_PIXELS = 64_000_000
_BYTES_PER_PIXEL, _SPARE_BYTES = 24, 64 * 2**20
_decoding: list[int] = []
_decoded = threading.Condition()


class Decoded(NamedTuple):
    """The result of `decode`.

    Attributes:
      pixels: The square, uint8 (size, size, 3), sRGB.
      original_size: Width and height of the upright image, pixels.
      network_pixels: uint8 (network_size, network_size, 3), sRGB; None if equal to `pixels` or not
        requested.
    """

    pixels: np.ndarray
    original_size: tuple[int, int]
    network_pixels: np.ndarray | None = None


def decode(
    data: bytes, size: int, resize: str, max_pixels: int, network_size: int | None = None
) -> Decoded:
    """Decode an image file and resize it to a square.

    EXIF orientation is applied; transparent pixels are composited on white; only the first frame of
    an animation is used; grey, palette, CMYK, YCCK and 16-bit images are converted to 8-bit sRGB;
    pixels are converted from a valid embedded colour profile that is not sRGB.

    Args:
      data: A JPEG, PNG, GIF, WebP, BMP or TIFF file.
      size: Side of the square, pixels.
      resize: `pad`, `crop` or `stretch`, see `make_square`.
      max_pixels: An image with more pixels by its header is rejected before it is decoded.
      network_size: Side of a second square, made from the image in the same way, pixels.

    Returns:
      The square, the size of the original and the second square.

    Raises:
      DecodeError: The bytes cannot be decoded to an image.
      MemoryError: The machine has too little memory for an image within `max_pixels`.
    """
    size_before = headers.canvas_of_webp(data)
    try:
        headers.check_headers(data)
        headers.check_size(*size_before, max_pixels)
        with Image.open(io.BytesIO(headers.trim_png(data)), formats=FORMATS) as image:
            size_before = image.size
            headers.check_size(*image.size, max_pixels)
            headers.check_work(image, max_pixels)
            headers.check_tiff(image)
            with _room_for(image.width * image.height):
                return _load(image, data, size, resize, network_size)
    except DecodeError:
        raise
    except UnidentifiedImageError:
        _check_memory(size_before)
        raise headers.explain_unidentified(data) from None
    except MemoryError as error:
        raise _lack_of_memory(size_before) from error
    # Pillow's decoders may raise any exception on malformed bytes; the image is always the cause.
    except Exception as error:
        _check_memory(size_before)
        is_cut = (
            "truncated" in str(error).lower() or isinstance(error, EOFError) or headers.is_cut(data)
        )
        reason = "truncated" if is_cut else "corrupt"
        text = str(error)
        # Some exceptions are a sentence; others say nothing without their name.
        detail = text if " " in text else f"{type(error).__name__}: {text}"
        raise DecodeError(reason, detail) from None


def _load(
    image: Image.Image, data: bytes, size: int, resize: str, network_size: int | None
) -> Decoded:
    image.load()
    _scale_transparent_color(image, data)
    upright = _orient(image)
    srgb = _to_srgb(upright, headers.grey_range(image))
    square, network_square = make_square(srgb, size, resize), None
    if network_size is not None and network_size != size:
        network_square = np.asarray(make_square(srgb, network_size, resize))
    return Decoded(np.asarray(square), upright.size, network_square)


def _check_memory(size: tuple[int, int]) -> None:
    """Raise MemoryError if memory is too short for an image of a size.

    Libraries report a broken file when they run out of memory.
    """
    try:
        np.empty(size[0] * size[1] * _BYTES_PER_PIXEL + _SPARE_BYTES, np.uint8)
    except MemoryError as error:
        raise _lack_of_memory(size) from error


def _lack_of_memory(size: tuple[int, int]) -> MemoryError:
    needed = (size[0] * size[1] * _BYTES_PER_PIXEL + _SPARE_BYTES) / 1e9
    return MemoryError(
        f"not enough memory for an image of {size[0]}x{size[1]} pixels, "
        f"which takes up to {needed:.1f} GB. Run the same command again with more memory or a "
        "lower --max_image_pixels."
    )


@contextlib.contextmanager
def _room_for(pixels: int) -> Iterator[None]:
    """Wait until an image may be decoded at the same time as those of other threads."""
    with _decoded:
        _decoded.wait_for(lambda: not _decoding or sum(_decoding) + pixels <= _MAX_PIXELS)
        _decoding.append(pixels)
    try:
        yield
    finally:
        with _decoded:
            _decoding.remove(pixels)
            _decoded.notify_all()


def make_square(image: Image.Image, size: int, resize: str) -> Image.Image:
    """Resize an RGB image to a square with a Lanczos filter.

    Args:
      image: Any size.
      size: Side of the square, pixels.
      resize: `pad` fits the image inside, enlarging a smaller one, and pads with white; `crop`
        fills the square and keeps the centre; `stretch` ignores the aspect ratio.
    """
    if resize == "stretch":
        return resizing.resize(image, (size, size))
    if resize == "crop":
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        return resizing.resize(image, (size, size), (left, top, left + side, top + side))
    ratio = min(size / image.width, size / image.height)
    width, height = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    square = Image.new("RGB", (size, size), "white")
    square.paste(
        resizing.resize(image, (width, height)),
        ((size - width) // 2, (size - height) // 2),
    )
    return square


def crop_padding(square: np.ndarray, original_size: tuple[int, int]) -> np.ndarray:
    """Return the part of a square, (S, S, C), that `make_square` did not pad, as a view.

    Args:
      square: An image that was resized with `pad`.
      original_size: Width and height before resizing, pixels.
    """
    side = len(square)
    ratio = side / max(1, *original_size)
    width, height = (max(1, round(length * ratio)) for length in original_size)
    left, top = (side - width) // 2, (side - height) // 2
    return square[top : top + height, left : left + width]


def _orient(image: Image.Image) -> Image.Image:
    """Apply EXIF orientation; return the image unchanged if its EXIF data is invalid."""
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:
        return image


def _to_srgb(image: Image.Image, grey_range: tuple[int, int]) -> Image.Image:
    """Convert an image of any mode and profile to RGB on white.

    Args:
      image: The image.
      grey_range: The values of black and white if its pixels are 16-bit grey.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        plane, transparent = np.asarray(image), image.info.get("transparency")
        image = Image.fromarray(_to_8_bits(plane, *grey_range))
        if transparent is not None:
            image.putalpha(Image.fromarray(np.where(plane == transparent, 0, 255).astype(np.uint8)))
    if "transparency" in image.info or image.mode in ("PA", "LA", "La", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "RGBA", "CMYK"):
        image = image.convert("RGB")
    if profile:
        image = icc.to_srgb(image, profile)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_transparent_color(image: Image.Image, data: bytes) -> None:
    """Scale the transparent color of a PNG to 8 bits, in place.

    Pillow converts a PNG's pixels to 8 bits, but leaves the transparent color in the bit depth of
    the file (PNG specification, 11.3.2.1).
    """
    color = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("L", "RGB") or color is None:
        return
    depth = data[24]  # bit depth in IHDR, the first chunk
    scale = 255 / (2**depth - 1) if depth < 8 else 2.0 ** (8 - depth)
    image.info["transparency"] = (
        tuple(int(c * scale) for c in color) if isinstance(color, tuple) else int(color * scale)
    )


def _to_8_bits(plane: np.ndarray, black: int, white: int) -> np.ndarray:
    """Scale a grey plane, uint16, to uint8, given the values of black and white."""
    scaled = (plane.astype(np.float32) - black) * (255 / (white - black))
    return np.round(np.clip(scaled, 0, 255)).astype(np.uint8)
