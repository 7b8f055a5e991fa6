"""Opens the folder of a complete dataset; a local one without Beam."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from beam_pipeline import naming
from beam_pipeline.storage import any_path


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of examples, as listed in `dataset.json`.

    Attributes:
      path: Path of the file.
      name: Name of the file in the dataset's folder.
      split: The split that it belongs to.
      examples: Number of examples.
      bytes: Size of the file.
    """

    path: str
    name: str
    split: str
    examples: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class DatasetDir:
    """The folder of a complete dataset.

    Attributes:
      path: Path of the folder.
      description: The content of its `dataset.json`.
    """

    path: str
    description: dict[str, Any]

    @property
    def is_packed(self) -> bool:
        """Whether the shards are gzipped."""
        return self.description["options"]["compression"] == "gzip"

    @property
    def has_statistics(self) -> bool:
        """Whether it was made with `--statistics`."""
        return bool(self.description["transform"])

    @property
    def head(self) -> DatasetDir:
        """A copy without large fields, such as the list of shards.

        It holds what another process needs to read a shard.
        """
        return DatasetDir(
            self.path, {key: self.description[key] for key in ("encoding", "features", "options")}
        )

    def shards(self, *splits: str) -> list[Shard]:
        """Return the shards of the splits, in order."""
        return [
            Shard(any_path.join(self.path, file["name"]), **file)
            for file in self.description["files"]
            if file["split"] in splits
        ]


def open_dataset_dir(path: str | os.PathLike[str], split: str = "train") -> DatasetDir:
    """Open the dataset in a folder.

    Args:
      path: The folder, on any filesystem that Beam supports.
      split: Name of a split, which is only checked.

    Raises:
      FileNotFoundError: The folder holds no complete dataset.
      ValueError: The folder's `dataset.json` is broken, the client of its object store is not
        installed, or the split does not exist.
    """
    path = os.fspath(path)
    if split not in naming.SPLITS:
        raise ValueError(f"split {split!r} is not known: it is {' or '.join(naming.SPLITS)}")
    description = read_description(path)
    if description is None:
        raise FileNotFoundError(
            f"{any_path.join(path, naming.DESCRIPTION)} is not there: "
            "no run has ended in this folder"
        )
    return DatasetDir(path, description)


def read_description(folder: str) -> dict[str, Any] | None:
    """Return the content of a folder's `dataset.json`; None if there is none.

    Raises:
      ValueError: The file, which the message names, is broken or of another format version.
    """
    path = any_path.join(folder, naming.DESCRIPTION)
    if not any_path.exists(path):
        return None
    try:
        with any_path.open_file(path) as file:
            description = json.load(file)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(description, dict) or not isinstance(description.get("options"), dict):
        raise ValueError(f"{path} does not describe a dataset")
    if description.get("format_version") != naming.FORMAT_VERSION:
        raise ValueError(
            f"{path} has the format version {description.get('format_version')}, "
            f"and this program reads {naming.FORMAT_VERSION}: "
            "read the dataset with the version of beam_pipeline that it names under `versions`, "
            "or make it again"
        )
    return description
