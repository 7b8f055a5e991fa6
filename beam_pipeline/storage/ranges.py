"""Parts of files on any filesystem that Beam supports, read without the rest of the file."""

from __future__ import annotations

import errno
import functools
import io
import os
import threading
from collections.abc import Callable
from typing import IO, Any, cast

from apache_beam.io.filesystems import FileSystems

from beam_pipeline.storage import any_path, filesystem

MAX_OPEN = 64  # local files kept open
# Bytes of one request while a file of an object store is searched: enough for a header.
SEARCH_BUFFER = 64 * 1024


def read_range(path: str, offset: int, size: int) -> bytes:
    """Read a part of a file: on `gs://` and `s3://` with exactly one request.

    Args:
      path: A path on any filesystem that Beam supports.
      offset: Position of the first byte.
      size: Number of bytes; all of them are held in memory.

    Raises:
      OSError: The part cannot be read completely, or the file is a pipe or a device. The error
        names the path.
    """
    if not size:
        return b""
    if any_path.is_local(path):
        data = _read_local(path, offset, size)
    else:
        filesystem.check_client(path)
        read = _READERS.get(FileSystems.get_scheme(path), _read_other)
        with filesystem.client_errors(path):
            data = read(path, offset, size)
    if len(data) < size:
        detail = f"it ends at byte {offset + len(data)} instead of {offset + size}"
        raise OSError(errno.EIO, detail, path)
    return data


def open_seekable(path: str, buffer: int = SEARCH_BUFFER) -> IO[bytes]:
    """Open a file in which only some parts are read.

    Args:
      path: A path on any filesystem that Beam supports.
      buffer: Bytes of one request to an object store.

    Raises:
      OSError: The file cannot be opened, or is a pipe or a device. The error names the path.
    """
    if any_path.is_local(path):
        return any_path.open_regular(path)
    return cast(IO[bytes], io.BufferedReader(_RemoteFile(path), buffer))


class _RemoteFile(io.RawIOBase):
    """A file on an object store; each read is a request."""

    def __init__(self, path: str):
        self._path, self._position = path, 0
        filesystem.check_client(path)
        with filesystem.client_errors(path):
            self._size: int = FileSystems.get_filesystem(path).size(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._position))
        buffer[:size] = read_range(self._path, self._position, size)
        self._position += size
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position


class _LocalFile:
    """An open file, closed once nothing refers to it: a thread may read what the cache dropped."""

    def __init__(self, path: str):
        self._file = any_path.open_regular(path)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def read(self, offset: int, size: int) -> bytes:
        blocks = []
        while size and (block := os.pread(self._file.fileno(), size, offset)):
            blocks.append(block)
            offset, size = offset + len(block), size - len(block)
        return b"".join(blocks)


@functools.lru_cache(MAX_OPEN)
def _open_local(path: str, unused_device: int, unused_inode: int) -> _LocalFile:
    return _LocalFile(path)


def _read_local(path: str, offset: int, size: int) -> bytes:
    # Another file may have taken the place of one that is open.
    status = os.stat(path)
    with filesystem.naming(path):
        return _open_local(path, status.st_dev, status.st_ino).read(offset, size)


_clients = threading.local()  # the clients are not documented as safe for several threads


def _client_of(scheme: str, create: Callable[[Any], Any]) -> Any:
    if not hasattr(_clients, scheme):
        setattr(_clients, scheme, create(filesystem.client_options()))
    return getattr(_clients, scheme)


def _read_gs(path: str, offset: int, size: int) -> bytes:
    from apache_beam.io.gcp import gcsio

    client = _client_of("gs", lambda options: gcsio.GcsIO(pipeline_options=options).client)
    bucket, name = gcsio.parse_gcs_path(path)
    return (
        client.bucket(bucket)
        .blob(name)
        .download_as_bytes(start=offset, end=offset + size - 1, raw_download=True, checksum=None)
    )


def _read_s3(path: str, offset: int, size: int) -> bytes:
    from apache_beam.io.aws import s3io

    client = _client_of("s3", lambda options: s3io.S3IO(options=options).client.client)
    bucket, key = s3io.parse_s3_path(path)
    last = offset + size - 1
    return client.get_object(Bucket=bucket, Key=key, Range=f"bytes={offset}-{last}")["Body"].read()


def _read_other(path: str, offset: int, size: int) -> bytes:
    with filesystem.open_bytes(path) as file:
        file.seek(offset)
        return file.read(size)


_READERS = {"gs": _read_gs, "s3": _read_s3}
