"""Short explanations of the reasons of failures. Pure."""

from __future__ import annotations

import http
import re

_EXPLANATIONS = {
    "blocked_address": "the URL leads to a private or local network address",
    "connect": "the server did not accept a connection",
    "connection_lost": "the connection broke before the image was complete",
    "corrupt": "the image file is damaged",
    "corrupt_container": "an archive or table is damaged, up to its end or that of a part",
    "disallowed": "the site forbids this use (X-Robots-Tag, or with --obey_robots_txt its rules)",
    "dns": "the host name was not found",
    "empty": "the server sent no bytes",
    "grey": "no pixel has a* or b* beyond 5",
    "invalid_digest": "the table contains no valid digest for the image",
    "invalid_metadata": "a value of --keep_columns cannot be stored",
    "invalid_url": "the line contains no valid URL",
    "low_colorfulness": "less colourful than --min_colorfulness",
    "no_image": "the row of the Parquet file has no image",
    "not_an_image": "the content is not an image",
    "not_found": "the file does not exist",
    "placeholder": "a substitute picture, such as “photo unavailable”",
    "timeout": "the server did not answer completely in time",
    "tinted": "one hue, as in a sepia photograph, or hardly any colour",
    "tls": "the connection is not secure: for example, the certificate has expired",
    "too_elongated": "longer and narrower than --max_aspect_ratio",
    "too_large": "more bytes than --max_image_bytes",
    "too_many_pixels": "more pixels than --max_image_pixels",
    "too_many_redirects": "the server kept redirecting",
    "too_small": "the shorter side has fewer pixels than --min_side",
    "truncated": "the image file ends early",
    "unsupported_format": "the image format is not supported",
    "unsupported_member": "a link, device, sparse or encrypted file in an archive",
    "unsupported_scheme": "only http and https are supported",
    "wrong_digest": "the file is not the one that the table describes",
}


def explain(reason: str) -> str:
    """Return the explanation of a reason; empty if the reason is unknown.

    >>> explain("http_404")
    'the server answered “Not Found”'
    """
    if match := re.fullmatch(r"http_(\d{3})", reason):
        try:
            return f"the server answered “{http.HTTPStatus(int(match[1])).phrase}”"
        except ValueError:
            return "the server answered with an error"
    return _EXPLANATIONS.get(reason, "")
