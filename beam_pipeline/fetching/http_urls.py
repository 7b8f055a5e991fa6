"""Parsing of the URLs of lists and servers to yarl.URL. Pure functions."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

import yarl

from beam_pipeline.elements import Failure, ImageRef
from beam_pipeline.fetching import public_addresses

# Appendix B of RFC 3986: scheme, authority, path with query.
_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^#]*)")
_CONTROLS_AND_SPACE = "".join(map(chr, range(0x21)))
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
_ADDRESS = re.compile(r"[0-9a-f:.]+(?:%[A-Za-z0-9%._~-]+)?")
_MAX_NAME_LENGTH = 253


class UrlError(ValueError):
    """A URL that cannot be requested.

    Attributes:
      reason: A reason of the table in docs/failures.md.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(detail.encode(errors="backslashreplace").decode())
        self.reason = reason


def parse(text: str) -> yarl.URL:
    """Parse an absolute URL of a list.

    Path and query keep their spelling, because a signature may cover them. Only characters that a
    request line cannot contain (spaces, controls, non-ASCII) are percent-encoded. The fragment is
    dropped.

    Args:
      text: The URL.

    Returns:
      The URL. Its `raw_path` is the path and the query, because yarl would drop an empty query.

    Raises:
      UrlError: The URL is not valid, or its scheme is neither http nor https.
    """
    return _build(*_split(text))


def join(base: yarl.URL, reference: str) -> yarl.URL:
    """Resolve a reference, such as a Location header, against a base URL (RFC 3986, 5.2).

    Args:
      base: A URL that `parse` or `join` returned.
      reference: An absolute or relative URL.

    Returns:
      The URL, as `parse` returns it.

    Raises:
      UrlError: See `parse`.
    """
    scheme, authority, target = _split(reference)
    if scheme is None and authority is None:
        authority, target = base.raw_authority, _resolve(base.raw_path, target)
    return _build(scheme or base.scheme, authority, target)


def _split(text: str) -> tuple[str | None, str | None, str]:
    # Browsers also strip and remove these characters.
    text = re.sub("[\t\r\n]", "", text.strip(_CONTROLS_AND_SPACE))
    match = _PARTS.match(text)
    assert match is not None
    scheme, authority, target = match.groups()
    return scheme and scheme.lower(), authority, target


def _build(scheme: str | None, authority: str | None, target: str) -> yarl.URL:
    if scheme is None:
        raise UrlError("invalid_url", "the URL has no http:// or https://")
    if scheme not in ("http", "https"):
        raise UrlError("unsupported_scheme", f"{scheme}: only http and https are supported")
    if not authority:
        raise UrlError("invalid_url", "the URL has no host")
    try:
        url = yarl.URL(f"{scheme}://{authority}")
        _check_host(url)
        path = urllib.parse.quote(target, safe=_PRINTABLE, errors="surrogateescape")
    # yarl raises IndexError for some mixtures of brackets and an @.
    except (ValueError, IndexError) as error:
        userinfo, _, host = authority.rpartition("@")
        # The error repeats the authority, which contains the userinfo.
        detail = (
            str(error).replace(authority, host).replace(userinfo, "") if userinfo else str(error)
        )
        raise UrlError("invalid_url", f"{host[:300]!r}: {detail}") from error
    return public_addresses.canonical_url(url).with_path(path, encoded=True)


def _check_host(url: yarl.URL) -> None:
    """Raise ValueError if a host is neither an IP address nor a valid DNS name."""
    host = url.raw_host or ""
    if ":" in host:
        ipaddress.IPv6Address(host)
        if not _ADDRESS.fullmatch(host):
            raise ValueError("not a valid IPv6 zone")
    elif not _NAME.fullmatch(host) or len(host.removesuffix(".")) > _MAX_NAME_LENGTH:
        raise ValueError("not a valid host name")
    # Decodes each label that begins with xn--, and raises ValueError for an invalid one.
    _ = url.host


def _resolve(base: str, reference: str) -> str:
    """Resolve a path with a query against a base path, which begins with a slash."""
    path, mark, query = reference.partition("?")
    base_path, base_mark, base_query = base.partition("?")
    if not path:
        return base_path + (mark + query or base_mark + base_query)
    if not path.startswith("/"):
        path = _remove_dots(f"{base_path.rpartition('/')[0]}/{path}")
    return path + mark + query


def _remove_dots(path: str) -> str:
    """Remove the segments `.` and `..` of a path that begins with a slash (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    first, *segments = path.split("/")
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/".join([first, *kept])


def check_url(ref: ImageRef) -> Failure | None:
    """Return the failure of an image whose URL cannot be requested; None for a valid URL.

    The check neither resolves nor fetches anything.
    """
    try:
        parse(ref.url)
    except UrlError as error:
        return Failure(ref, "read", error.reason, str(error))
    return None
