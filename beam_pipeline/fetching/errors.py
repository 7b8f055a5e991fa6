"""What the HTTP client raises -> FetchError, in the terms of the README's table of failures."""

from __future__ import annotations

import errno

import aiohttp

from beam_pipeline.fetching import public_addresses

# Too many open files, no memory: no image's fault, and no host's.
_FAULTS_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_MAX_DETAIL_LENGTH = 1000


class FetchError(Exception):
    """A try that brought no image."""

    def __init__(self, reason: str, detail: str, *, passes: bool = False, retry_after: float = 0):
        """Args:
        reason: As the README's table of failures has it.
        detail: For a person.
        passes: Another try may succeed.
        retry_after: Seconds that the server asked to wait.
        """
        # What servers say may hold bytes that are no text, which Python keeps as surrogates.
        detail = detail[:_MAX_DETAIL_LENGTH].encode(errors="replace").decode()
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
        self.passes, self.retry_after = passes, retry_after


def is_fault_of_the_machine(error: Exception) -> bool:
    """Whether the machine, and no server, is the cause."""
    return getattr(getattr(error, "os_error", error), "errno", None) in _FAULTS_OF_THE_MACHINE


def explain(error: Exception, timeout: float) -> FetchError:
    """Return what the client raised as a FetchError.

    Args:
      error: A TimeoutError, OSError, ValueError or aiohttp.ClientError.
      timeout: `--fetch_timeout`, seconds.
    """
    # The connector's errors repeat the host and tell how its own settings were.
    cause = getattr(error, "os_error", error)
    detail = str(cause) or type(cause).__name__
    if isinstance(cause, public_addresses.BlockedAddressError):
        return FetchError("blocked_address", detail)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return FetchError("timeout", f"no connection within {timeout / 2:g} s", passes=True)
    if isinstance(error, TimeoutError):
        return FetchError("timeout", f"not done within {timeout:g} s", passes=True)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return FetchError("dns", detail, passes=True)
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return FetchError("tls", detail)
    if isinstance(error, aiohttp.ClientConnectorError):
        return FetchError("connect", detail, passes=True)
    if isinstance(error, (aiohttp.InvalidURL, ValueError)):
        return FetchError("invalid_url", detail)
    return FetchError("connection_lost", detail, passes=True)
