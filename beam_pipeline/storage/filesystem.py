"""Access to files on any filesystem that Beam supports.

These are local filesystems and the object stores whose client is installed.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import importlib
import os
import shutil
import tarfile
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.value_provider import RuntimeValueProvider

import beam_pipeline.storage.s3  # noqa: F401  # makes Beam share its clients
from beam_pipeline.storage import any_path

# Beam's S3 filesystem requires options, even if empty. Where no pipeline has set any, as in code
# that only reads, filesystems use those of the runtime.
if RuntimeValueProvider.runtime_options is None:
    RuntimeValueProvider.set_runtime_options({})

# Exceptions of opening, reading and unpacking a file on a disk, an object store or a web server.
READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    tarfile.TarError,
    zlib.error,
    http.client.HTTPException,
    BeamIOError,
)

_COPIED = 1 << 20  # bytes copied at a time

# Schemes whose client is an extra: the extra, and the module that the client needs.
_EXTRAS = {"gs": ("gcp", "google.cloud.storage"), "s3": ("aws", "boto3")}


def check_client(path: str) -> None:
    """Check that the client of a path's object store is installed.

    Raises:
      ValueError: The client is not installed. The message says what to install.
    """
    scheme = FileSystems.get_scheme(path)
    if scheme in _EXTRAS:
        extra, module = _EXTRAS[scheme]
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"{path} needs the client of {scheme}://: pip install 'beam_pipeline[{extra}]'"
            ) from error


def open_bytes(path: str) -> IO[bytes]:
    """Open a file for reading as it is stored, without decompression.

    Raises:
      OSError: The file cannot be opened. The error names the path.
    """
    return cast(IO[bytes], FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))


def read_version(path: str) -> str:
    """Return a text that changes when a file changes: its size and time of modification.

    Raises:
      OSError: The file does not exist.
    """
    if FileSystems.get_scheme(path) is None:
        status = os.stat(path)
        return f"{status.st_size} {status.st_mtime_ns}"
    [match] = FileSystems.match([path])
    if not match.metadata_list:
        raise FileNotFoundError(errno.ENOENT, "no such file", path)
    [file] = match.metadata_list
    return f"{file.size_in_bytes} {file.last_updated_in_seconds}"


def read_bytes(path: str, limit: int = -1) -> bytes:
    """Read a file as it is stored, without decompression.

    Args:
      path: A path on any filesystem that Beam supports.
      limit: Maximum number of bytes to read; -1 for all.

    Raises:
      OSError: The file cannot be read, or is a pipe or a device, which would block. The error names
        the path.
    """
    with (
        any_path.open_regular(path)
        if FileSystems.get_scheme(path) is None
        else open_bytes(path) as file
    ):
        return file.read(limit)


def write_bytes(path: str, data: bytes, durable: bool = False, mark: str = "") -> None:
    """Write a file atomically, as with `create`."""
    with create(path, durable, mark) as file:
        file.write(data)


@contextlib.contextmanager
def create(path: str, durable: bool = False, mark: str = "") -> Iterator[IO[bytes]]:
    """Write a file atomically: after any error or crash it is either complete or absent.

    Object stores show a file only once it is closed. On a disk, the data is written to a temporary
    file in the same folder, which is then renamed.

    Args:
      path: A path on any filesystem that Beam supports.
      durable: Whether a file on a disk must survive a loss of power.
      mark: Part of the temporary name, `PATH.MARK*.tmp`.

    Yields:
      The file to write.
    """
    on_disk = FileSystems.get_scheme(path) is None
    target = temporary_name(path, mark) if on_disk else path
    is_new = on_disk
    try:
        with (
            naming(path),
            FileSystems.create(target, compression_type=CompressionTypes.UNCOMPRESSED) as file,
        ):
            is_new = True
            yield file
        if durable:
            sync(target)
        if on_disk:
            FileSystems.rename([target], [path])
        if durable:
            sync(FileSystems.split(path)[0])
    except BaseException:
        # An object store shows what was written before the error, since the file is closed.
        if is_new and FileSystems.exists(target):
            FileSystems.delete([target])
        raise


@contextlib.contextmanager
def create_from_disk(path: str) -> Iterator[str]:
    """Write a file atomically, as with `create`, by a library that only writes to a disk.

    Yields:
      The path of the file to write; for an object store that of a temporary file, which is then
      copied.
    """
    if FileSystems.get_scheme(path) is None:
        target = temporary_name(path)
        try:
            yield target
            FileSystems.rename([target], [path])
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)
        return
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, base_name(path))
        yield target
        with open(target, "rb") as source, create(path) as file:
            shutil.copyfileobj(source, file, _COPIED)


def temporary_name(path: str, mark: str = "") -> str:
    """Return a name in the folder of a file on a disk that no other call returns."""
    return f"{path}.{mark}{uuid.uuid4().hex}.tmp"


def size_of(path: str) -> int:
    """Return the size of a file, bytes.

    Raises:
      FileNotFoundError: There is no such file.
    """
    [match] = FileSystems.match([path])
    if not match.metadata_list:
        raise FileNotFoundError(errno.ENOENT, "no such file", path)
    return match.metadata_list[0].size_in_bytes


def sync(path: str) -> None:
    """Make the content of a file or folder survive a loss of power.

    Object stores need no call: they are durable by themselves.
    """
    if FileSystems.get_scheme(path) is not None:
        return
    with naming(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def list_folder(folder: str, pattern: str = "*", limit: int | None = None) -> dict[str, int]:
    """Return the paths of the files in a folder that match a pattern, with their sizes in bytes.

    Args:
      folder: The folder.
      pattern: A glob, relative to the folder.
      limit: Maximum number of files to list; None for all.
    """
    [match] = FileSystems.match([FileSystems.join(folder, pattern)], [limit])
    return {file.path: file.size_in_bytes for file in match.metadata_list}


def client_options() -> Any:
    """Return the options for a client of an object store, as Beam's own filesystems get them.

    Relies on a private attribute: Beam has no public way to read what `set_options` has set.
    """
    return FileSystems._pipeline_options or RuntimeValueProvider.runtime_options


def iterate_files(folder: str) -> Iterator[str]:
    """Yield the paths of all files below a folder; `gs://` and `s3://` list them page by page."""
    check_client(folder)
    scheme, prefix = FileSystems.get_scheme(folder), f"{folder.rstrip('/')}/"
    if scheme == "gs":
        from apache_beam.io.gcp import gcsio

        store: Any = gcsio.GcsIO(pipeline_options=client_options())
    elif scheme == "s3":
        from apache_beam.io.aws import s3io

        store = s3io.S3IO(options=client_options())
    else:
        yield from sorted(list_folder(folder, "**"))
        return
    for path, _ in store.list_files(prefix):
        yield path


def remove_folder(folder: str) -> None:
    """Remove a folder and its files, if it exists."""
    if FileSystems.get_scheme(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        FileSystems.delete(list(list_folder(folder, "**")))


def base_name(path: str) -> str:
    return FileSystems.split(path)[1]


@contextlib.contextmanager
def client_errors(path: str) -> Iterator[None]:
    """Raise the errors of an object store's client as OSError with an errno and the path.

    Each client has its own kinds of errors. Those of the operating system stay as they are.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise OSError(errno.EIO, str(error) or type(error).__name__, path) from error


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Add a path to errors of the operating system that name no file.

    Errors of writing, such as on a full disk, do not name the file.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, path) from error
