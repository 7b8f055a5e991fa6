"""Tests of the server of the sample run."""

import contextlib
import socket
import struct
import urllib.parse
import urllib.request

import pytest

from examples import sample_run


def reset(connection: socket.socket) -> None:
    """Close a connection with a reset, as a client that gives up does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize(
    "request_head",
    [b"", b"GET /big.jpg HT", b"GET /big.jpg HTTP/1.1\r\nHost: a\r\n\r\n"],
    ids=["idle", "asking", "served"],
)
def test_a_client_that_goes_away_is_no_news(monkeypatch, capfd, request_head):
    photographs = {"astronaut": b"photograph", "big": bytes(50 * 2**20)}
    monkeypatch.setattr(sample_run, "encode_photographs", lambda: photographs)
    with sample_run.serve() as origin:
        address = urllib.parse.urlsplit(origin)
        for _ in range(5):
            with contextlib.closing(
                socket.create_connection((address.hostname, address.port))
            ) as connection:
                connection.sendall(request_head)
                if request_head.endswith(b"\r\n\r\n"):
                    assert connection.recv(10) == b"HTTP/1.1 2"
                reset(connection)
        with urllib.request.urlopen(f"{origin}/astronaut.jpg") as answer:
            assert answer.read() == b"photograph"
    assert capfd.readouterr() == ("", "")
