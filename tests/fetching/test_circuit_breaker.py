"""Tests of the circuit breaker of a host."""

import time

import pytest

from beam_pipeline.config import BREAKER_FAILURES, BREAKER_SPACING
from beam_pipeline.fetching.circuit_breaker import CircuitBreaker
from beam_pipeline.fetching.errors import FetchError

FAILURE = FetchError("dns", "no such name")


def fail(breaker: CircuitBreaker, count: int) -> None:
    for _ in range(count):
        breaker.record_failure(FAILURE, time.monotonic() + BREAKER_SPACING)


def test_opens_after_failures_in_a_row_and_closes_at_a_success():
    breaker = CircuitBreaker()
    fail(breaker, BREAKER_FAILURES - 1)
    breaker.record_success()
    fail(breaker, BREAKER_FAILURES - 1)
    breaker.check()
    fail(breaker, 1)
    with pytest.raises(FetchError) as caught:
        breaker.check()
    assert caught.value.reason == "dns"
    assert caught.value.detail.startswith("no such name; the host is skipped after 8 ")
    breaker.record_success()
    breaker.check()


def test_requests_in_flight_at_a_failure_do_not_count():
    breaker = CircuitBreaker()
    began = time.monotonic()
    for _ in range(2 * BREAKER_FAILURES):
        breaker.record_failure(FAILURE, began)
    assert breaker.failures == 1
