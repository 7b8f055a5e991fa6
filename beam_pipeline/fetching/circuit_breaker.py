"""Circuit breaker of a host: after several failures in a row, it receives no more requests."""

from __future__ import annotations

import dataclasses
import math
import time

from beam_pipeline.config import BREAKER_FAILURES, BREAKER_SPACING
from beam_pipeline.fetching.errors import FetchError


@dataclasses.dataclass
class CircuitBreaker:
    """Counts the consecutive failures to reach a host.

    Attributes:
      failures: Number of consecutive failures.
      failed: Time of the last failure on the monotonic clock, in seconds.
      opened_by: Reason and detail of the host's images while the breaker is open; None while it is
        closed.
    """

    failures: int = 0
    failed: float = -math.inf
    opened_by: tuple[str, str] | None = None

    def check(self) -> None:
        """Raise FetchError if the breaker is open."""
        if self.opened_by:
            raise FetchError(*self.opened_by, unreachable=True)

    def record_success(self) -> None:
        self.failures, self.opened_by = 0, None

    def record_failure(self, failure: FetchError, began: float) -> None:
        """Count a failure; open the breaker at the last one that is allowed.

        Args:
          failure: The failure of a request.
          began: Start time of the request on the monotonic clock, in seconds. A request that began
            less than `BREAKER_SPACING` after the last failure does not count.
        """
        if began < self.failed + BREAKER_SPACING:
            return
        self.failures, self.failed = self.failures + 1, time.monotonic()
        if self.failures >= BREAKER_FAILURES:
            detail = f"the host is skipped after {self.failures} consecutive failures of this kind"
            self.opened_by = (failure.reason, f"{failure.detail}; {detail}")
