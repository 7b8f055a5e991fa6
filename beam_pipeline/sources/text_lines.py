"""Streaming reader for lists of lines at any location, in any supported format and encoding."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import http.client
import io
import os
import shutil
import stat
import tarfile
import tempfile
import threading
import urllib.request
import weakref
from collections.abc import Iterable, Iterator
from typing import IO, Any, cast

import beam_pipeline
from beam_pipeline.config import Config, UsageError
from beam_pipeline.storage import any_path, filesystem

LIST_TIMEOUT = 60  # maximum seconds without a byte from the server of a list
MAX_LINE = 64 * 1024  # bytes, including the line end
_BLOCK = 1 << 18

# Unsupported formats by their first bytes. An .xz file may require 4 GiB of memory.
NOT_LISTS = {
    b"PK\x03\x04": "a .zip archive, or a table that is stored as one (.xlsx)",
    b"7z\xbc\xaf\x27\x1c": "a .7z archive",
    b"Rar!\x1a\x07": "a .rar archive",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PAR1": "a Parquet table",
}
# UTF-32 comes first, because its byte order mark begins with that of UTF-16.
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_lines(path: str, config: Config) -> Iterator[bytes]:
    """Yield the lines of a list.

    Args:
      path: Path or URL of the list.
      config: The options of the run. The copy of a pipe exists as long as this object.

    Yields:
      Lines in UTF-8 or Latin-1, including their line ends.

    Raises:
      UsageError: The list cannot be read to its end, or is not a list of lines. The error names it.
    """
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(_open(path, config))
            yield from split_lines(_check_text(decode(_unpack(raw, path, stack)), path))
    except filesystem.READ_ERRORS as error:
        raise UsageError(
            f"--input {path} cannot be read: {str(error) or type(error).__name__}"
        ) from error


def split_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Split bytes into lines.

    Args:
      blocks: Consecutive blocks of the text.

    Yields:
      Lines including their line end: LF, CRLF or CR. A line longer than `MAX_LINE` may be cut, but
      stays longer than `MAX_LINE`.
    """
    rest = b""
    for block in blocks:
        lines = (rest + block).splitlines(keepends=True)
        # A CR at the end of a block may be the first half of a CRLF.
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if len(rest) > MAX_LINE:
            rest = rest[: MAX_LINE + 1] + (b"\r" if rest.endswith(b"\r") else b"")
        yield from lines
    if rest:
        yield rest


def decode(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Convert UTF-16 and UTF-32 to UTF-8.

    Both are recognized by their byte order mark. Any other text passes unchanged.
    """
    blocks = iter(blocks)
    first = next(blocks, b"")
    encoding = next((name for mark, name in _ENCODINGS.items() if first.startswith(mark)), None)
    if encoding is None:
        yield first
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    yield decoder.decode(first).encode()
    for block in blocks:
        yield decoder.decode(block).encode()
    yield decoder.decode(b"", final=True).encode()


def _check_text(blocks: Iterator[bytes], path: str) -> Iterator[bytes]:
    """Yield the blocks unchanged; raise UsageError if the first one is not text."""
    head = next(blocks, b"")
    kind = next((kind for magic, kind in NOT_LISTS.items() if head.startswith(magic)), None)
    if kind:
        raise UsageError(f"--input {path} is {kind}: unpack it, or save it as text, one URL a line")
    if b"\0" in head[:8192]:
        raise UsageError(
            f"--input {path} holds binary data (NUL bytes): "
            "give a list of URLs as UTF-8 text, one a line"
        )
    yield head
    yield from blocks


def _unpack(raw: IO[bytes], path: str, stack: contextlib.ExitStack) -> Iterator[bytes]:
    """Yield the blocks of a list, decompressed and taken out of a tar archive.

    The format is recognized by its bytes, because a URL often has no meaningful suffix.

    Args:
      raw: The list as it is stored.
      path: Path or URL of the list, for error messages.
      stack: Closes the files that are opened here.

    Raises:
      UsageError: The list is an archive of several files.
    """
    file = io.BufferedReader(cast(io.RawIOBase, raw), 1 << 20)
    head = file.peek(3)
    if head.startswith(b"\x1f\x8b"):
        file = io.BufferedReader(
            cast(io.RawIOBase, stack.enter_context(gzip.GzipFile(fileobj=file))), 1 << 20
        )
    elif head.startswith(b"BZh"):
        file = io.BufferedReader(
            cast(io.RawIOBase, stack.enter_context(bz2.BZ2File(file))), 1 << 20
        )
    block = file.peek(512)[:512]
    empty_archive = len(block) == 512 and not any(block)
    if block[257:262] != b"ustar" and not empty_archive:
        yield from _blocks(file)
        return
    archive = stack.enter_context(tarfile.open(fileobj=file, mode="r|"))  # noqa: SIM115
    lists = 0
    for member in archive:
        if not member.isfile():
            continue
        lists += 1
        if lists > 1:
            raise UsageError(
                f"--input {path} holds more than one file; unpack it and give the list itself"
            )
        content = archive.extractfile(member)
        assert content is not None
        yield from _blocks(content)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(_BLOCK), b"")


def _open(path: str, config: Config) -> IO[bytes]:
    if any_path.is_url(path):
        request = urllib.request.Request(
            path, headers={"User-Agent": f"beam_pipeline/{beam_pipeline.__version__}"}
        )
        # A run may take days to read the list. No server keeps a connection open for that long.
        with _Body(urllib.request.urlopen(request, timeout=LIST_TIMEOUT)) as body:
            copy = _save(cast(IO[bytes], body), path)
        copy.seek(0)
        return copy
    if is_pipe(path):
        return cast(IO[bytes], _Copy(_save_pipe(path, config)))
    return filesystem.open_bytes(path)


def is_pipe(path: str) -> bool:
    """Return whether a path is a pipe, which can be read only once.

    Raises:
      UsageError: The path is a device or a terminal.
    """
    if not any_path.is_local(path) or any_path.is_url(path):
        return False
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False  # opening it raises the same error
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise UsageError(f"--input {path} is a device or a terminal: give a file or a pipe")
    return stat.S_ISFIFO(mode)


# Copies of pipes, because a list is read several times. They live as long as the command's options.
_saved: weakref.WeakKeyDictionary[Config, dict[str, IO[bytes]]] = weakref.WeakKeyDictionary()
_saving = threading.Lock()


def _save_pipe(path: str, config: Config) -> IO[bytes]:
    with _saving:
        copies = _saved.setdefault(config, {})
        if path not in copies:
            with open(path, "rb") as pipe:
                copies[path] = _save(pipe, path)
        return copies[path]


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
                f"--input {path} would take more than half of the disk of {folder}: "
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
