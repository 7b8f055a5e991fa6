"""The content of `export.json`, which describes an exported dataset."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

from beam_pipeline import naming
from beam_pipeline.dataset_info import Count, DatasetInfo, ExampleFile, from_fields
from beam_pipeline.storage import any_path

FORMAT_VERSION = 1
Format = Literal["webdataset", "array_record"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """The description of a complete export.

    Attributes:
      description: What the folder holds, in one sentence.
      format_version: Version of this description.
      format: Format of the shards.
      examples_per_shard: Maximum number of examples in a shard.
      excluded: The kinds of examples that were left out, as `exclude` of `dataset.load`.
      files: The shards, in order.
      dataset: The dataset that was exported, without its lists of files and hosts.
    """

    description: str
    format_version: int
    format: Format
    examples_per_shard: Count
    excluded: list[str]
    files: list[ExampleFile]
    dataset: DatasetInfo

    @staticmethod
    def from_json(text: str | bytes) -> ExportInfo:
        """Parse the content of `export.json`, which is untrusted.

        Raises:
          ValueError: It is not JSON, has another format version, or a field is missing or of
            another type.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON: {error}") from error
        info = from_fields(fields, ExportInfo)
        if info.format_version != FORMAT_VERSION:
            raise ValueError(
                f"it has the format version {info.format_version}, and this program reads "
                f"{FORMAT_VERSION}: export the dataset again"
            )
        return info

    def to_json(self) -> str:
        """Return the content of `export.json`."""
        return json.dumps(dataclasses.asdict(self), indent=1)


def read(folder: str) -> ExportInfo | None:
    """Return the content of a folder's `export.json`; None if there is none.

    Raises:
      ValueError: The file, which the message names, is broken or of another format version.
    """
    path = any_path.join(folder, naming.EXPORT_INFO)
    if not any_path.exists(path):
        return None
    with any_path.open_file(path) as file:
        text = file.read()
    try:
        return ExportInfo.from_json(text)
    except ValueError as error:
        raise ValueError(f"{path} is not the description of an export: {error}") from error
