"""One shared S3 client per process.

Beam creates a client for each call, which takes 0.2 s of CPU time, and has no public way to pass
one. This module replaces the name `boto3` in Beam's `boto3_client`, of which Beam uses only
`boto3.session.Session().client(**options)`; `tests/storage/test_s3.py` holds it to that.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

from apache_beam.io.aws.clients.s3 import boto3_client

_boto3 = boto3_client.boto3  # None if it is not installed


@functools.cache
def _client(**options: Any) -> Any:
    """Return a client, which threads may share: Beam keeps the state of a download outside it."""
    return _boto3.session.Session().client(**options)


if _boto3 is not None:
    boto3_client.boto3 = SimpleNamespace(
        session=SimpleNamespace(Session=lambda: SimpleNamespace(client=_client))
    )
