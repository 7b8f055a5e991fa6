"""Files on any filesystem that Beam knows: local ones, and those of object stores whose client is installed."""

from __future__ import annotations

import contextlib
import importlib
import os
import uuid
from collections.abc import Iterator
from typing import IO, cast

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

import beam_pipeline.storage.s3  # noqa: F401  # has Beam share its clients
from beam_pipeline.storage import any_path

# Beam's S3 wants options, if only empty ones, where no pipeline has set them: at reading, and in some workers.
if FileSystems._pipeline_options is None:
    FileSystems.set_options(PipelineOptions([]))

# Whose client is an extra: the module that it needs.
_EXTRAS = {"gs": ("gcp", "google.cloud.storage"), "s3": ("aws", "boto3")}


def check_client(path: str) -> None:
    """Raises ValueError, which tells what to install, if the client of the path's object store is not."""
    scheme = FileSystems.get_scheme(path)
    if scheme in _EXTRAS:
        extra, module = _EXTRAS[scheme]
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f"{path} needs the client of {scheme}://: pip install 'beam_pipeline[{extra}]'") from error


def open_bytes(path: str) -> IO[bytes]:
    """Opens a file as it lies there, for reading. Raises OSError, which names the path."""
    return cast(IO[bytes], FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))


def read_bytes(path: str, limit: int = -1) -> bytes:
    """Reads a file as it lies there, at most `limit` bytes of it.

    Raises:
      OSError: it cannot be read, or is a pipe or a device, which are not waited for; names the path.
    """
    with any_path.open_regular(path) if FileSystems.get_scheme(path) is None else open_bytes(path) as file:
        return file.read(limit)


def write_bytes(path: str, data: bytes, durable: bool = False, mark: str = "") -> None:
    """Write a file so that it is there whole or not at all, whatever happens meanwhile.

    Object stores show a file only when it is closed; on a disk it is written beside its place and renamed.

    Args:
      path: On any filesystem that Beam knows.
      data: What it is to hold.
      durable: On a disk, make sure that it outlives a loss of power.
      mark: Goes into the temporary name, `PATH.MARK*.tmp`.
    """
    on_disk = FileSystems.get_scheme(path) is None
    target = f"{path}.{mark}{uuid.uuid4().hex}.tmp" if on_disk else path
    try:
        with naming(path), FileSystems.create(target, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(data)
        if durable:
            sync(target)
        if on_disk:
            FileSystems.rename([target], [path])
        if durable:
            sync(FileSystems.split(path)[0])
    except BaseException:
        if on_disk and FileSystems.exists(target):
            FileSystems.delete([target])
        raise


def sync(path: str) -> None:
    """Make what a file or folder holds outlive a loss of power; object stores do so by themselves."""
    if FileSystems.get_scheme(path) is not None:
        return
    with naming(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def list_folder(folder: str, pattern: str = "*") -> dict[str, int]:
    """Paths of the files in a folder that match a pattern, with their sizes in bytes."""
    [match] = FileSystems.match([FileSystems.join(folder, pattern)])
    return {file.path: file.size_in_bytes for file in match.metadata_list}


def base_name(path: str) -> str:
    return FileSystems.split(path)[1]


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Has errors of the operating system name a file, which those of writing, such as on a full disk, do not by themselves."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, path) from error
