"""Streaming reader for lines of text at any location, in any supported format and encoding."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import tarfile
from collections.abc import Iterable, Iterator
from typing import IO, cast

from beam_pipeline.config import Config, UsageError
from beam_pipeline.sources import opening
from beam_pipeline.sources.source import HEAD_BYTES

MAX_LINE = 64 * 1024  # bytes, including the line end
_BLOCK = 1 << 18

# Unsupported formats by their first bytes. An .xz file may require 4 GiB of memory.
NOT_LISTS = {
    b"PK\x03\x04": "a .zip archive, or a table that is stored as one (.xlsx)",
    b"7z\xbc\xaf\x27\x1c": "a .7z archive",
    b"Rar!\x1a\x07": "a .rar archive",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
}
# UTF-32 comes first, because its byte order mark begins with that of UTF-16.
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_lines(path: str, config: Config) -> Iterator[bytes]:
    """Yield the lines of a text.

    Args:
      path: Path or URL of the text.
      config: The options of the run. The copy of a pipe exists as long as this object.

    Yields:
      Lines in UTF-8 or Latin-1, including their line ends; see `split_lines`.

    Raises:
      UsageError: The file cannot be read to its end, or is not text. The error names it.
    """
    with opening.naming_errors(path), contextlib.ExitStack() as stack:
        raw = stack.enter_context(opening.open_stored(path, config))
        yield from split_lines(_check_text(decode(_unpack(raw, path, stack)), path))


def read_head(path: str, config: Config) -> bytes:
    """Return the first `HEAD_BYTES` bytes of a file, decompressed, in UTF-8 if it is UTF-16 or 32.

    Raises:
      UsageError: The file cannot be read. The error names it.
    """
    head = b""
    with opening.naming_errors(path), contextlib.ExitStack() as stack:
        raw = stack.enter_context(opening.open_stored(path, config))
        for block in decode(_unpack(raw, path, stack)):
            head += block
            if len(head) >= HEAD_BYTES:
                break
    return head[:HEAD_BYTES]


def to_text(line: bytes) -> str:
    """Decode a line as UTF-8 or, if that fails, as Latin-1; without its byte order mark."""
    line = line.removeprefix(codecs.BOM_UTF8)
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


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
        raise UsageError(f"{path} is {kind}: unpack it, or save it as text, one URL a line")
    if b"\0" in head[:8192]:
        raise UsageError(
            f"{path} holds binary data (NUL bytes): give a list of URLs as UTF-8 text, one a line"
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
                f"{path} holds more than one file: give it as --images if it "
                "holds images, else unpack it and give the list itself"
            )
        content = archive.extractfile(member)
        assert content is not None
        yield from _blocks(content)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(_BLOCK), b"")
