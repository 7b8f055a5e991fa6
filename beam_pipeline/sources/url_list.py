"""Readers of URL lists and folders of image files, as ImageRef.

The readers are plain generators and hold one line at a time.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import json
import re
from collections.abc import Iterator

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Failure, ImageRef
from beam_pipeline.sources import globs, text_lines
from beam_pipeline.storage import any_path, filesystem

_MAX_DIGESTS = 64 * 2**20  # bytes of a file of sha256 digests: about a million digests
# Stages of failures that a kept body may have caused.
_STAGES_OF_BODIES = ("fetch", "decode")
_CUT_AT = 1000  # bytes of an overlong line that appear in its failure record
# Cannot occur in a URL of a list, because spaces separate fields.
_CUT = f" ... cut from a line of more than {text_lines.MAX_LINE:,} bytes"


def read_refs(config: Config, counts: collections.Counter[str]) -> Iterator[ImageRef]:
    """Yield the images of `--input` or `--images`, in order, after `--skip` and up to `--count`.

    Args:
      config: The options.
      counts: Receives the number of `lines` and of `ignored` lines: blank lines, comments, failures
        for a reason not in `--retry_reasons`, skipped lines and lines after `--count`. The numbers
        are complete when the generator ends.

    Yields:
      One ImageRef per line that is not ignored.

    Raises:
      UsageError: The list cannot be read to its end. The error names the file.
    """
    end = None if config.count is None else config.skip + config.count
    reasons = config.retry_reasons and {
        reason.strip() for reason in config.retry_reasons.split(",")
    }
    index = -1
    for line in _lines(config):
        counts["lines"] += 1
        # A path (str) is never blank or a comment, whatever it begins with.
        if isinstance(line, bytes):
            if len(line) <= text_lines.MAX_LINE:
                line = line.removeprefix(codecs.BOM_UTF8).strip()
            if not line or line.startswith(b"#") or (reasons and _reason_of(line) not in reasons):
                counts["ignored"] += 1
                continue
        index += 1
        if index < config.skip or (end is not None and index >= end):
            counts["ignored"] += 1
        else:
            yield parse_line(line) if isinstance(line, bytes) else ImageRef("", line)


def parse_line(line: bytes) -> ImageRef:
    """Parse a line: `URL`, `ID<whitespace>URL`, or a line of a `failures-*.jsonl`.

    Args:
      line: The line in UTF-8; if it is not valid UTF-8, it is decoded as Latin-1.

    Returns:
      The image. For a line longer than `MAX_LINE`, its URL is the beginning of the line with a
      note; see `check_length`.
    """
    if len(line) > text_lines.MAX_LINE:
        return ImageRef("", line[:_CUT_AT].decode(errors="replace") + _CUT)
    try:
        line.decode()
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = "latin-1"
    if line.lstrip().startswith(b"{"):
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            fields = json.loads(line.decode(encoding))
            is_retried = fields.get("stage") in _STAGES_OF_BODIES
            return ImageRef(
                _encodable(fields.get("id") or ""), _encodable(fields["url"]), is_retried
            )
    # Only ASCII whitespace separates fields. Latin-1 has other spaces, which occur in URLs.
    first, *others = (field.decode(encoding) for field in line.split())
    return ImageRef(first, others[-1]) if others else ImageRef("", first)


def _reason_of(line: bytes) -> str | None:
    """Return the reason in a line of a `failures-*.jsonl`; None for any other line."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        return json.loads(line).get("reason")
    return None


def check_length(ref: ImageRef) -> Failure | None:
    """Return the failure of an image whose line was longer than `MAX_LINE`; None otherwise."""
    if not ref.url.endswith(_CUT):
        return None
    return Failure(
        ref, "read", "invalid_url", f"the line is longer than {text_lines.MAX_LINE:,} bytes"
    )


def read_digests(path: str) -> frozenset[str]:
    """Read a file of sha256 digests.

    Each line begins with a digest in hex; the rest of the line is ignored. Blank lines and lines
    that begin with # are ignored.

    Returns:
      The digests, in lower-case hex.

    Raises:
      UsageError: The file cannot be read, has other contents, or is larger than 64 MiB.
    """
    try:
        data = filesystem.read_bytes(path, _MAX_DIGESTS + 1)
    except (OSError, ValueError, BeamIOError) as error:
        raise UsageError(f"--exclude_sha256 {path} cannot be read: {error}") from error
    if len(data) > _MAX_DIGESTS:
        raise UsageError(
            f"--exclude_sha256 {path} is larger than {_MAX_DIGESTS >> 20} MiB. "
            "Give only the most frequent digests."
        )
    digests = set()
    for line in b"".join(text_lines.decode([data])).removeprefix(codecs.BOM_UTF8).splitlines():
        if not line.strip() or line.startswith(b"#"):
            continue
        digest = line.split()[0].lower().decode("latin-1")
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise UsageError(
                f"--exclude_sha256 {path} contains {digest[:80]!r}, which is not a sha256. "
                "Give one of 64 hexadecimal digits on each line."
            )
        digests.add(digest)
    return frozenset(digests)


def check_readable(config: Config) -> None:
    """Read the list up to its first image, to report an unusable list before anything is fetched.

    Raises:
      UsageError: The list does not exist, cannot be read, or contains no image.
    """
    if next(read_refs(config, collections.Counter()), None) is None:
        if config.skip:
            raise UsageError(
                f"{config.input or config.images} has no image left after --skip {config.skip}. "
                "Give a smaller number."
            )
        if config.retry_reasons:
            raise UsageError(
                f"--input {config.input} contains no image that failed for one of "
                f"--retry_reasons {config.retry_reasons}. Its reasons are {_list_reasons(config)}."
            )
        raise UsageError(
            f"--input {config.input} contains no URL: every line is blank or a comment. "
            "Check the file."
        )


def _list_reasons(config: Config) -> str:
    """Return the reasons in a list of failures, for a message."""
    lines = (line for line in _lines(config) if isinstance(line, bytes))
    reasons = {reason for line in lines if isinstance(reason := _reason_of(line), str)}
    return (
        ", ".join(sorted(reason[:40] for reason in reasons)[:40])
        or "none: it is not a list of failures"
    )


def _lines(config: Config) -> Iterator[bytes | str]:
    """Yield the lines of the lists, as bytes, or the paths of image files, as str."""
    if config.images:
        yield from _match("--images", config.images)
        return
    assert config.input is not None
    for path in list_files(config) or [config.input]:
        yield from text_lines.read_lines(path, config)


def list_files(config: Config) -> list[str]:
    """Return the files of `--input`; none if it is a URL or not given.

    Raises:
      UsageError: `--input` cannot be read or matches no file.
    """
    return (
        []
        if config.input is None or any_path.is_url(config.input)
        else _match("--input", config.input)
    )


def refuse_pipe(config: Config) -> None:
    """Raise UsageError if the list is a pipe.

    Only the process of the command can read a pipe, and only once.
    """
    for path in list_files(config) if config.input and any_path.is_local(config.input) else ():
        if text_lines.is_pipe(path):
            raise UsageError(
                f"--input {path} is a pipe, which the workers of this runner cannot read. "
                "Save the list to a file, or give --urls_per_commit."
            )


def _match(option: str, pattern: str) -> list[str]:
    try:
        if any_path.is_local(pattern):
            paths = globs.match(pattern)
        else:
            [match] = FileSystems.match([pattern])
            paths = sorted(file.path for file in match.metadata_list)
    except (OSError, BeamIOError, ValueError) as error:
        raise UsageError(f"{option} {pattern} cannot be read: {error}") from error
    if not paths:
        raise UsageError(f"{option} {pattern} matches no file. Check the path.")
    return paths


def _encodable(text: object) -> str:
    """Return the text with lone surrogates replaced; JSON can contain them, UTF-8 cannot."""
    return str(text).encode("utf-8", "replace").decode()
