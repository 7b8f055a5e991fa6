"""The main command: argv -> Config and Beam's options -> launch/launcher.py -> exit status."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence

from beam_pipeline.config import UsageError
from beam_pipeline.launch import command_line
from beam_pipeline.process import console, signals
from beam_pipeline.process.console import complain

_M_ARENA_MAX = -8  # of malloc.h


def cli() -> int:
    """Run the command with the arguments of this process. Return its exit status."""
    return console.run(main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
      The exit status: 0 done, 1 the job failed or no example was written, 2 the command line is not
      usable.
    """
    signals.end_on_signals(
        "Interrupted. Completed parts are kept; run the same command again to resume."
    )
    _bound_arenas()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        config, given, beam_argv = command_line.parse(sys.argv[1:] if argv is None else argv)
        _quieten(config.verbose)
        # Beam and TensorFlow take seconds to import; --help and most usage errors respond at once.
        from beam_pipeline.launch import launcher

        with _temporary_folder():
            return launcher.run(config, given, beam_argv)
    except UsageError as error:
        return complain(str(error), 2)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[None]:
    """Redirect temporary files of Beam and its processes to a folder that is removed at the end.

    Beam does not delete all of its temporary files.
    """
    folder = tempfile.mkdtemp(prefix="beam_pipeline-")
    remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    try:
        with signals.calling_at_end(remove):
            yield
    finally:
        tempfile.tempdir = before[0]
        os.environ.pop("TMPDIR") if before[1] is None else os.environ.update(TMPDIR=before[1])
        remove()


def _quieten(verbose: bool) -> None:
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


def _bound_arenas() -> None:
    """Limit glibc to two malloc arenas, in this process and in workers.

    With one arena for each thread, memory grows, as freed memory of an arena is not returned.
    """
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


if __name__ == "__main__":
    sys.exit(cli())
