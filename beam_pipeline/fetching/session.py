"""The aiohttp client session: its connections, headers and protocol."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import re
from typing import Any

import aiohttp
from aiohttp import client_proto
from aiohttp.abc import AbstractResolver

from beam_pipeline.config import Config
from beam_pipeline.fetching import public_addresses


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


@dataclasses.dataclass
class Connection:
    """The connection of a request, passed as `trace_request_ctx`.

    Attributes:
      reused: Whether an earlier request used the connection.
    """

    reused: bool = False


async def _note_new(_session: object, context: Any, _parameters: object) -> None:
    context.trace_request_ctx.reused = False


async def _note_reused(_session: object, context: Any, _parameters: object) -> None:
    context.trace_request_ctx.reused = True


def open_session(config: Config, resolver: AbstractResolver) -> aiohttp.ClientSession:
    """Open a session in the running event loop.

    Each request needs a Connection as its `trace_request_ctx`.

    Args:
      config: The options.
      resolver: Resolves host names.
    """
    allow_private = config.allow_private_addresses
    connector = public_addresses.make_connector(allow_private, config.fetch_concurrency, resolver)
    # aiohttp has no public API to choose the protocol.
    factory = functools.partial(_ResponseHandler, loop=asyncio.get_running_loop())
    connector._factory = factory  # type: ignore[assignment]
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_start.append(_note_new)
    tracing.on_connection_reuseconn.append(_note_reused)
    return aiohttp.ClientSession(
        connector=connector,
        trace_configs=[tracing],
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": config.user_agent,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
        },
        # The deadline is set around each request. A host that needs more than half of it for name
        # resolution and connection counts as down.
        timeout=aiohttp.ClientTimeout(total=None, connect=config.fetch_timeout / 2),
    )
