"""Settings of a process that runs a Beam graph: log messages, temporary files, memory."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator

from beam_pipeline.process import console, signals

_M_ARENA_MAX = -8  # of malloc.h


@contextlib.contextmanager
def temporary_folder() -> Iterator[None]:
    """Redirect temporary files of Beam and its processes to a folder.

    Beam does not delete all of its temporary files. The folder is removed when the process ends.
    """
    folder = tempfile.mkdtemp(prefix="beam_pipeline-")
    remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
    # Beam stops its job servers when the process ends, and they need their files until then.
    # Functions that were registered later are called before.
    atexit.register(remove)
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    try:
        with signals.calling_at_end(remove):
            yield
    finally:
        tempfile.tempdir = before[0]
        os.environ.pop("TMPDIR") if before[1] is None else os.environ.update(TMPDIR=before[1])


def quieten(verbose: bool) -> None:
    """Configure logging so that Beam and TensorFlow do not log about their internals."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(console.RedactingFormatter())
    # Without a level of its own, this logger would inherit the root's, which is set below.
    logging.getLogger("beam_pipeline").setLevel(logging.INFO if verbose else logging.WARNING)
    if verbose:
        # This logger repeats what worker processes log.
        logging.getLogger("apache_beam.runners.portability.local_job_service").setLevel(
            logging.INFO
        )
    else:
        for name in ("apache_beam", "tensorflow", "absl", "root"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def prepare() -> None:
    """Limit the memory of this process and its workers, and what their libraries log.

    Call it before Beam is imported. With one malloc arena for each thread, memory grows, as freed
    memory of an arena is not returned; glibc is limited to two.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
