"""An origin server on 127.0.0.1 that misbehaves as the path of a URL says.

A path is a word of the table `ANSWERS`, its arguments, and the rest: `/flaky/2/503/x.jpg` is the
image `x.jpg` after two responses of 503; `/delay/0.2/redirect/3/x.png` waits, redirects three times
and returns `x.png`. A path that does not begin with such a word is an image in the format of its
suffix. The content of an image depends on its name, so that images differ.

As a separate process it prints its URL and serves until its standard input closes or it receives
SIGTERM:

    python tests/origin.py --port 8080
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import functools
import gzip
import http.client
import inspect
import io
import itertools
import math
import random
import signal
import socket
import ssl
import struct
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from email.utils import formatdate
from typing import Never
from urllib.parse import parse_qs, unquote, unquote_to_bytes, urlsplit

from PIL import Image

FORMATS = {
    "jpg": "jpeg",
    "jpeg": "jpeg",
    "png": "png",
    "gif": "gif",
    "webp": "webp",
    "bmp": "bmp",
    "tif": "tiff",
    "tiff": "tiff",
}
CLOSE = {"Connection": "close"}
ENCODED = {"Content-Encoding": "gzip"}
X_ENCODED = {"Content-Encoding": "X-GZip"}
REMEMBERED = 100_000  # requests; a soak test sends more


@functools.lru_cache(4096)
def image(name: str, width: int = 96, height: int = 72) -> bytes:
    """Return the image file `name`: soft patches of colour, in the format of its suffix.

    The name is the seed of the colours.
    """
    patches = Image.frombytes("RGB", (12, 9), random.Random(name).randbytes(12 * 9 * 3))
    file = io.BytesIO()
    patches.resize((width, height), Image.Resampling.BICUBIC).save(file, _format(name))
    return file.getvalue()


def _halved(name: str) -> bytes:
    return image(name)[: len(image(name)) // 2]


def _format(name: str) -> str:
    return FORMATS.get(name.rpartition(".")[2], "")


@functools.lru_cache(4)
def _compressed_zeros(size: int) -> bytes:
    return gzip.compress(bytes(size))


@dataclasses.dataclass(eq=False)
class Request:
    """One request as the origin received it; times are of `time.monotonic`."""

    path: str
    headers: dict[str, str]  # names in lower case
    connection: int
    begun: float
    ended: float = math.inf


def peak(requests: Iterable[Request]) -> int:
    """Return the largest number of requests that were in progress at once."""
    steps = sorted(
        step for request in requests for step in ((request.begun, 1), (request.ended, -1))
    )
    return max(itertools.accumulate(step for _, step in steps), default=0)


class Exchange:
    """A request and the methods to answer it."""

    def __init__(
        self,
        request: Request,
        number: int,
        reused: bool,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        captures: Mapping[str, Mapping[str, str]],
    ):
        self.request = request
        self.number = number  # of this request among those for the same path, from 1
        self.reused = reused  # whether its connection has served an earlier request
        self.query = parse_qs(urlsplit(request.path).query)
        # Whether the connection ends with this response.
        self.last = request.headers.get("connection", "").lower() == "close"
        self.captures = captures  # those of the origin
        self._reader, self._writer = reader, writer

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(
        self, status: int, headers: Mapping[str, str | list[str]], body: bytes = b""
    ) -> None:
        self.last |= headers.get("Connection") == "close"
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Unheard Of')}"]
        for name, values in headers.items():
            lines += [
                f"{name}: {value}" for value in ([values] if isinstance(values, str) else values)
            ]
        await self.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def send(
        self,
        body: bytes,
        name: str = "",
        status: int = 200,
        headers: Mapping[str, str | list[str]] = {},
    ) -> None:
        """Send a complete response, with the content type of an image if `name` is one."""
        kind = {"Content-Type": f"image/{_format(name)}"} if name else {}
        await self.head(status, {"Content-Length": str(len(body)), **kind, **headers}, body)

    async def redirect(self, location: str, status: int = 302) -> None:
        await self.send(b"", "", status, {"Location": location})

    async def pause(self, seconds: float | None = None) -> None:
        """Wait until the time is up or the client disconnects; by default without a limit."""
        with contextlib.suppress(TimeoutError):
            if not await asyncio.wait_for(self._reader.read(1), seconds):
                raise ConnectionResetError

    async def reset(self) -> Never:
        """Cut the connection with a RST."""
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self._writer.transport.abort()
        raise ConnectionResetError


# Each function takes the exchange and the arguments that its row in the table names. A name that
# has no effect may be appended (`/hang/x.jpg`), so that a test can make many URLs.


async def status(exchange: Exchange, code: str, _name: str = "") -> None:
    bodiless = code in ("204", "304")
    await (
        exchange.head(int(code), {})
        if bodiless
        else exchange.send(b"Nothing to see here.", "", int(code))
    )


async def retry_after(exchange: Exchange, value: str, rest: str) -> None:
    first = exchange.number == 1
    await (
        exchange.send(b"Later.", "", 503, {"Retry-After": unquote(value)})
        if first
        else answer(exchange, rest)
    )


async def slow(exchange: Exchange, seconds: str, name: str) -> None:
    await exchange.head(200, {"Content-Length": str(len(image(name)))})
    for byte in image(name):
        await exchange.write(bytes([byte]))
        await exchange.pause(float(seconds))


async def delay(exchange: Exchange, seconds: str, rest: str) -> None:
    await exchange.pause(float(seconds))
    await answer(exchange, rest)


async def endless(exchange: Exchange, _name: str = "") -> None:
    await exchange.head(200, {})
    while True:
        await exchange.write(bytes(1 << 16))


async def slow_head(exchange: Exchange, seconds: str, name: str) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(image(name)):
        await exchange.write(bytes([byte]))
        await exchange.pause(float(seconds))
    await exchange.write(image(name))


async def endless_headers(exchange: Exchange, _name: str = "") -> None:
    await exchange.write(b"HTTP/1.1 200 OK\r\n")
    for number in itertools.count():
        await exchange.write(b"X-Padding-%d: %s\r\n" % (number, b"x" * 1000))
        await exchange.pause(0.001)


async def fresh_or_closed(exchange: Exchange, rest: str) -> None:
    if exchange.reused:
        raise ConnectionResetError
    await answer(exchange, rest)


async def fresh_or_reset(exchange: Exchange, rest: str) -> None:
    await (exchange.reset() if exchange.reused else answer(exchange, rest))


async def reset_body(exchange: Exchange, name: str) -> None:
    await exchange.head(200, {"Content-Length": str(len(image(name)))}, _halved(name))
    await exchange.pause(0.05)  # without a pause the client's system drops the data before the RST
    await exchange.reset()


async def archive(exchange: Exchange, _path: str = "") -> None:
    """Redirect to the capture that is nearest to a time; answer for one of exactly that time."""
    stamp, _, url = exchange.request.path.removeprefix("/web/").partition("id_/")
    captures = exchange.captures.get(url, {})
    if stamp in captures:
        await answer(exchange, captures[stamp])
    elif captures:
        nearest = min(captures, key=lambda other: abs(int(other) - int(stamp)))
        await exchange.redirect(f"/web/{nearest}id_/{url}")
    else:
        await status(exchange, "404")


async def raw(exchange: Exchange, data: str = "") -> None:
    await exchange.write(unquote_to_bytes(data))
    exchange.last = True


async def chunked(exchange: Exchange, name: str) -> None:
    await exchange.head(200, {"Transfer-Encoding": "chunked"})
    for start in range(0, len(image(name)), 500):
        block = image(name)[start : start + 500]
        await exchange.write(b"%x\r\n%s\r\n" % (len(block), block))
    await exchange.write(b"0\r\n\r\n")


ANSWERS: dict[str, Callable[..., Awaitable[None]]] = {
    "good": lambda x, name: x.send(image(name), name),
    "sized": lambda x, width, height, name: x.send(image(name, int(width), int(height)), name),
    "status": status,  # CODE[/NAME]
    # Responds with that status `times` times, then as the rest of the path says.
    "flaky": lambda x, times, code, rest: (
        status(x, code) if x.number <= int(times) else answer(x, rest)
    ),
    "retry-after": retry_after,  # VALUE/REST: once 503 with that header, then REST
    "retry-after-date": lambda x, seconds, rest: retry_after(
        x, formatdate(time.time() + float(seconds), usegmt=True), rest
    ),
    "redirect": lambda x, hops, rest: x.redirect(
        f"/{rest}" if hops == "1" else f"/redirect/{int(hops) - 1}/{rest}"
    ),
    # ?url=URL[&status=CODE]
    "redirect-to": lambda x, _="": x.redirect(
        x.query["url"][0], *map(int, x.query.get("status", ()))
    ),
    "redirect-loop": lambda x, _="": x.redirect(x.request.path),
    "redirect-nowhere": lambda x, _="": x.send(b"", "", 302),
    "type": lambda x, value, name: x.send(image(name), "", 200, {"Content-Type": unquote(value)}),
    # Served as an image.
    "html": lambda x, name: x.send(b"<!DOCTYPE html><p>This photo is no longer available.", name),
    "cut": lambda x, name: x.send(
        _halved(name), name, 200, {"Content-Length": str(len(image(name))), **CLOSE}
    ),
    "half": lambda x, name: x.send(_halved(name), name),  # a complete body with half an image
    "empty": lambda x, name: x.send(b"", name),
    "slow": slow,  # SECONDS/NAME: one byte per interval
    "slow-head": slow_head,  # SECONDS/NAME: the same for the head
    "delay": delay,  # SECONDS/REST
    "hang": lambda x, _="": x.pause(),
    "endless": endless,  # NAME
    "endless-headers": endless_headers,
    "huge-header": lambda x, size, name: x.send(
        image(name), name, 200, {"X-Padding": "x" * int(size)}
    ),
    "reset": lambda x, _="": x.reset(),
    # As the rest of the path says, or closes a connection that has served an earlier request.
    "fresh-or-closed": fresh_or_closed,
    "fresh-or-reset": fresh_or_reset,
    "reset-body": reset_body,  # NAME
    "garbage": lambda x, _="": x.write(b"\x16\x03\x01SSH-2.0 220 Welcome\r\n\r\n"),  # not HTTP
    "raw": raw,  # BYTES: this exact response, percent-encoded
    "gzip": lambda x, name: x.send(gzip.compress(image(name)), name, 200, ENCODED),
    "x-gzip": lambda x, name: x.send(gzip.compress(image(name)), name, 200, X_ENCODED),
    "bomb": lambda x, size, name: x.send(_compressed_zeros(int(size)), name, 200, ENCODED),
    "x-bomb": lambda x, size, name: x.send(_compressed_zeros(int(size)), name, 200, X_ENCODED),
    "chunked": chunked,  # NAME
    # Zeros after the image.
    "large": lambda x, size, name: x.send(image(name).ljust(int(size), b"\0"), name),
    "large-unannounced": lambda x, size, name: x.head(
        200, CLOSE, image(name).ljust(int(size), b"\0")
    ),
    # NAME/VALUE/FILE: with that header, percent-encoded
    "header": lambda x, name, value, file: x.send(image(file), file, 200, {name: unquote(value)}),
    "web": archive,  # TIMESTAMPid_/URL: the protocol of the Internet Archive, see `Origin.captures`
    "text": lambda x, text="": x.send(unquote_to_bytes(text)),  # percent-encoded
    # NAME?tag=noai[&tag=...]
    "robots": lambda x, name: x.send(image(name), name, 200, {"X-Robots-Tag": x.query["tag"]}),
}


async def answer(exchange: Exchange, path: str) -> None:
    word, _, rest = path.partition("/")
    if answering := ANSWERS.get(word):
        most = len(inspect.signature(answering).parameters) - 1
        await answering(exchange, *(rest.split("/", most - 1) if rest else ()))
    elif _format(path):
        await exchange.send(image(path), path)
    else:
        await status(exchange, "404")


class Origin:
    """The server, in a thread of its own.

    Attributes:
      requests: The requests that it received.
      aliases: By path, or by host and path, the path that answers instead, such as
        `{"/robots.txt": "status/503"}`.
      captures: By URL and timestamp, the path that answers as the capture of that time.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0):
        self.requests: collections.deque[Request] = collections.deque(maxlen=REMEMBERED)
        self.aliases: dict[str, str] = {}
        self.captures: dict[str, dict[str, str]] = {}
        self._scheme = "https" if tls else "http"
        self._numbers: collections.Counter[str] = collections.Counter()
        self._connections = itertools.count(1)
        self._writers: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="origin", daemon=True)
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls, backlog=1000)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]

    def url(self, path: str = "", host: str = "127.0.0.1") -> str:
        return f"{self._scheme}://{host}:{self.port}/{path}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        connection = next(self._connections)
        # The server ignores a client that disconnects.
        with (
            contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError),
            contextlib.closing(writer),
        ):
            last = reused = False
            while not last:
                first, *lines = (
                    (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                )
                fields = [line.partition(":") for line in lines if line]
                headers = {name.lower(): value.strip() for name, _, value in fields}
                request = Request(first.split()[1], headers, connection, time.monotonic())
                self.requests.append(request)
                self._numbers[request.path] += 1
                number = self._numbers[request.path]
                exchange = Exchange(request, number, reused, reader, writer, self.captures)
                reused = True
                try:
                    path = urlsplit(request.path).path
                    host = headers.get("host", "").rpartition(":")[0]
                    alias = self.aliases.get(host + path, self.aliases.get(path))
                    await answer(exchange, path.removeprefix("/") if alias is None else alias)
                finally:
                    request.ended = time.monotonic()
                last = exchange.last


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.closing(Origin(port=parser.parse_args().port)) as origin:
        print(origin.url(), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
