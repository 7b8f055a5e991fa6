"""The lock of an output folder: one run at a time writes to it.

On a disk the lock is `flock` on a file, which the kernel releases however the process ends. On an
object store it is a lease (`leases.py`). Beam's other filesystems support neither and have no lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipeline import naming
from beam_pipeline.config import UsageError
from beam_pipeline.launch import leases
from beam_pipeline.launch.leases import Owner
from beam_pipeline.storage import filesystem

_MAX_BYTES = 4096
_ATTEMPTS = 100  # to open the lock while other processes remove its folder
_PATIENCE = 2.0  # seconds for the owner of a lock to write its name

_LOGGER = logging.getLogger(__name__)


@contextlib.contextmanager
def hold(folder: str, options: PipelineOptions) -> Iterator[None]:
    """Hold the lock of an output folder.

    The folder is created if it is missing, and removed if it stays empty.

    Args:
      folder: A folder on any filesystem that Beam supports.
      options: Beam's options, with the settings of an object store's client.

    Raises:
      UsageError: another run holds the lock, or the folder cannot be created; the message names the
        owner and says what to do.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_lock(folder, options))
        except UsageError:
            raise
        except leases.HeldError as error:
            raise UsageError(
                f"--output {folder} is in use by another run ({error}). Wait for its end, or "
                "choose another folder."
            ) from error
        # The exceptions of object store clients have no common base class.
        except Exception as error:
            raise UsageError(f"--output {folder} cannot be reached: {error}") from error
        yield


def _lock(folder: str, options: PipelineOptions) -> contextlib.AbstractContextManager[Any]:
    scheme = FileSystems.get_scheme(folder)
    if scheme is None:
        return _hold_file(Path(folder, naming.LOCK))
    if scheme in leases.STORES:
        filesystem.check_client(folder)
        store = leases.STORES[scheme](FileSystems.join(folder, naming.LOCK), options)
        return leases.Lease(store, Owner.this_process()).held()
    return contextlib.nullcontext()


@contextlib.contextmanager
def _hold_file(path: Path) -> Iterator[None]:
    missing = [folder for folder in path.parents if not folder.exists()]
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, missing)
        file = stack.enter_context(_lock_file(path))
        # After a signal the file stays, since threads still write; the kernel releases the lock
        # when they have ended.
        stack.callback(_unlink, file, path)
        file.truncate(0)
        file.write(Owner.this_process().to_json())
        file.flush()
        yield


def _lock_file(path: Path) -> IO[bytes]:
    while True:
        file = _open_with_folders(path)
        try:
            _lock_descriptor(file, path)
            if _is_at(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _open_with_folders(path: Path) -> IO[bytes]:
    # Another process may make or remove the folder and the file at any time.
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            return _make_and_open(path)
    return _make_and_open(path)


def _make_and_open(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "a+b", opener=_open_no_link)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _lock_descriptor(file: IO[bytes], path: Path) -> None:
    """Lock an open file.

    Raises:
      HeldError: another process holds the lock.
      OSError: the file is not a lock.
    """
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise leases.HeldError(str(_await_owner(file) or "it has just started")) from None
    except OSError as error:
        _LOGGER.warning(
            "%s cannot be locked (%s). Make sure that no other run uses this folder.", path, error
        )
    if os.fstat(file.fileno()).st_size and not _read_owner(file):
        raise OSError(errno.EEXIST, "this file is not the lock of a run; move it away", str(path))


def _await_owner(file: IO[bytes]) -> Owner | None:
    """Return the owner of a held lock, who writes its name a moment after it takes the lock."""
    end = time.monotonic() + _PATIENCE
    while (owner := _read_owner(file)) is None and time.monotonic() < end:
        time.sleep(0.05)
    return owner


def _read_owner(file: IO[bytes]) -> Owner | None:
    file.seek(0)
    return Owner.from_json(file.read(_MAX_BYTES))


def _is_at(file: IO[bytes], path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path, follow_symlinks=False))
    return False


def _unlink(file: IO[bytes], path: Path) -> None:
    """Remove the file while it is locked.

    A process that has opened it meanwhile detects that it is no longer the folder's lock.
    """
    # If the folder was removed and created again, the file there now belongs to another run.
    if _is_at(file, path):
        path.unlink(missing_ok=True)


def _remove_empty(folders: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
