"""Interpretation of the heads of responses: status, redirects, Retry-After."""

from __future__ import annotations

import contextlib
import email.utils
import re
import time
from collections.abc import Sequence

import aiohttp
import yarl

from beam_pipeline.config import MAX_REDIRECTS, PLACEHOLDER_URL
from beam_pipeline.fetching import http_urls
from beam_pipeline.fetching.errors import FetchError

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_SECONDS = 24 * 3600.0  # that a host may ask for
_RETRYABLE_STATUSES = (429, *range(500, 600))


def check_status(response: aiohttp.ClientResponse) -> None:
    """Raise FetchError unless the status is 2xx."""
    if 200 <= response.status < 300:
        return
    raise FetchError(
        f"http_{response.status}",
        f"{response.status} {response.reason or ''}".strip(),
        retryable=response.status in _RETRYABLE_STATUSES,
        retry_after=_seconds(response.headers.get("Retry-After", "")),
    )


def find_redirect(route: Sequence[yarl.URL], response: aiohttp.ClientResponse) -> yarl.URL | None:
    """Return the URL that a response redirects to; None if it does not.

    Args:
      route: The URLs requested so far; the last one gave the response.
      response: The response.

    Raises:
      FetchError: There are too many redirects, or this one leads to no image.
    """
    if response.status not in _REDIRECTS or "Location" not in response.headers:
        return None
    location = response.headers["Location"]
    if len(route) > MAX_REDIRECTS:
        raise FetchError("too_many_redirects", f"more than {MAX_REDIRECTS}")
    try:
        target = http_urls.join(route[-1], location)
    except http_urls.UrlError as error:
        raise FetchError(error.reason, f"redirected to {location!r}: {error}") from error
    # The URL of a capture ends with that of its origin.
    _, _, captured = str(target).partition("id_/")
    if any(re.fullmatch(PLACEHOLDER_URL, text) for text in (str(target), captured)):
        raise FetchError("placeholder", f"redirected to {target}")
    return target


def _seconds(retry_after: str) -> float:
    """Return the seconds to wait by a Retry-After header (RFC 9110, 10.2.3).

    Args:
      retry_after: Seconds or a date; anything else counts as 0, and more than a day as a day.
    """
    with contextlib.suppress(ValueError):
        return min(max(0.0, float(retry_after)), _MAX_SECONDS)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        return min(max(0.0, seconds), _MAX_SECONDS)
    return 0.0
