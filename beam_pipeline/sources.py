"""URL lists and folders of image files -> ImageRef. Plain generators; nothing is held but a line."""

from __future__ import annotations

import bz2
import codecs
import collections
import contextlib
import gzip
import http.client
import io
import json
import re
import shutil
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

import beam_pipeline
from beam_pipeline import files, urls
from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Failure, ImageRef

LIST_TIMEOUT = 60  # seconds without a byte from the server of a list

# What a broken file or URL raises while it is opened, unpacked and read.
_READ_ERRORS = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error, http.client.HTTPException, BeamIOError)


def read_refs(config: Config, counts: collections.Counter[str]) -> Iterator[ImageRef]:
    """Reads the images of `--input` or `--images`, in order, after `--skip` and up to `--count`.

    Args:
      config: The options.
      counts: Gets `lines` and `ignored` (blank, comment, failed for another reason than those of `--retry_reasons`, skipped,
        past `--count`), complete at the end.

    Raises:
      UsageError: the list cannot be read to its end; names the file.
    """
    end = None if config.count is None else config.skip + config.count
    reasons = config.retry_reasons and {reason.strip() for reason in config.retry_reasons.split(",")}
    number = -1
    for line in _lines(config):
        counts["lines"] += 1
        # A path is neither blank nor a comment, whatever it begins with.
        if isinstance(line, bytes):
            line = line.removeprefix(codecs.BOM_UTF8).strip()
            if not line or line.startswith(b"#") or (reasons and _reason_of(line) not in reasons):
                counts["ignored"] += 1
                continue
        number += 1
        if number < config.skip or (end is not None and number >= end):
            counts["ignored"] += 1
        else:
            yield parse_line(line) if isinstance(line, bytes) else ImageRef("", line)


def parse_line(line: bytes) -> ImageRef:
    """Reads `URL`, `ID<whitespace>URL`, or a line of a `failures-*.jsonl`; what is not UTF-8 is Latin-1."""
    try:
        line.decode()
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = "latin-1"
    if line.lstrip().startswith(b"{"):
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            fields = json.loads(line.decode(encoding))
            return ImageRef(_encodable(fields.get("id") or ""), _encodable(fields["url"]))
    # Only ASCII's spaces part fields: Latin-1 has others, which stand in URLs.
    first, *others = (field.decode(encoding) for field in line.split())
    return ImageRef(first, others[-1]) if others else ImageRef("", first)


def _reason_of(line: bytes) -> str | None:
    """Why the image of a line of a `failures-*.jsonl` failed; None for a line of anything else."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        return json.loads(line).get("reason")
    return None


def check_url(ref: ImageRef) -> Failure | None:
    """Return why a URL cannot be requested, if so; nothing is resolved or fetched for that."""
    try:
        urls.parse(ref.url)
    except urls.UrlError as error:
        return Failure(ref, "read", error.reason, str(error))
    return None


def read_digests(path: str) -> frozenset[str]:
    """Reads a file of sha256, one in hex a line; what stands behind it in the line, and lines that begin with #, are ignored.

    Raises:
      UsageError: it cannot be read, or holds something else.
    """
    try:
        lines = files.read_bytes(path).decode().splitlines()
    except (OSError, ValueError, BeamIOError) as error:
        raise UsageError(f"--exclude_sha256 {path} cannot be read: {error}") from error
    digests = [line.split()[0].lower() for line in lines if line.strip() and not line.startswith("#")]
    for digest in digests:
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise UsageError(f"--exclude_sha256 {path} holds {digest[:80]!r}, which is no sha256 in hex")
    return frozenset(digests)


def check_readable(config: Config) -> None:
    """Reads the list up to its first image, so that a list that cannot be used is told before anything is fetched.

    Raises:
      UsageError: it is not there, cannot be read, or holds no image.
    """
    if next(read_refs(config, collections.Counter()), None) is None:
        if config.skip:
            raise UsageError(f"{config.input or config.images} holds no image after the --skip {config.skip} that are left out")
        if config.retry_reasons:
            raise UsageError(f"--input {config.input} holds no image that failed for one of --retry_reasons {config.retry_reasons}")
        raise UsageError(f"--input {config.input} holds no URL: every line is blank or a comment")


def _lines(config: Config) -> Iterator[bytes | str]:
    """Lines of lists, as bytes, or paths of images."""
    if config.images:
        yield from _match("--images", config.images)
        return
    assert config.input is not None
    for path in list_files(config) or [config.input]:
        try:
            with contextlib.ExitStack() as stack:
                yield from _unpack(stack.enter_context(_open(path)), path, stack)
        except _READ_ERRORS as error:
            raise UsageError(f"--input {path} cannot be read: {str(error) or type(error).__name__}") from error


def list_files(config: Config) -> list[str]:
    """The files of `--input`, none where that is a URL. Raises UsageError if there are none."""
    return [] if config.input is None or _is_url(config.input) else _match("--input", config.input)


def _match(option: str, pattern: str) -> list[str]:
    # Beam finds nothing for a glob whose very first folder is one.
    bare = re.match(r"[^/]*[*?\[]", pattern) is not None
    try:
        [match] = FileSystems.match([f"./{pattern}" if bare else pattern])
    except (BeamIOError, ValueError) as error:
        raise UsageError(f"{option} {pattern} cannot be read: {error}") from error
    if not match.metadata_list:
        raise UsageError(f"{option} {pattern} matches no file; check the path")
    return sorted(file.path.removeprefix("./" if bare else "") for file in match.metadata_list)


def _is_url(path: str) -> bool:
    return path.lower().startswith(("http://", "https://"))


def _open(path: str) -> IO[bytes]:
    if _is_url(path):
        request = urllib.request.Request(path, headers={"User-Agent": f"beam_pipeline/{beam_pipeline.__version__}"})
        # A run takes days to read it, and no server keeps a connection for that long.
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        with _Body(urllib.request.urlopen(request, timeout=LIST_TIMEOUT)) as body:
            shutil.copyfileobj(body, copy, 1 << 20)
        copy.seek(0)
        return copy
    return cast(IO[bytes], FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))


class _Body(io.RawIOBase):
    """What a server answers. Where it breaks off, http.client would have it end."""

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


def _unpack(raw: IO[bytes], path: str, stack: contextlib.ExitStack) -> Iterator[bytes]:
    """Lines of a list in whatever it is packed; told by its bytes, as a URL often has no telling suffix."""
    file = io.BufferedReader(cast(io.RawIOBase, raw), 1 << 20)
    head = file.peek(3)
    if head.startswith(b"\x1f\x8b"):
        file = io.BufferedReader(cast(io.RawIOBase, stack.enter_context(gzip.GzipFile(fileobj=file))), 1 << 20)
    elif head.startswith(b"BZh"):
        file = io.BufferedReader(cast(io.RawIOBase, stack.enter_context(bz2.BZ2File(file))), 1 << 20)
    block = file.peek(512)[:512]
    empty_archive = len(block) == 512 and not any(block)
    if block[257:262] != b"ustar" and not empty_archive:
        yield from file
        return
    archive = stack.enter_context(tarfile.open(fileobj=file, mode="r|"))  # noqa: SIM115
    lists = 0
    for member in archive:
        if not member.isfile():
            continue
        lists += 1
        if lists > 1:
            raise UsageError(f"--input {path} holds more than one file; unpack it and give the list itself")
        content = archive.extractfile(member)
        assert content is not None
        yield from content


def _encodable(text: object) -> str:
    """JSON can spell half of a surrogate pair, which UTF-8 cannot."""
    return str(text).encode("utf-8", "replace").decode()
