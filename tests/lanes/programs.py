"""Programs for the tests on engines and stores: servers on loopback, each with a log file.

They are stopped in any case when their test ends.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

BEAM = importlib.metadata.version("apache-beam")
# The folder for what the Makefile downloads and builds.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beam_pipeline" / "lanes"


@contextlib.contextmanager
def program(
    command: Sequence[str | Path], log: Path, cwd: Path | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the `with` block ends; then kill it and its descendants."""
    with log.open("ab") as file:
        variables = {**os.environ, **environment}
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=file,
            stderr=file,
            cwd=cwd,
            env=variables,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # Beam's boot program puts the workers that it starts into process groups of their own.
        started = list(descendants(process.pid))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for child in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(
    port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 60
) -> None:
    """Wait until a server answers on a port of loopback.

    Raises:
      RuntimeError: None does within `seconds`; the message has the end of the log.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise RuntimeError(
        f"{process.args!r} does not answer on port {port}:\n{log.read_text()[-3000:]}"
    )


def descendants(process: int) -> Iterator[int]:
    """Yield the ids of the descendants of a process."""
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        children: list[str] = []
        with contextlib.suppress(OSError):  # the thread has ended
            children = path.read_text().split()
        for child in map(int, children):
            yield child
            yield from descendants(child)
