"""The folders `--original_dir` and `--resized_dir`: bodies as they were downloaded, and images as they were resized."""

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

# `records.encode_png` writes notes right behind the header.
NOTE_BYTES = 128
_PNG, _NOTE = b"\x89PNG\r\n\x1a\n", b"tEXtresize\0"
_END_OF_PNG = b"IEND\xaeB`\x82"


def read(config: Config, ref: ImageRef) -> EncodedImage | None:
    """Return what an earlier run kept of an image: resized as it is asked for now, or else as it was downloaded.

    What cannot be read is not there, nor is the body of an image that failed: it is fetched again.
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
    """Whether a resized image is enough: a digest is of the body, and the network sees a square made from the original."""
    network_needs_original = config.has_network and config.image_size != NETWORK_SIZE
    return not (config.exclude_sha256 or network_needs_original)


def keep(image: RgbImage, config: Config) -> RgbImage:
    """Keep an image as the options ask for; return it without its body.

    Raises:
      OSError: a file cannot be written; names it.
    """
    if config.original_dir and image.body:
        _write_file(config, FileSystems.join(config.original_dir, image.ref.name), image.body)
    if config.resized_dir:
        # Noted, as another run may want them made square in another way.
        data = png_notes.encode_png(image.pixels, resize=config.resize, original=png_notes.note_size(image.original_size))
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
    """Return what is in the names of a run's temporary files: other runs may share the folders at the same time."""
    return hashlib.md5(os.path.abspath(config.output).encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()[:8] + "-"


def was_resized_by_run(head: bytes) -> bool:
    """Whether a file is what `keep` writes to `--resized_dir`, by its first `NOTE_BYTES` bytes."""
    return head.startswith(_PNG) and _NOTE in head[:NOTE_BYTES]


def _read_file(path: str, config: Config) -> bytes | None:
    try:
        data = filesystem.read_bytes(path, config.max_image_bytes + 1) if FileSystems.exists(path) else b""
    except (OSError, BeamIOError):
        _warn("cannot be read", path)
        return None
    return data if 0 < len(data) <= config.max_image_bytes else None


def _write_file(config: Config, path: str, data: bytes) -> None:
    if any_path.is_local(path) and os.path.isdir(path):
        _warn("is not written, as it is a folder", path)
    else:
        filesystem.write_bytes(path, data, mark=temporary_mark(config))


def _warn(what: str, path: str) -> None:
    """Log what is wrong with a kept file, once for a folder: it may hold millions."""
    folder, name = FileSystems.split(path)
    if (what, folder) not in _warned:
        _warned.add((what, folder))
        _LOGGER.warning("%s in %s %s; others of the folder are not reported", name, folder, what)


def _is_as_wanted(data: bytes, config: Config) -> bool:
    """Whether an image has the size that is asked for, and a note that it was made square in the same way."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            side = (config.image_size, config.image_size)
            is_whole = data.endswith(_END_OF_PNG)
            return is_whole and image.size == side and image.info.get("resize") == config.resize
    # Whatever is wrong with it, the image is fetched again.
    except Exception:
        return False
