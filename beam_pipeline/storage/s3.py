"""One client of Amazon's for a process: Beam makes one for each call, which takes a fifth of a second of a processor."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

from apache_beam.io.aws.clients.s3 import boto3_client

_boto3 = boto3_client.boto3  # None if it is not installed


@functools.cache
def _client(**options: Any) -> Any:
    """A client, which threads may share; what Beam keeps of a download it keeps beside it."""
    return _boto3.session.Session().client(**options)


if _boto3 is not None:
    boto3_client.boto3 = SimpleNamespace(session=SimpleNamespace(Session=lambda: SimpleNamespace(client=_client)))
