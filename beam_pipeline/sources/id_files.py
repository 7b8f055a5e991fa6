"""Small files that options name: digests, IDs, and classes by ID."""

from __future__ import annotations

import codecs
import csv
import hashlib
import re
import sys
from collections.abc import Iterator

from apache_beam.io.filesystem import BeamIOError

from beam_pipeline.config import Config, UsageError
from beam_pipeline.sources import text_lines
from beam_pipeline.storage import filesystem

_MAX_BYTES = 256 * 2**20  # about 4 million digests, or the classes of all of ILSVRC2012


def read_digests(path: str) -> frozenset[str]:
    """Read a file of sha256 digests.

    Each line begins with a digest in hex; the rest of the line is ignored. Blank lines and lines
    that begin with # are ignored.

    Returns:
      The digests, in lower-case hex.

    Raises:
      UsageError: The file cannot be read, has other contents, or is larger than 256 MiB.
    """
    digests = set()
    for line in _read_lines("exclude_sha256", path):
        digest = line.split()[0].lower()
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise UsageError(
                f"--exclude_sha256 {path} contains {digest[:80]!r}, which is not a sha256. "
                "Give one of 64 hexadecimal digits on each line."
            )
        digests.add(digest)
    return frozenset(digests)


def read_ids(path: str) -> frozenset[str]:
    """Read the file of `--validation_ids`: an ID, a file name or a URL a line.

    Raises:
      UsageError: The file cannot be read, holds no line, or is larger than 256 MiB.
    """
    ids = frozenset(line.strip() for line in _read_lines("validation_ids", path))
    if not ids:
        raise UsageError(
            f"--validation_ids {path} contains no ID: every line is blank or a comment. "
            "Check the file."
        )
    return ids


def read_classes(path: str) -> dict[str, str]:
    """Read the file of `--class_file`: lines or CSV of `ID,CLASS`.

    Returns:
      The first word of the second column, by the first column.

    Raises:
      UsageError: The file cannot be read, a line has no second column, or the file is larger than
        256 MiB.
    """
    classes = {}
    try:
        for number, row in enumerate(csv.reader(_read_lines("class_file", path)), 1):
            fields = row if len(row) > 1 else row[0].split(maxsplit=1)
            if len(fields) < 2 or not fields[1].split():
                raise UsageError(
                    f"--class_file {path} contains no class in line {number}: {row[0][:80]!r}. "
                    "Give lines of ID,CLASS."
                )
            classes[fields[0].strip()] = sys.intern(fields[1].split()[0])
    except csv.Error as error:
        raise UsageError(f"--class_file {path} cannot be read: {error}") from error
    if not classes:
        raise UsageError(
            f"--class_file {path} contains no ID: every line is blank or a comment. Check the file."
        )
    return classes


def read_digest(config: Config, option: str) -> str | None:
    """Return the sha256 of the file that an option names, in hex; None if it names none.

    Raises:
      UsageError: The file cannot be read or is larger than 256 MiB.
    """
    path = getattr(config, option)
    return hashlib.sha256(_read(option, path)).hexdigest() if path else None


def _read_lines(option: str, path: str) -> Iterator[str]:
    """Yield the lines of a file that are not blank or comments, without their line ends."""
    text = b"".join(text_lines.decode([_read(option, path)])).removeprefix(codecs.BOM_UTF8)
    for line in text.splitlines():
        if line.strip() and not line.startswith(b"#"):
            try:
                yield line.decode()
            except UnicodeDecodeError:
                yield line.decode("latin-1")


def _read(option: str, path: str) -> bytes:
    try:
        data = filesystem.read_bytes(path, _MAX_BYTES + 1)
    except (OSError, ValueError, BeamIOError) as error:
        raise UsageError(f"--{option} {path} cannot be read: {error}") from error
    if len(data) > _MAX_BYTES:
        raise UsageError(
            f"--{option} {path} is larger than {_MAX_BYTES >> 20} MiB. Give a smaller file."
        )
    return data
