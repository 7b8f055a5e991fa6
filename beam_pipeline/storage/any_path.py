"""Access to files on a disk or an object store; local files are read without Beam."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import IO

from beam_pipeline.process import deflate

_REASONS: dict[int | None, str] = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.EISDIR: "it is a folder",
    errno.EACCES: "there is no permission to read it",
}


@contextlib.contextmanager
def open_file(path: str, compressed: bool = False) -> Iterator[IO[bytes]]:
    """Open a file for reading.

    Args:
      path: A path on a disk or an object store.
      compressed: Whether to decompress the file, as gzip.

    Yields:
      The open file.

    Raises:
      OSError: The file cannot be opened, or is a pipe or a device. The error names the path.
    """
    with contextlib.ExitStack() as stack:
        if is_local(path):
            raw = stack.enter_context(open_regular(path))
        else:
            from beam_pipeline.storage import filesystem

            raw = stack.enter_context(filesystem.open_bytes(path))
        yield stack.enter_context(deflate.open_gzip(raw)) if compressed else raw


def read_range(path: str, offset: int, size: int) -> bytes:
    """Read a part of a file, from an object store with one request.

    Raises:
      OSError: The file cannot be opened, or an object ends before the part does. On a disk, the
        bytes up to the end of the file are returned.
    """
    if not is_local(path):
        from beam_pipeline.storage import ranges

        return ranges.read_range(path, offset, size)
    with open_regular(path) as file:
        file.seek(offset)
        return file.read(size)


def open_regular(path: str) -> IO[bytes]:
    """Open a regular file on a disk for reading.

    Raises:
      OSError: The file cannot be opened, or is a pipe or a device, which would block. The error
        names the path.
    """
    file = open(  # noqa: SIM115
        path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)
    )
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", path)
    return file


def reason_of(error: OSError) -> str:
    """Return why a file cannot be read, as a clause: "there is no such file"."""
    if error.errno in _REASONS:
        return _REASONS[error.errno]
    return (error.strerror or str(error) or type(error).__name__).partition("\n")[0]


def exists(path: str) -> bool:
    if is_local(path):
        return os.path.exists(path)
    from beam_pipeline.storage import filesystem

    filesystem.check_client(path)
    return filesystem.FileSystems.exists(path)


def is_folder(path: str) -> bool:
    """Return whether a path is a folder; on an object store, one that ends in a slash."""
    return os.path.isdir(path) if is_local(path) else path.endswith("/")


def list_files(folder: str, below: str = "") -> dict[str, int]:
    """Return all files in a folder, at any depth.

    Args:
      folder: The folder.
      below: A subfolder; only its files are listed.

    Returns:
      Paths relative to `folder`, with their sizes in bytes.
    """
    if is_local(folder):
        found = (
            os.path.join(path, name)
            for path, _, names in os.walk(os.path.join(folder, below))
            for name in names
        )
        return {os.path.relpath(path, folder): os.path.getsize(path) for path in found}
    from beam_pipeline.storage import filesystem

    sizes = filesystem.list_folder(folder, f"{below}/**" if below else "**")
    names = {path.removeprefix(join(folder, "")): size for path, size in sizes.items()}
    return {name: size for name, size in names.items() if name and not name.endswith("/")}


def join(folder: str, name: str) -> str:
    return os.path.join(folder, name) if is_local(folder) else f"{folder.rstrip('/')}/{name}"


def is_url(path: str) -> bool:
    """Return whether a path is the URL of a web server."""
    return path.lower().startswith(("http://", "https://"))


def is_local(path: str) -> bool:
    """Return whether a path is local: it has no scheme, by Beam's rule."""
    return re.match(r"[a-zA-Z][-a-zA-Z0-9+.]*://", path.strip()) is None
