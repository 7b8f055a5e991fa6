"""The folders of a run: whether they may be written, what is in them, and clearing them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from beam_pipeline import books, files
from beam_pipeline.config import Config, UsageError
from beam_pipeline.sinks import FAILURES_PREFIX, TRAIN_PREFIX, VALIDATION_PREFIX


def check(config: Config) -> dict[str, Any] | None:
    """Makes sure of the output folder, without writing to it.

    Returns:
      What `dataset.json` holds, if the dataset that is asked for is there and whole.

    Raises:
      UsageError: the folder holds another dataset, or cannot be made.
    """
    if set(config.output) & set("*?["):
        raise UsageError(f"--output {config.output}: a folder with *, ? or [ in its name cannot be used")
    for folder in filter(None, (config.output, config.original_dir, config.resized_dir)):
        if "://" not in folder:
            _check_local_folder(Path(folder))
    try:
        finished = books.read_description(config.output)
    except ValueError as error:
        raise UsageError(f"{error}; remove it or choose another --output") from error
    if finished is None or config.overwrite:
        return None
    made_with = finished.get("options", {})
    for name, value in config.dataset_options().items():
        if made_with.get(name) != value:
            raise UsageError(
                f"--output {config.output} holds a dataset made with --{name} {made_with.get(name)}, not {value}; "
                "give --overwrite to replace it, or another folder"
            )
    return finished


def _check_local_folder(folder: Path) -> None:
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UsageError(f"{folder} cannot be a folder: {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be written: no permission for {nearest}")


def prepare(config: Config) -> None:
    """Makes the folders, and clears the output folder of what an earlier run left there."""
    try:
        remove_dataset(config.output)
        for folder in filter(None, (config.output, config.original_dir, config.resized_dir)):
            if not FileSystems.exists(folder):
                FileSystems.mkdirs(folder)
    except (OSError, BeamIOError) as error:
        raise UsageError(f"--output {config.output} cannot be used: {error}") from error


def remove_dataset(folder: str) -> None:
    """Removes what a run writes, whole or not, and nothing else; `dataset.json` first, so that a half is not taken for a whole."""
    if not FileSystems.exists(folder):
        return
    for pattern in (books.DESCRIPTION, f"{TRAIN_PREFIX}-*", f"{VALIDATION_PREFIX}-*", f"{FAILURES_PREFIX}-*", "beam-temp-*/*"):
        FileSystems.delete(list(files.list_folder(folder, pattern)))
    if FileSystems.get_scheme(folder) is None:
        for temporary in Path(folder).glob("beam-temp-*"):
            temporary.rmdir()
