"""The pace of requests to a host: the time between them, and what waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from beam_pipeline.config import RETRY_DEADLINE
from beam_pipeline.fetching.errors import FetchError


class WaitCounter:
    """Counts what waits without a slot, such as between two attempts."""

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


class Pace:
    """Spaces the requests to a host, in the order in which they ask for their turn.

    Attributes:
      interval: Least number of seconds from the start of one request to the next.
    """

    def __init__(self, interval: float, *, next_turn: float = 0.0):
        """Initialize the pace.

        Args:
          interval: See the attribute.
          next_turn: Seconds until the first request.
        """
        self.interval = interval
        self._next, self._paused = time.monotonic() + next_turn, 0.0
        self._lock = asyncio.Lock()

    def slow_down(self, interval: float) -> None:
        """Make the interval at least so many seconds."""
        self.interval = max(self.interval, interval)

    def pause(self, seconds: float) -> None:
        """Let no request begin for so many seconds, as the host has asked for."""
        self._paused = max(self._paused, time.monotonic() + seconds)

    def _wait(self) -> float:
        """Return the seconds until the next request may begin.

        Raises:
          FetchError: The pause is too long.
        """
        now = time.monotonic()
        if (pause := self._paused - now) > RETRY_DEADLINE:
            raise FetchError("http_429", f"the host asks for no requests for {pause:.0f} s")
        return max(0.0, self._next - now, pause)

    async def acquire(self, slots: asyncio.Semaphore) -> None:
        """Acquire a slot when it is this request's turn; the next one's interval begins then.

        Raises:
          FetchError: The host asks for a pause that is too long.
        """
        async with self._lock:
            while True:
                while wait := self._wait():
                    await asyncio.sleep(wait)
                await slots.acquire()
                if time.monotonic() >= self._paused:
                    break
                slots.release()
            self._next = time.monotonic() + self.interval
