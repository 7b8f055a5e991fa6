"""Cache of the checkpoints from servers, object stores and archives.

The folder contains:

<sha256 of the files>/     an unpacked and verified checkpoint
<hash of the option>.json  version of --checkpoint at the download, and the checkpoint's sha256
lock, partial/             the one download in progress
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import glob
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from beam_pipeline.config import UsageError
from beam_pipeline.embedding.checkpoint_sources import (
    download,
    explain,
    is_archive,
    unpack,
    version_of,
)
from beam_pipeline.process import signals
from beam_pipeline.storage import filesystem

_LOGGER = logging.getLogger(__name__)
HOW_TO = "give an inception_resnet_v2 .ckpt, its .tar.gz or a URL of that, or `untrained` or `none`"


@dataclasses.dataclass(frozen=True)
class Entry:
    """Record of the download of a `--checkpoint`.

    Attributes:
      version: ETag, time, size and similar values, to detect another file under the same name.
      source_sha256: sha256 of the archive, or of the checkpoint's files if it was not an archive.
      sha256: sha256 of the checkpoint's files.
    """

    version: dict[str, Any]
    source_sha256: str
    sha256: str


def recall(sha256: str) -> str | None:
    """Return the path or prefix of a cached checkpoint; None if it is missing or damaged.

    Args:
      sha256: sha256 of the checkpoint's files, in hex.
    """
    with contextlib.suppress(OSError):
        prefix = prefix_in(folder() / sha256)
        if prefix and digest_of(prefix) == sha256:
            return prefix
    return None


def bring(
    checkpoint: str, source_sha256: str | None, check: Callable[[str], None]
) -> tuple[str, str]:
    """Download and unpack a checkpoint, unless the cache contains its current version.

    Args:
      checkpoint: The value of `--checkpoint`.
      source_sha256: Required value of `Entry.source_sha256`. If the cache contains it, no request
        is sent to a server.
      check: Raises UsageError if a path or prefix is not the network's checkpoint.

    Returns:
      The path or prefix of the checkpoint in the cache, and the sha256 of its files.

    Raises:
      UsageError: The checkpoint cannot be read, is not a checkpoint, is not the required one, or is
        too large.
    """
    try:
        folder().mkdir(parents=True, exist_ok=True)
        if (folder() / "partial").exists():
            # Remove what an interrupted run left, unless another process is downloading.
            with contextlib.suppress(BlockingIOError), _locked(fcntl.LOCK_NB):
                pass
        if found := _find_current(checkpoint, source_sha256):
            return found
        with _locked():
            # Another process may have downloaded it in the meantime.
            return _find_current(checkpoint, source_sha256) or _bring(
                checkpoint, source_sha256, check
            )
    except filesystem.READ_ERRORS as error:
        raise UsageError(
            f"--checkpoint {checkpoint}: {explain(error, checkpoint)}; {HOW_TO}"
        ) from error


def folder() -> Path:
    """Return `$XDG_CACHE_HOME/beam_pipeline`, or `~/.cache/beam_pipeline`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beam_pipeline"


def check_source(checkpoint: str, sha256: str, wanted: str | None) -> None:
    """Raise UsageError if a file does not have the sha256 of `--checkpoint_sha256`.

    Args:
      checkpoint: The value of `--checkpoint`, for the message.
      sha256: sha256 of the file, in lower-case hex.
      wanted: The value of `--checkpoint_sha256`; None accepts any file.
    """
    if wanted is not None and sha256 != wanted.lower():
        raise UsageError(
            f"--checkpoint {checkpoint}: its sha256 is {sha256}, "
            f"but --checkpoint_sha256 is {wanted.lower()}; give another file or sha256"
        )


def prefix_in(path: Path) -> str | None:
    """Return the path or prefix of the only checkpoint in a folder; None for none or several."""
    names = [
        str(file).removesuffix(".index") for file in path.iterdir() if ".data-" not in file.name
    ]
    return names[0] if len(names) == 1 and files_of(names[0]) else None


def files_of(prefix: str) -> list[str]:
    """Return the files of a checkpoint.

    Args:
      prefix: Path of a V1 checkpoint, or prefix of a V2 checkpoint.

    Returns:
      The file of a V1 checkpoint, or the index and the data files of a V2 checkpoint. Empty if the
      checkpoint does not exist.
    """
    if os.path.isfile(prefix):
        return [prefix]
    index = [prefix + ".index"] if os.path.isfile(prefix + ".index") else []
    data = sorted(glob.glob(glob.escape(prefix) + ".data-*"))
    return index + data if index and data else []


def digest_of(prefix: str) -> str:
    """Return the sha256 of the concatenation of a checkpoint's files, in hex."""
    digest = hashlib.sha256()
    for path in files_of(prefix):
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _find_current(checkpoint: str, source_sha256: str | None) -> tuple[str, str] | None:
    """Return a cached checkpoint whose source has not changed, as `bring` does; None otherwise."""
    try:
        entry = Entry(**json.loads(_entry_path(checkpoint).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    prefix = recall(entry.sha256)
    if prefix is None:
        return None
    if source_sha256 is not None and source_sha256.lower() == entry.source_sha256:
        return prefix, entry.sha256
    try:
        if version_of(checkpoint, entry.version) != entry.version:
            return None
    except filesystem.READ_ERRORS as error:
        if "://" not in checkpoint:
            raise
        message = "--checkpoint %s cannot be reached (%s): the copy in %s is used"
        _LOGGER.warning(message, checkpoint, explain(error, checkpoint), folder())
    check_source(checkpoint, entry.source_sha256, source_sha256)
    return prefix, entry.sha256


def _bring(
    checkpoint: str, source_sha256: str | None, check: Callable[[str], None]
) -> tuple[str, str]:
    partial = folder() / "partial"
    partial.mkdir()
    remove = functools.partial(shutil.rmtree, partial, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        stack.callback(remove)
        stack.enter_context(signals.calling_at_end(remove))
        unpacked = partial / "unpacked"
        unpacked.mkdir()
        if "://" in checkpoint:
            _LOGGER.warning("downloading %s to %s, once", checkpoint, folder())
        version, archive_sha256 = download(
            checkpoint, partial / "archive" if is_archive(checkpoint) else unpacked
        )
        if archive_sha256:
            check_source(checkpoint, archive_sha256, source_sha256)
            unpack(partial / "archive", unpacked)
        prefix = prefix_in(unpacked)
        if prefix is None:
            raise UsageError(
                f"--checkpoint {checkpoint}: it holds no complete checkpoint, or several; {HOW_TO}"
            )
        sha256 = digest_of(prefix)
        check_source(checkpoint, archive_sha256 or sha256, source_sha256)
        check(prefix)
        _keep(checkpoint, partial, Entry(version, archive_sha256 or sha256, sha256))
        return str(folder() / sha256 / os.path.basename(prefix)), sha256


def _keep(checkpoint: str, partial: Path, entry: Entry) -> None:
    """Move a download to its final paths, the entry last."""
    (partial / "entry").write_text(json.dumps(dataclasses.asdict(entry)))
    shutil.rmtree(folder() / entry.sha256, ignore_errors=True)
    (partial / "unpacked").rename(folder() / entry.sha256)
    (partial / "entry").replace(_entry_path(checkpoint))


@contextlib.contextmanager
def _locked(flags: int = 0) -> Iterator[None]:
    """Hold the lock of the downloads; remove what a killed process left.

    Args:
      flags: Further flags of `flock`. Without LOCK_NB, wait until no other process downloads.
    """
    with open(folder() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | flags)
        shutil.rmtree(folder() / "partial", ignore_errors=True)
        yield


def _entry_path(checkpoint: str) -> Path:
    key = checkpoint if "://" in checkpoint else os.path.abspath(checkpoint)
    return folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
