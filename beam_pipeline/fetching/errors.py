"""Conversion of the HTTP client's exceptions to FetchError.

The reasons are those of the table in docs/failures.md.
"""

from __future__ import annotations

import errno
import re

import aiohttp

from beam_pipeline.fetching import public_addresses

# Too many open files or out of memory: neither the image nor the host is the cause.
_FAULTS_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_MAX_DETAIL_LENGTH = 1000


class FetchError(Exception):
    """A failed attempt to fetch an image."""

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        retryable: bool = False,
        retry_after: float = 0,
        unreachable: bool = False,
    ):
        """Initialize the error.

        Args:
          reason: A reason of the table in docs/failures.md.
          detail: A human-readable explanation, cut to 1000 characters.
          retryable: Whether the error is temporary: another attempt may succeed.
          retry_after: Time that the server asked to wait, in seconds.
          unreachable: Whether its host has no address, or accepts no connection.
        """
        # A server's text may contain undecodable bytes, which Python keeps as surrogates.
        detail = detail[:_MAX_DETAIL_LENGTH].encode(errors="replace").decode()
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
        self.retryable, self.retry_after = retryable, retry_after
        self.unreachable = unreachable


def is_fault_of_the_machine(error: Exception) -> bool:
    """Return whether this machine, not a server, caused the error."""
    return getattr(getattr(error, "os_error", error), "errno", None) in _FAULTS_OF_THE_MACHINE


def explain(error: Exception, timeout: float) -> FetchError:
    """Return the FetchError for an exception of the client.

    Args:
      error: A TimeoutError, OSError, ValueError or aiohttp.ClientError.
      timeout: `--fetch_timeout`, in seconds.
    """
    # The connector's errors repeat the host and the connector's settings; the cause does not.
    cause = getattr(error, "os_error", error)
    detail = re.sub(r"^\[Errno [^]]*\] ", "", str(cause)) or type(cause).__name__
    if isinstance(cause, public_addresses.BlockedAddressError):
        return FetchError("blocked_address", detail)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        detail = f"no connection within {timeout / 2:g} s"
        return FetchError("timeout", detail, retryable=True, unreachable=True)
    if isinstance(error, TimeoutError):
        return FetchError("timeout", f"not complete within {timeout:g} s", retryable=True)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return FetchError("dns", detail, retryable=True, unreachable=True)
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return FetchError("tls", detail)
    if isinstance(error, aiohttp.ClientConnectorError):
        return FetchError("connect", detail, retryable=True, unreachable=True)
    if isinstance(error, (aiohttp.InvalidURL, ValueError)):
        return FetchError("invalid_url", detail)
    return FetchError("connection_lost", detail, retryable=True)
