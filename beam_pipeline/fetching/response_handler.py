"""aiohttp's parser of responses, with the head parsed separately from the body.

aiohttp has no public way to choose the parser. This module relies on the connector's `_factory`,
which makes the protocol of each new connection, and on `ResponseHandler.data_received`.
`tests/fetching/test_response_handler.py` holds aiohttp to both.
"""

from __future__ import annotations

import asyncio
import functools
import re

import aiohttp
from aiohttp import client_proto


class _ResponseHandler(client_proto.ResponseHandler):
    """Parses the head of a response separately from its body.

    If a response has more bytes than its Content-Length, aiohttp closes the connection and drops
    everything that it parsed in that call. With separate calls, the head and the body are kept.
    """

    def data_received(self, data: bytes) -> None:
        head = re.search(rb"\r?\n\r?\n", data)
        end = head.end() if head else len(data)
        super().data_received(data[:end])
        if end < len(data):
            super().data_received(data[end:])


def install(connector: aiohttp.BaseConnector) -> None:
    """Make the connector's new connections use this module's parser, in the running event loop."""
    factory = functools.partial(_ResponseHandler, loop=asyncio.get_running_loop())
    connector._factory = factory  # type: ignore[assignment]
