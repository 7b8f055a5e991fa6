"""Tests of leases: one process holds a lease, renews it, and releases it at its end."""

import itertools
import logging
import threading
import time
from typing import Any

import pytest

from beam_pipeline.launch import leases
from beam_pipeline.launch.leases import ConflictError, HeldError, Lease, Owner
from beam_pipeline.process import signals

ELSEWHERE = Owner("elsewhere", 7, "another machine", "2026-01-01T00:00:00+00:00", "token")


class MemoryStore:
    """One object, with conditions as in an object store."""

    def __init__(self) -> None:
        self.content: tuple[bytes, Any] | None = None
        self.before_write = lambda: None
        self.answers_are_lost = False
        self._versions, self._lock = itertools.count(1), threading.Lock()

    def read(self) -> tuple[bytes, Any] | None:
        return self.content

    def write(self, data: bytes, version: Any) -> Any:
        self.before_write()
        with self._lock:
            if (self.content and self.content[1]) != version:
                raise ConflictError
            self.content = data, next(self._versions)
            if self.answers_are_lost:
                raise ConflictError
            return self.content[1]

    def delete(self, version: Any) -> None:
        if self.content and self.content[1] == version:
            self.content = None


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(leases, "RENEWAL_SECONDS", 0.01)


def owner_of(store: MemoryStore) -> Owner:
    assert store.content
    owner = Owner.from_json(store.content[0])
    assert owner
    return owner


def wait_until(condition) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_is_there_until_the_end(store):
    with Lease(store, Owner.this_process()).held():
        assert owner_of(store).expires > time.time()
    assert store.content is None


def test_another_process_is_refused_with_the_name_of_the_holder(store):
    with (
        Lease(store, ELSEWHERE).held(),
        pytest.raises(HeldError, match=r"process 7 on elsewhere, since 2026.* expires in \d+ s"),
    ):
        Lease(store, Owner.this_process())


@pytest.mark.parametrize(
    "left",
    [
        ELSEWHERE.to_json(),  # it has expired
        b"no lease",
        # No process has this number: it is above the limit of Linux.
        Owner(
            "here", 2**22 + 1, Owner.this_process().machine, "", "token", time.time() + 100
        ).to_json(),
    ],
)
def test_what_a_crash_left_is_taken_over(store, left):
    store.content = left, "version"
    with Lease(store, Owner.this_process()).held():
        assert owner_of(store).host != "elsewhere"


def test_a_process_of_that_number_on_another_machine_may_live(store):
    store.content = (
        Owner("there", 2**22 + 1, "another machine", "", "token", time.time() + 100).to_json(),
        "version",
    )
    with pytest.raises(HeldError):
        Lease(store, Owner.this_process())


def test_of_two_that_start_at_once_one_gets_it(store):
    def overtake() -> None:
        store.before_write = lambda: None
        store.write(ELSEWHERE.renewed().to_json(), None)

    store.before_write = overtake
    with pytest.raises(HeldError, match="process 7 on elsewhere"):
        Lease(store, Owner.this_process())


def test_is_renewed(store, quick):
    with Lease(store, Owner.this_process()).held():
        first = store.content
        assert wait_until(lambda: store.content != first)
    assert store.content is None


def test_a_write_whose_answer_was_lost_is_its_own(store, quick):
    store.answers_are_lost = True
    lease = Lease(store, Owner.this_process())
    with lease.held():
        first = store.content
        assert wait_until(lambda: store.content != first)
    assert store.content is None


def test_a_run_whose_lease_another_has_taken_ends(store, quick, monkeypatch):
    ended: list[str] = []
    monkeypatch.setattr(signals, "end", lambda message, status: ended.append(message))
    with Lease(store, Owner.this_process()).held():
        store.content = ELSEWHERE.renewed().to_json(), "another version"
        assert wait_until(lambda: bool(ended))
    assert "Another run has taken the output folder" in ended[0]
    assert owner_of(store).host == "elsewhere"


def test_a_store_that_is_away_for_a_moment_ends_nothing(store, quick, caplog):
    caplog.set_level(logging.WARNING, "beam_pipeline")

    def fail() -> None:
        store.before_write = lambda: None
        raise OSError("the network is down")

    with Lease(store, Owner.this_process()).held():
        store.before_write = fail
        assert wait_until(lambda: "could not be renewed: the network is down" in caplog.text)
        first = store.content
        assert wait_until(lambda: store.content != first)
