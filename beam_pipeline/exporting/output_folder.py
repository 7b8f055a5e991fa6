"""The folder that an export is written to."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems

from beam_pipeline import naming
from beam_pipeline.config import UsageError
from beam_pipeline.exporting.export_options import SUFFIXES
from beam_pipeline.storage import any_path

_ENDINGS = "|".join(map(re.escape, SUFFIXES.values()))
# Files of an export, complete or not.
_OURS = re.compile(
    rf"(({'|'.join(naming.SPLITS)})-\d{{6,}}({_ENDINGS})|{re.escape(naming.EXPORT_INFO)})"
    r"(\.[0-9a-f]{32}\.tmp)?"
)


def prepare(folder: str, overwrite: bool) -> None:
    """Make sure that a folder holds nothing.

    Args:
      folder: The folder, on any filesystem that Beam supports; it need not exist.
      overwrite: Whether to remove what an export has written.

    Raises:
      UsageError: It holds something else, or something and `overwrite` is false.
    """
    names = _list(folder)
    for name in names:
        if not _OURS.fullmatch(name):
            raise UsageError(
                f"--output {folder} holds {name}, which no export has written. Choose another "
                "folder."
            )
    if names and not overwrite:
        raise UsageError(
            f"--output {folder} holds {names[0]}, of an earlier export. Choose another folder, or "
            "give --overwrite to replace it."
        )
    # First the file that makes an export complete.
    _remove(folder, sorted(names, key=lambda name: name != naming.EXPORT_INFO))


def remove_temporary(folder: str) -> None:
    """Remove the temporary files that killed workers of a complete export have left."""
    _remove(folder, [name for name in _list(folder) if name.endswith(".tmp")])


def _list(folder: str) -> list[str]:
    """Return the names in a folder, sorted, but hidden ones and the lock."""
    if any_path.is_local(folder):
        found = os.listdir(folder) if os.path.isdir(folder) else []
    else:
        found = list(any_path.list_files(folder))
    return sorted(
        name for name in found if name not in (naming.LOCK, "lost+found") and name[0] != "."
    )


def _remove(folder: str, names: Sequence[str]) -> None:
    for name in names:
        FileSystems.delete([any_path.join(folder, name)])
