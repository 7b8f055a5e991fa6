"""Marks files that a run generates and a person may edit, so that no edit is lost.

Such a file holds a digest of its own text. A file without it, or with another one, is a person's.
"""

from __future__ import annotations

import hashlib
import re

from apache_beam.io.filesystem import BeamIOError

from beam_pipeline.storage import any_path, filesystem

# Stands for the digest in a text that is to be signed, and while the digest is computed.
DIGEST_PLACE = "0" * 64
_DIGEST = re.compile(rb"(.*)\b([0-9a-f]{64})\b(.*)", re.DOTALL)  # the last one in a text
_MAX_BYTES = 16 << 20


def sign(text: str) -> bytes:
    """Encode a text as UTF-8, with its sha256 in hex in the last place of `DIGEST_PLACE`."""
    data = text.encode(errors="replace")
    before, _, after = data.rpartition(DIGEST_PLACE.encode())
    return before + hashlib.sha256(data).hexdigest().encode() + after


def is_unedited(data: bytes) -> bool:
    """Return whether data are exactly what `sign` has returned."""
    match = _DIGEST.fullmatch(data)
    if match is None:
        return False
    before, digest, after = match.groups()
    return hashlib.sha256(before + DIGEST_PLACE.encode() + after).hexdigest() == digest.decode()


def is_replaceable(path: str) -> bool:
    """Return whether no file, or only one that a run has written, would be lost at a path."""
    try:
        return not any_path.exists(path) or is_unedited(filesystem.read_bytes(path, _MAX_BYTES))
    except (OSError, BeamIOError):  # for example, a folder
        return False
