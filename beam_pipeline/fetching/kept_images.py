"""Reading and writing of the folders `--original_dir` and `--resized_dir`.

`--original_dir` holds bodies as they were downloaded, `--resized_dir` holds resized images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import os

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from PIL import Image

from beam_pipeline.config import NETWORK_SIZE, Config
from beam_pipeline.elements import EncodedImage, ImageRef, RgbImage
from beam_pipeline.images import png_notes
from beam_pipeline.storage import any_path, filesystem

_LOGGER = logging.getLogger(__name__)

_warned: set[tuple[str, str]] = set()

# `png_notes.encode_png` writes notes directly after the header.
NOTE_BYTES = 128
_PNG, _NOTE = b"\x89PNG\r\n\x1a\n", b"tEXtresize\0"
_END_OF_PNG = b"IEND\xaeB`\x82"


def read(config: Config, ref: ImageRef) -> EncodedImage | None:
    """Return an image that an earlier run kept; None if it has to be fetched.

    The resized image is preferred, if it was resized as the options ask for. Otherwise the body is
    returned as it was downloaded. Files that cannot be read count as missing. So does the body of
    an image that failed (`ref.is_retried`), which is fetched again.
    """
    if ref.is_retried:
        return None
    if config.resized_dir and _may_read_resized(config):
        path = FileSystems.join(config.resized_dir, ref.name)
        data = _read_file(path, config)
        if data and _is_as_wanted(data, config):
            return EncodedImage(ref, data, 0, path, is_resized=True)
    if config.original_dir:
        path = FileSystems.join(config.original_dir, ref.name)
        data = _read_file(path, config)
        if data and not was_resized_by_run(data):
            return EncodedImage(ref, data, 0, path)
    return None


def _may_read_resized(config: Config) -> bool:
    """Return whether a resized image can replace the original.

    `--exclude_sha256` needs the digest of the body. The network needs the original for a square of
    another size than `--image_size`.
    """
    network_needs_original = config.has_network and config.image_size != NETWORK_SIZE
    return not (config.exclude_sha256 or network_needs_original)


def keep(image: RgbImage, config: Config) -> RgbImage:
    """Write an image to the folders of the options; return it without its body.

    An image of a fallback is not written: a later run would take it for that of the list.

    Raises:
      OSError: A file cannot be written. The error names it.
    """
    if image.image_source == "fallback":
        return dataclasses.replace(image, body=None)
    if config.original_dir and image.body:
        _write_file(config, FileSystems.join(config.original_dir, image.ref.name), image.body)
    if config.resized_dir:
        # The note records how the image was made square: another run may use another way.
        data = png_notes.encode_png(
            image.pixels, resize=config.resize, original=png_notes.note_size(image.original_size)
        )
        _keep_resized(config, FileSystems.join(config.resized_dir, image.ref.name), data)
    return dataclasses.replace(image, body=None)


def _keep_resized(config: Config, path: str, data: bytes) -> None:
    try:
        there = filesystem.read_bytes(path, len(data) + 1) if FileSystems.exists(path) else b""
    except (OSError, BeamIOError):
        _warn("cannot be read, and is not replaced", path)
        return
    if there and there != data and not was_resized_by_run(there):
        _warn("is not replaced, as no run has resized it", path)
    elif there != data:
        _write_file(config, path, data)


def temporary_mark(config: Config) -> str:
    """Return the mark in the names of a run's temporary files.

    Other runs may use the same folders at the same time.
    """
    return (
        hashlib.md5(
            os.path.abspath(config.output).encode(errors="surrogateescape"), usedforsecurity=False
        ).hexdigest()[:8]
        + "-"
    )


def was_resized_by_run(head: bytes) -> bool:
    """Return whether `keep` wrote a file to `--resized_dir`, by its first `NOTE_BYTES` bytes."""
    return head.startswith(_PNG) and _NOTE in head[:NOTE_BYTES]


def _read_file(path: str, config: Config) -> bytes | None:
    try:
        data = (
            filesystem.read_bytes(path, config.max_image_bytes + 1)
            if FileSystems.exists(path)
            else b""
        )
    except (OSError, BeamIOError):
        _warn("cannot be read", path)
        return None
    return data if 0 < len(data) <= config.max_image_bytes else None


def _write_file(config: Config, path: str, data: bytes) -> None:
    if any_path.is_local(path) and os.path.isdir(path):
        _warn("is not written, because a folder has this name", path)
    else:
        filesystem.write_bytes(path, data, mark=temporary_mark(config))


def _warn(what: str, path: str) -> None:
    """Log a problem with a kept file, once per folder, because a folder may hold millions."""
    folder, name = FileSystems.split(path)
    if (what, folder) not in _warned:
        _warned.add((what, folder))
        _LOGGER.warning("%s in %s %s; others in this folder are not reported", name, folder, what)


def _is_as_wanted(data: bytes, config: Config) -> bool:
    """Return whether an image is complete and has the size and the `--resize` of the options."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            side = (config.image_size, config.image_size)
            is_complete = data.endswith(_END_OF_PNG)
            return is_complete and image.size == side and image.info.get("resize") == config.resize
    # An image that cannot be read for any reason is fetched again.
    except Exception:
        return False
