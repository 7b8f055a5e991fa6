"""Opens the folder of a complete dataset; a local one without Beam."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

from beam_pipeline import naming
from beam_pipeline.config import split_names
from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.reading import near_duplicates
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
      excluded: Ascending indices of examples that are not read.
    """

    path: str
    name: str
    split: str
    examples: int
    bytes: int
    excluded: tuple[int, ...] = ()

    @property
    def kept(self) -> int:
        """Number of examples that are read."""
        return self.examples - len(self.excluded)

    def position(self, index: int) -> int:
        """Return the index in the file of an example, from its index among those that are read."""
        for excluded in self.excluded:
            index += excluded <= index
        return index


@dataclasses.dataclass(frozen=True)
class DatasetDir:
    """The folder of a complete dataset.

    Attributes:
      path: Path of the folder.
      info: The content of its `dataset.json`.
      excluded: Ascending indices of examples that are not read, by the name of their shard.
    """

    path: str
    info: DatasetInfo
    excluded: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @property
    def is_compressed(self) -> bool:
        """Whether the shards are gzipped."""
        return self.info.compression == "gzip"

    @property
    def has_statistics(self) -> bool:
        """Whether it was made with `--statistics`."""
        return bool(self.info.transform)

    @property
    def kept_columns(self) -> tuple[str, ...]:
        """The names in `--keep_columns`; empty if the records keep no columns."""
        value = self.info.options.get("keep_columns")
        has_columns = "image_metadata" in self.info.features and isinstance(value, str)
        return split_names(value) if has_columns else ()

    @property
    def without_lists(self) -> DatasetDir:
        """A copy without large fields, such as the list of shards.

        It holds what another process needs to read a shard.
        """
        small = dataclasses.replace(
            self.info,
            files=[],
            failure_files=[],
            metadata_files=[],
            transform=[],
            hosts=[],
            repeated_content=[],
        )
        return DatasetDir(self.path, small)

    def shards(self, *splits: str) -> list[Shard]:
        """Return the shards of the splits, in order."""
        return [
            Shard(
                any_path.join(self.path, file.name),
                file.name,
                file.split,
                file.examples,
                file.bytes,
                self.excluded.get(file.name, ()),
            )
            for file in self.info.files
            if file.split in splits
        ]


def open_dataset_dir(
    path: str | os.PathLike[str], split: str = "train", exclude: Sequence[str] = ()
) -> DatasetDir:
    """Open the dataset in a folder.

    Args:
      path: The folder, on any filesystem that Beam supports.
      split: Name of a split, which is only checked.
      exclude: Some of `near_duplicates.KINDS`.

    Raises:
      FileNotFoundError: The folder holds no complete dataset.
      ValueError: The folder's `dataset.json` is broken, the client of its object store is not
        installed, the split does not exist, or examples cannot be excluded.
    """
    path = os.fspath(path)
    if split not in naming.SPLITS:
        raise ValueError(f"split {split!r} is not known: it is {' or '.join(naming.SPLITS)}")
    info = read_info(path)
    if info is None:
        raise FileNotFoundError(
            f"{any_path.join(path, naming.DATASET_INFO)} does not exist: no completed run found in "
            "this folder"
        )
    return DatasetDir(path, info, near_duplicates.read_exclusions(path, info, exclude))


def read_info(folder: str) -> DatasetInfo | None:
    """Return the content of a folder's `dataset.json`; None if there is none.

    Raises:
      ValueError: The file, which the message names, is broken or of another format version.
    """
    path = any_path.join(folder, naming.DATASET_INFO)
    if not any_path.exists(path):
        return None
    with any_path.open_file(path) as file:
        text = file.read()
    try:
        return DatasetInfo.from_json(text)
    except ValueError as error:
        raise ValueError(f"{path} is not the description of a dataset: {error}") from error
