"""Members of a tar archive and of the tar archives in it, found by their headers.

The bodies are passed over. Nothing is kept, so that memory stays flat for any number of members.
"""

from __future__ import annotations

import math
import tarfile
from collections.abc import Iterator
from typing import IO, NamedTuple, cast

from beam_pipeline.elements import Problem

# Maximum size of the headers of one member, extended ones and a map of holes included.
_MAX_HEADERS = 1 << 20
_MAX_OFFSET = 1 << 62  # of a position that the system can seek to
# What tarfile raises for damaged headers, beyond its own errors.
_HEADER_ERRORS = (tarfile.TarError, ValueError, LookupError, RecursionError)


class Member(NamedTuple):
    """A member that is not a folder.

    Attributes:
      name: Its name, after that of its inner archive and a slash.
      folder: Path of its inner archive, without `.tar`, and of its folder in it; empty if none.
      offset: Position of the body in the file.
      size: Number of bytes of the body.
      problem: Why its body cannot be read; None for a regular file.
    """

    name: str
    folder: str
    offset: int
    size: int
    problem: Problem | None = None


def read_members(file: IO[bytes]) -> Iterator[Member]:
    """Yield the members of an archive; a `.tar` in it is read as a folder of that name.

    Args:
      file: The archive, decompressed. Seeking backwards is not required. Between two members, a
        caller may read forward, up to the end of the last body.

    Raises:
      tarfile.TarError, ValueError, LookupError, RecursionError: The archive is damaged.
    """
    return _read(file, 0, math.inf, "", "")


def skip_body(file: IO[bytes], member: Member) -> None:
    """Move to the end of a body.

    Raises:
      tarfile.ReadError: The file ends before it.
    """
    if member.size:
        file.seek(member.offset + member.size - 1)
        if not file.read(1):
            raise tarfile.ReadError(f"the file ends within {member.name[:300]!r}")


def is_header(block: bytes) -> bool:
    """Return whether the first 512 bytes of a file are the header of a tar archive's member."""
    try:
        return bool(tarfile.TarInfo.frombuf(block[:512], "utf-8", "surrogateescape").chksum)
    except (tarfile.TarError, ValueError):
        return False


def _read(file: IO[bytes], start: int, size: float, prefix: str, folder: str) -> Iterator[Member]:
    """Yield the members of an archive that is a part of a file, as `Member` describes them."""
    window = _Window(file, start, size)
    archive = tarfile.TarFile(
        fileobj=cast(IO[bytes], window),
        tarinfo=_Header,
        encoding="utf-8",
        errors="surrogateescape",
    )
    while header := archive.next():
        archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
        archive.pax_headers = {}
        window.headers_left = _MAX_HEADERS
        # A number in an extended header may be anything.
        if header.size < 0 or not header.offset < archive.offset < _MAX_OFFSET:
            raise tarfile.ReadError(f"a size of {header.size} bytes")
        problem = _problem(header)
        if problem is None and header.offset_data + header.size > size:
            raise tarfile.ReadError(f"{header.name[:300]!r} ends behind its archive")
        member = Member(
            prefix + header.name,
            _join(folder, header.name.rpartition("/")[0]),
            start + header.offset_data,
            header.size,
            problem,
        )
        if problem is None and header.name.lower().endswith(".tar"):
            yield from _read_inner(file, member, is_nested=bool(prefix))
        elif not header.isdir():
            yield member


def _read_inner(file: IO[bytes], member: Member, is_nested: bool) -> Iterator[Member]:
    if is_nested:
        detail = "a .tar in a .tar in a .tar: only one level is read"
        yield member._replace(problem=Problem("unsupported_member", detail))
        return
    folder = _join(member.folder, member.name.rpartition("/")[2][: -len(".tar")])
    try:
        yield from _read(file, member.offset, member.size, f"{member.name}/", folder)
    except _HEADER_ERRORS as error:
        skip_body(file, member)  # raises if the outer archive is what is damaged
        yield member._replace(problem=Problem("corrupt_container", str(error)))


def _problem(header: tarfile.TarInfo) -> Problem | None:
    if header.isdir() or (header.isreg() and not header.issparse()):
        return None
    kinds = {
        "a link": header.issym() or header.islnk(),
        "a sparse file": header.issparse(),
        "a device or pipe": header.isdev(),
    }
    kind = next((kind for kind, is_so in kinds.items() if is_so), f"of type {header.type!r}")
    return Problem("unsupported_member", f"the member is {kind}, not a file with its bytes")


def _join(folder: str, below: str) -> str:
    """Join two paths of folders, without their empty parts and dots."""
    return "/".join(part for part in f"{folder}/{below}".split("/") if part not in ("", "."))


class _Header(tarfile.TarInfo):
    """A header that raises for damage where tarfile would end the archive silently."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _Header:  # type: ignore[override]
        if not buf.strip(b"\0"):  # the end of the archive
            return super().frombuf(buf, encoding, errors)  # type: ignore[arg-type, return-value]
        try:
            header = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        if header.size < 0:
            raise tarfile.ReadError(f"a size of {header.size} bytes")
        return header  # type: ignore[return-value]


class _Window:
    """A part of a file, for tarfile, which reads only headers from it.

    Attributes:
      headers_left: Number of bytes that may be read before the next member.
    """

    def __init__(self, file: IO[bytes], start: int, size: float):
        self._file, self._start, self._size = file, start, size
        self.headers_left = _MAX_HEADERS

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, position: int) -> None:
        self._file.seek(self._start + position)

    def read(self, size: int) -> bytes:
        self.headers_left -= size
        if size < 0 or self.headers_left < 0:
            raise tarfile.ReadError(f"headers of more than {_MAX_HEADERS:,} bytes")
        return self._file.read(int(max(0, min(size, self._size - self.tell()))))
