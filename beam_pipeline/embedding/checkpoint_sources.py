"""Access to checkpoints on servers, in object stores and in archives.

The module determines the version of a checkpoint, downloads it and unpacks it.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path
from typing import IO, Any, cast

from apache_beam.io.filesystem import CompressionTypes, FileSystem
from apache_beam.io.filesystems import FileSystems

from beam_pipeline.storage import any_path

_TIMEOUT = 60  # maximum seconds without a byte from the server of a checkpoint
# Maximum size of a download, and of an archive's unpacked files. The published one has 0.2 GB.
MAX_BYTES = 2 * 2**30
NO_SUCH_FILE = "there is no such file"
_TOO_LARGE = f"it is larger than {MAX_BYTES >> 30} GiB"
_VALIDATORS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


class SourceError(ValueError):
    """A source is not a usable checkpoint. The message says why."""


def is_readable(checkpoint: str) -> bool:
    """Return whether a checkpoint can be read in place, without a copy or unpacking."""
    return "://" not in checkpoint and not is_archive(checkpoint)


def is_archive(checkpoint: str) -> bool:
    path = urllib.parse.urlsplit(checkpoint).path if any_path.is_url(checkpoint) else checkpoint
    return path.endswith((".tar.gz", ".tgz"))


def version_of(checkpoint: str, known: dict[str, Any]) -> dict[str, Any]:
    """Return the current version of a checkpoint at its source.

    Args:
      checkpoint: The value of `--checkpoint`.
      known: An earlier version, for a conditional request; empty if there is none.

    Returns:
      Validators, sizes or times of the files; `known` if a server reports no change.
    """
    if any_path.is_url(checkpoint):
        try:
            with _open_url(checkpoint, known) as response:
                return _headers_of(response)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.NOT_MODIFIED:
                raise
            return known
    if "://" in checkpoint:
        return {
            file.path: [file.size_in_bytes, file.last_updated_in_seconds]
            for file in _match(checkpoint)
        }
    stat = os.stat(checkpoint)
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def download(checkpoint: str, target: Path) -> tuple[dict[str, Any], str]:
    """Copy a checkpoint into a folder, or an archive to a file.

    Args:
      checkpoint: The value of `--checkpoint`.
      target: An existing folder for a checkpoint, or the path of the file for an archive.

    Returns:
      The version of the checkpoint, and the sha256 of an archive in hex, empty for a checkpoint.

    Raises:
      SourceError: The files are larger than `MAX_BYTES`, or a server sent fewer bytes than its
        Content-Length.
    """
    if any_path.is_url(checkpoint):
        to_file = not target.is_dir()
        with _open_url(checkpoint, {}) as response:
            length = response.headers.get("Content-Length", "")
            promised = int(length) if length.isdecimal() else None
            if promised is not None and promised > MAX_BYTES:
                raise SourceError(_TOO_LARGE)
            digest, size = _copy(response, target if to_file else target / "model.ckpt", MAX_BYTES)
            if promised is not None and size != promised:
                raise SourceError(f"the server sent {size} of {promised} bytes")
            return _headers_of(response), digest if to_file else ""
    version = version_of(checkpoint, {})
    paths = [checkpoint] if "://" not in checkpoint else list(version)
    size, digest = 0, ""
    for path in paths:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as source:
            copied = _copy(
                source,
                target / os.path.basename(path) if target.is_dir() else target,
                MAX_BYTES - size,
            )
        digest, size = copied[0] if not target.is_dir() else "", size + copied[1]
    return version, digest


def unpack(archive: Path, target: Path) -> None:
    """Unpack the files of a checkpoint into one folder, regardless of their folders in the archive.

    Raises:
      SourceError: The archive, unpacked, is larger than `MAX_BYTES`.
    """
    budget = MAX_BYTES
    with (
        gzip.open(archive) as decompressed,
        tarfile.open(
            fileobj=cast(IO[bytes], _Bounded(decompressed)), mode="r|", bufsize=1 << 20
        ) as members,
    ):
        for member in members:
            name = os.path.basename(member.name)
            if member.isfile() and ".ckpt" in name:
                budget -= _copy(
                    cast(IO[bytes], members.extractfile(member)), target / name, budget
                )[1]


class _Bounded:
    """A file that raises SourceError once more than `MAX_BYTES` are read."""

    def __init__(self, file: gzip.GzipFile):
        self._file, self._budget = file, MAX_BYTES

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._budget -= len(data)
        if self._budget < 0:
            raise SourceError(_TOO_LARGE)
        return data


def _copy(source: Any, target: Path, limit: int) -> tuple[str, int]:
    """Copy a file.

    Args:
      source: The open file.
      target: Path of the copy.
      limit: Maximum size, in bytes.

    Returns:
      The sha256 in hex, and the size in bytes.

    Raises:
      SourceError: The file is larger than `limit`.
    """
    digest, size = hashlib.sha256(), 0
    with open(target, "wb") as file:
        while block := source.read(1 << 20):
            size += len(block)
            if size > limit:
                raise SourceError(_TOO_LARGE)
            digest.update(block)
            file.write(block)
    return digest.hexdigest(), size


def _open_url(url: str, known: dict[str, Any]) -> Any:
    """Request a URL on condition that it has changed.

    Args:
      url: The URL.
      known: The known version; empty for an unconditional request.

    Raises:
      urllib.error.HTTPError: The server reports an error, or 304 if the URL has not changed.
    """
    headers = {_VALIDATORS[name]: value for name, value in known.items() if name in _VALIDATORS}
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)


def _headers_of(response: Any) -> dict[str, Any]:
    names = [*_VALIDATORS, "Content-Length"]
    return {name: response.headers[name] for name in names if name in response.headers}


def _match(checkpoint: str) -> list[Any]:
    """Return the metadata of an object, or of the index and data files of a V2 prefix."""
    scheme = FileSystems.get_scheme(checkpoint)
    if all(kind.scheme() != scheme for kind in FileSystem.get_all_subclasses()):
        raise SourceError(f"files cannot be read from {scheme}://")
    matches = FileSystems.match([checkpoint, checkpoint + ".index", checkpoint + ".data-*"])
    found = [file for match in matches for file in match.metadata_list]
    if not found:
        raise SourceError(NO_SUCH_FILE)
    return found


def explain(error: Exception, checkpoint: str) -> str:
    """Return why a checkpoint cannot be read, as a clause.

    Args:
      error: One of `filesystem.READ_ERRORS`.
      checkpoint: The value of `--checkpoint`.
    """
    if isinstance(error, SourceError):
        return str(error)
    if isinstance(error, urllib.error.HTTPError):
        return f"the server responds with status {error.code} {error.reason}".rstrip()
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError):
        return f"the server cannot be reached: {any_path.reason_of(error.reason)}"
    if isinstance(error, TimeoutError):
        return f"the server sent nothing for {_TIMEOUT} seconds"
    if isinstance(error, (gzip.BadGzipFile, tarfile.TarError, zlib.error)):
        return "it is not a .tar.gz archive, or it is damaged"
    if isinstance(error, EOFError):
        return "the archive is incomplete"
    if isinstance(error, (http.client.InvalidURL, ValueError)):
        return "it is not a valid URL" if any_path.is_url(checkpoint) else _first_line(error)
    if isinstance(error, http.client.HTTPException):
        return "the server's response is incomplete or not HTTP"
    if isinstance(error, OSError):
        reason = any_path.reason_of(error)
        return reason if error.filename in (None, checkpoint) else f"{error.filename}: {reason}"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]
