"""Leases on object stores.

A lease is an object that only one process may write until the lease expires. Every write is
conditional (the object is absent, or is the version that was read), so that of two concurrent
processes one fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipeline.process import signals

# A run that dies without removing its lease blocks the next one, on another machine, for at most
# LEASE_SECONDS.
LEASE_SECONDS, RENEWAL_SECONDS = 300, 60

_LOGGER = logging.getLogger(__name__)


class HeldError(Exception):
    """Another process holds the lock; the message names it."""


class ConflictError(Exception):
    """The object no longer has the version that the condition of a write names."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes:
      host, process: Name of the machine, and process ID on it.
      machine: The boot ID of the machine, and the namespace of the process ID.
      since: Time at which the lock was taken, ISO 8601.
      token: Unique ID of this lock.
      expires: Time at which a lease expires, Unix time in seconds.
    """

    host: str
    process: int
    machine: str
    since: str
    token: str
    expires: float = 0.0

    @classmethod
    def this_process(cls) -> Owner:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), _this_machine(), now, uuid.uuid4().hex)

    @classmethod
    def from_json(cls, data: bytes) -> Owner | None:
        """Parse the output of `to_json`; return None for anything else."""
        try:
            owner = cls(**json.loads(data))
            owner = dataclasses.replace(
                owner, process=int(owner.process), expires=float(owner.expires)
            )
        except (ValueError, TypeError, OverflowError, RecursionError):
            return None
        texts = (owner.host, owner.machine, owner.since, owner.token)
        return (
            owner if all(isinstance(text, str) and text.isprintable() for text in texts) else None
        )

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"

    def renewed(self) -> Owner:
        return dataclasses.replace(self, expires=time.time() + LEASE_SECONDS)

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended; False for a process of another machine."""
        return (
            bool(self.machine)
            and self.machine == _this_machine()
            and not Path(f"/proc/{self.process}").exists()
        )


def _this_machine() -> str:
    """Return the boot ID of this machine and the namespace of its process IDs.

    The text is empty if the system does not provide them.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


class Store(Protocol):
    """One versioned object with conditional writes; the version of an absent object is None."""

    def read(self) -> tuple[bytes, Any] | None: ...

    def write(self, data: bytes, version: Any) -> Any:
        """Replace a version of the object; return the new version.

        Raises:
          ConflictError: the object has another version.
        """

    def delete(self, version: Any) -> None: ...


class _GoogleObject:
    def __init__(self, url: str, options: PipelineOptions):
        from apache_beam.io.gcp import gcsio

        bucket, self._name = gcsio.parse_gcs_path(url)
        self._bucket = gcsio.GcsIO(pipeline_options=options).client.bucket(bucket)

    def read(self) -> tuple[bytes, Any] | None:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        blob = self._bucket.get_blob(self._name)
        if blob is None:
            return None
        generation = blob.generation
        try:
            return blob.download_as_bytes(if_generation_match=generation), generation
        except (NotFound, PreconditionFailed):
            return None

    def write(self, data: bytes, version: Any) -> Any:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._bucket.blob(self._name)
        try:
            blob.upload_from_string(data, if_generation_match=version or 0)
        except PreconditionFailed as error:
            raise ConflictError from error
        return blob.generation

    def delete(self, version: Any) -> None:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        with contextlib.suppress(NotFound, PreconditionFailed):
            self._bucket.blob(self._name).delete(if_generation_match=version)


# The version differs; another conditional write is in progress; the version to replace is gone.
_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")


class _AmazonObject:
    def __init__(self, url: str, options: PipelineOptions):
        from apache_beam.io.aws import s3io

        bucket, key = s3io.parse_s3_path(url)
        self._object = {"Bucket": bucket, "Key": key}
        self._client = s3io.S3IO(options=options).client.client

    def read(self) -> tuple[bytes, Any] | None:
        try:
            answer = self._client.get_object(**self._object)
        except self._client.exceptions.NoSuchKey:
            return None
        return answer["Body"].read(), answer["ETag"]

    def write(self, data: bytes, version: Any) -> Any:
        from botocore.exceptions import ClientError

        condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
        try:
            return self._client.put_object(**self._object, Body=data, **condition)["ETag"]
        except ClientError as error:
            if error.response["Error"]["Code"] in _CONFLICTS:
                raise ConflictError from error
            raise

    def delete(self, version: Any) -> None:
        # Not every S3-compatible store supports conditional deletes.
        held = self.read()
        if held and held[1] == version:
            self._client.delete_object(**self._object)


STORES: dict[str, Callable[[str, PipelineOptions], Store]] = {
    "gs": _GoogleObject,
    "s3": _AmazonObject,
}


def _acquire(store: Store, owner: Owner) -> Any:
    """Take a lease that is free, expired, or held by a process that has ended.

    Returns:
      The version of the lease's object.

    Raises:
      HeldError: another process holds the lease.
    """
    for _ in range(3):
        held = store.read()
        other = Owner.from_json(held[0]) if held else None
        if held and other and other.token == owner.token:
            # The client repeated a write whose response was lost.
            return held[1]
        if other and not other.is_dead and (left := other.expires - time.time()) > 0:
            raise HeldError(f"{other}; if it has ended, its lease expires in {left:.0f} s")
        with contextlib.suppress(ConflictError):
            return store.write(owner.renewed().to_json(), held[1] if held else None)
    raise HeldError("several runs started at the same time")


class Lease:
    """A lease that this process holds."""

    def __init__(self, store: Store, owner: Owner):
        """Take the lease.

        Raises:
          HeldError: another process holds it.
          Exception: the store's client failed; its exceptions have no common base class.
        """
        self._store, self._owner = store, owner
        self._version = _acquire(store, owner)
        self._expires = time.monotonic() + LEASE_SECONDS
        self._released, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(
            target=self._renew_until_released, name="lease", daemon=True
        )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Renew the lease in a thread until the context exits, then remove it."""
        self._thread.start()
        with signals.calling_at_end(self._release):
            try:
                yield
            finally:
                self._release()
                self._thread.join()

    def _release(self) -> None:
        self._released.set()
        with self._writing, contextlib.suppress(Exception):
            self._store.delete(self._version)

    def _renew_until_released(self) -> None:
        while not self._released.wait(RENEWAL_SECONDS):
            try:
                with self._writing:
                    if not self._released.is_set():
                        self._version, self._expires = (
                            self._renew(),
                            time.monotonic() + LEASE_SECONDS,
                        )
            except ConflictError:
                signals.end(
                    "Another run has taken the output folder, because this run did not renew its "
                    "lease in time. Wait for the end of the other run.",
                    1,
                )
            # The store may be unavailable briefly; no other run takes the lease before it expires.
            except Exception as error:
                _LOGGER.warning("The lease of the output folder could not be renewed: %s", error)
                # The lease could expire, and another run take it, before the next attempt.
                if time.monotonic() > self._expires - 2 * RENEWAL_SECONDS:
                    signals.end(
                        "The lease of the output folder could not be renewed in time, because its "
                        "store is unreachable. Run the same command again to resume.",
                        1,
                    )

    def _renew(self) -> Any:
        try:
            return self._store.write(self._owner.renewed().to_json(), self._version)
        except ConflictError:
            held = self._store.read()
            other = Owner.from_json(held[0]) if held else None
            # The client repeated a write, as in `_acquire`.
            if held and other and other.token == self._owner.token:
                return held[1]
            raise
