"""The folder of the checkpoints that came from a server, an object store or an archive.

<sha256 of the files>/    a checkpoint, unpacked and verified
<hash of the option>.json what --checkpoint was when it was downloaded, and which checkpoint that gave
lock, partial/            the one download that is under way
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
from beam_pipeline.embedding.checkpoint_sources import ERRORS, download, explain, is_packed, unpack, version_of
from beam_pipeline.process import signals

_LOGGER = logging.getLogger(__name__)
HOW_TO = "give an inception_resnet_v2 .ckpt, its .tar.gz or a URL of that, or `untrained` or `none`"


@dataclasses.dataclass(frozen=True)
class Entry:
    """What an option was when it was downloaded.

    Attributes:
      version: ETag, time, size and the like, to notice another file under the same name.
      source_sha256: Of the archive, or the checkpoint's own if it was not packed.
      sha256: Of the checkpoint's files.
    """

    version: dict[str, Any]
    source_sha256: str
    sha256: str


def recall(sha256: str) -> str | None:
    """The path or prefix of a checkpoint by the sha256 of its files; None if it is not in the cache, or damaged."""
    with contextlib.suppress(OSError):
        prefix = prefix_in(folder() / sha256)
        if prefix and digest_of(prefix) == sha256:
            return prefix
    return None


def bring(checkpoint: str, source_sha256: str | None, check: Callable[[str], None]) -> tuple[str, str]:
    """Downloads and unpacks a checkpoint, unless the cache has it as it is now.

    Args:
      checkpoint: As the option has it.
      source_sha256: What `Entry.source_sha256` has to be; nothing is asked of a server if the cache has that.
      check: Raises UsageError if a path or prefix is not the network's checkpoint.

    Returns:
      Its path or prefix in the cache, and the sha256 of its files.

    Raises:
      UsageError: it cannot be read, is no checkpoint, is another one, or is too large.
    """
    try:
        folder().mkdir(parents=True, exist_ok=True)
        if (folder() / "partial").exists():
            # What an interrupted run left, unless another process is at work.
            with contextlib.suppress(BlockingIOError), _locked(fcntl.LOCK_NB):
                pass
        if found := _find_current(checkpoint, source_sha256):
            return found
        with _locked():
            # Another process may have been quicker.
            return _find_current(checkpoint, source_sha256) or _bring(checkpoint, source_sha256, check)
    except ERRORS as error:
        raise UsageError(f"--checkpoint {checkpoint} cannot be read: {explain(error)}; {HOW_TO}") from error


def folder() -> Path:
    """`$XDG_CACHE_HOME/beam_pipeline`, or `~/.cache/beam_pipeline`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beam_pipeline"


def check_source(checkpoint: str, sha256: str, wanted: str | None) -> None:
    """Raises UsageError if a file is not the one that `--checkpoint_sha256` asks for."""
    if wanted is not None and sha256 != wanted.lower():
        raise UsageError(f"--checkpoint {checkpoint} has the sha256 {sha256}, but --checkpoint_sha256 is {wanted.lower()}")


def prefix_in(path: Path) -> str | None:
    """The one checkpoint in a folder; None if there are none or several."""
    names = [str(file).removesuffix(".index") for file in path.iterdir() if ".data-" not in file.name]
    return names[0] if len(names) == 1 and files_of(names[0]) else None


def files_of(prefix: str) -> list[str]:
    """The one file of a V1 checkpoint, or the index and the data files of a V2 one; none if it is not there."""
    if os.path.isfile(prefix):
        return [prefix]
    index = [prefix + ".index"] if os.path.isfile(prefix + ".index") else []
    data = sorted(glob.glob(glob.escape(prefix) + ".data-*"))
    return index + data if index and data else []


def digest_of(prefix: str) -> str:
    """The sha256 of a checkpoint's files, one after the other, in hex."""
    digest = hashlib.sha256()
    for path in files_of(prefix):
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _find_current(checkpoint: str, source_sha256: str | None) -> tuple[str, str] | None:
    """What the cache has of a checkpoint, if that has not changed where it comes from."""
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
    except ERRORS as error:
        if "://" not in checkpoint:
            raise
        message = "--checkpoint %s cannot be reached (%s): the copy in %s is used"
        _LOGGER.warning(message, checkpoint, explain(error), folder())
    check_source(checkpoint, entry.source_sha256, source_sha256)
    return prefix, entry.sha256


def _bring(checkpoint: str, source_sha256: str | None, check: Callable[[str], None]) -> tuple[str, str]:
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
        version, archive_sha256 = download(checkpoint, partial / "archive" if is_packed(checkpoint) else unpacked)
        if archive_sha256:
            check_source(checkpoint, archive_sha256, source_sha256)
            unpack(partial / "archive", unpacked)
        prefix = prefix_in(unpacked)
        if prefix is None:
            raise UsageError(f"--checkpoint {checkpoint} holds no checkpoint, or several; {HOW_TO}")
        sha256 = digest_of(prefix)
        check_source(checkpoint, archive_sha256 or sha256, source_sha256)
        check(prefix)
        _keep(checkpoint, partial, Entry(version, archive_sha256 or sha256, sha256))
        return str(folder() / sha256 / os.path.basename(prefix)), sha256


def _keep(checkpoint: str, partial: Path, entry: Entry) -> None:
    """Moves what was downloaded to its place, the entry last."""
    (partial / "entry").write_text(json.dumps(dataclasses.asdict(entry)))
    shutil.rmtree(folder() / entry.sha256, ignore_errors=True)
    (partial / "unpacked").rename(folder() / entry.sha256)
    (partial / "entry").replace(_entry_path(checkpoint))


@contextlib.contextmanager
def _locked(flags: int = 0) -> Iterator[None]:
    """Waits until no other process downloads, and removes what one that was killed has left."""
    with open(folder() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | flags)
        shutil.rmtree(folder() / "partial", ignore_errors=True)
        yield


def _entry_path(checkpoint: str) -> Path:
    key = checkpoint if "://" in checkpoint else os.path.abspath(checkpoint)
    return folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
