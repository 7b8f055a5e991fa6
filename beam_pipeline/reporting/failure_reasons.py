"""Short explanations of the reasons of failures. Pure."""

from __future__ import annotations

import http
import re

_EXPLANATIONS = {
    "blocked_address": "the URL leads to a private or local network address",
    "connect": "the server did not accept a connection",
    "connection_lost": "the connection broke before the image was complete",
    "corrupt": "the image file is damaged",
    "disallowed": "the site forbids this use (X-Robots-Tag)",
    "dns": "the host name was not found",
    "empty": "the server sent no bytes",
    "invalid_url": "the line contains no valid URL",
    "not_an_image": "the content is not an image",
    "not_found": "the file does not exist",
    "placeholder": "a substitute picture, such as “photo unavailable”",
    "timeout": "the server did not answer completely in time",
    "tls": "the connection is not secure: for example, the certificate has expired",
    "too_large": "more bytes than --max_image_bytes",
    "too_many_pixels": "more pixels than --max_image_pixels",
    "too_many_redirects": "the server kept redirecting",
    "truncated": "the image file ends early",
    "unsupported_format": "the image format is not supported",
    "unsupported_scheme": "only http and https are supported",
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
