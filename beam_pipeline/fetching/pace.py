"""The pace of requests to a host: the time between them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator


class Pace:
    """Spaces the requests to a host, in the order in which they ask for their turn."""

    def __init__(self, interval: float, *, next_turn: float = 0.0):
        """Initialize the pace.

        Args:
          interval: Least number of seconds from the start of one request to the next.
          next_turn: Seconds until the first request.
        """
        self._interval = interval
        self._next = time.monotonic() + next_turn
        self._lock = asyncio.Lock()

    def slow_down(self, interval: float) -> None:
        """Make the interval at least so many seconds."""
        self._interval = max(self._interval, interval)

    def pause(self, seconds: float) -> None:
        """Let no request begin for so many seconds."""
        self._next = max(self._next, time.monotonic() + seconds)

    @property
    def wait(self) -> float:
        """Seconds until a request that is alone may begin."""
        return max(0.0, self._next - time.monotonic())

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn of a request; the next one's begins to count when the block ends."""
        async with self._lock:
            while wait := self.wait:
                await asyncio.sleep(wait)
            yield
            self.pause(self._interval)
