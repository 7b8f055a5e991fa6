"""Opening of the files of an input: on any filesystem, behind a URL, or from a pipe."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import shutil
import stat
import tempfile
import threading
import urllib.request
import weakref
from collections.abc import Iterator
from typing import IO, Any, cast

import beam_pipeline
from beam_pipeline.config import Config, UsageError
from beam_pipeline.storage import any_path, filesystem

LIST_TIMEOUT = 60  # maximum seconds without a byte from the server of a list


@contextlib.contextmanager
def naming_errors(path: str) -> Iterator[None]:
    """Raise errors of opening and reading as a UsageError that names the file."""
    try:
        yield
    except filesystem.READ_ERRORS as error:
        raise UsageError(
            f"{path} cannot be read: {str(error)[:300] or type(error).__name__}"
        ) from error


def open_stored(path: str, config: Config) -> IO[bytes]:
    """Open a file for reading as it is stored, without decompression. It is seekable.

    A list is read several times, and for days. A pipe can be read only once, and no server keeps a
    connection open for that long. Therefore both are copied.

    Args:
      path: A path on any filesystem that Beam supports, a pipe, or a URL.
      config: The options of the run. The copies exist as long as this object.

    Raises:
      UsageError: The path is a device, or a copy would take too much of the disk.
      OSError, HTTPException, ValueError, BeamIOError: The file cannot be opened.
    """
    if any_path.is_url(path) or is_pipe(path):
        return cast(IO[bytes], io.BufferedReader(_Copy(_save_once(path, config))))
    return filesystem.open_bytes(path)


def is_pipe(path: str) -> bool:
    """Return whether a path is a pipe, which can be read only once.

    Raises:
      UsageError: The path is a device or a terminal.
    """
    if not any_path.is_local(path):
        return False
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False  # opening it raises the same error
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise UsageError(f"{path} is a device or a terminal: give a file or a pipe")
    return stat.S_ISFIFO(mode)


_saved: weakref.WeakKeyDictionary[Config, dict[str, IO[bytes]]] = weakref.WeakKeyDictionary()
_saving = threading.Lock()


def _save_once(path: str, config: Config) -> IO[bytes]:
    with _saving:
        copies = _saved.setdefault(config, {})
        if path not in copies:
            with _open_stream(path) as stream:
                copies[path] = _save(stream, path)
        return copies[path]


def _open_stream(path: str) -> IO[bytes]:
    if not any_path.is_url(path):
        return open(path, "rb")
    request = urllib.request.Request(
        path, headers={"User-Agent": f"beam_pipeline/{beam_pipeline.__version__}"}
    )
    return cast(IO[bytes], _Body(urllib.request.urlopen(request, timeout=LIST_TIMEOUT)))


def _save(source: IO[bytes], path: str) -> IO[bytes]:
    """Copy all bytes to an unnamed file, which is deleted when the process ends.

    Raises:
      UsageError: The copy would take more than half of the free disk space.
    """
    copy = tempfile.TemporaryFile()  # noqa: SIM115
    folder = tempfile.gettempdir()
    limit = shutil.disk_usage(folder).free // 2
    while block := source.read(1 << 20):
        limit -= len(block)
        if limit < 0:
            raise UsageError(
                f"{path} would take more than half of the disk of {folder}: "
                "set TMPDIR to a larger one"
            )
        copy.write(block)
    copy.flush()
    return copy


class _Copy(io.RawIOBase):
    """Reads a saved file from its beginning, with an independent position.

    Closing a copy does not close the file.
    """

    def __init__(self, file: IO[bytes]):
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        bases = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._position,
            io.SEEK_END: os.fstat(self._file.fileno()).st_size,
        }
        self._position = bases[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._file.fileno(), [buffer], self._position)
        self._position += count
        return count


class _Body(io.RawIOBase):
    """The body of a response; raises EOFError if it is truncated.

    http.client treats a truncated body as a complete one.
    """

    def __init__(self, response: http.client.HTTPResponse):
        self._response = response

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._response.readinto(buffer)
        if not count and self._response.length:
            raise EOFError(f"the server broke off {self._response.length} bytes before the end")
        return count

    def close(self) -> None:
        self._response.close()
        super().close()
