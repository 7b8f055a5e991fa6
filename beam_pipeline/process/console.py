"""Output of the commands to the standard streams.

No state of the standard streams ends a command or changes its exit status.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import TextIO

from beam_pipeline.redaction import redact


class RedactingFormatter(logging.Formatter):
    """Formats log records without the credentials of URLs."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def run(main: Callable[[], int]) -> int:
    """Run a command with standard streams that accept any output; return its exit status."""
    _prepare_streams()
    try:
        return main()
    finally:
        # At the interpreter's exit, a stream that cannot be flushed would change the exit status.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                _drop(stream)


def write_line(text: str) -> None:
    """Print a line.

    If standard output fails, this and later lines are dropped, and the error is reported unless it
    is a closed pipe.
    """
    try:
        print(redact(text), flush=True)
    except (OSError, ValueError) as error:
        _drop(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            complain(f"standard output cannot be written: {error}", 0)


def complain(message: str, status: int) -> int:
    """Print a message on standard error in one line; return `status`."""
    try:
        sys.stderr.write(f"beam_pipeline: {redact(' '.join(message.split()))}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        _drop(sys.stderr)
    return status


def _prepare_streams() -> None:
    """Make the standard streams accept any output.

    Closed streams are opened on the null device; characters that a stream's encoding lacks are
    escaped.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is this one; a file of the dataset would get it otherwise.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop(stream: TextIO) -> None:
    """Redirect a stream, including its buffered content, to the null device."""
    with open(os.devnull, "wb") as nowhere, contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), stream.fileno())
        stream.flush()
