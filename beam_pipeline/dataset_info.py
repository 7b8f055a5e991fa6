"""The content of `dataset.json`, and of `transform/`, typed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np

from beam_pipeline import naming
from beam_pipeline.process.plurals import count

FORMAT_VERSION = 1

Split = Literal["train", "validation"]
# dataset.json is untrusted: a name leads nowhere else, and a count is one.
FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\\]+\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Feature:
    """A feature of a record.

    Attributes:
      dtype: `bytes`, `int64`, `float32`, `png`, or `raw uint8` for an array in one bytes value.
      shape: Shape of the array; empty for a scalar.
      meaning: Description for a person, with the unit or the formula.
    """

    dtype: str
    shape: list[int]
    meaning: str


@dataclasses.dataclass(frozen=True)
class Counts:
    """Numbers of lines (of files with `--images`), and what became of them.

    `lines` is the sum of `ignored`, `duplicates`, `examples` and `failures`. `rescued` of the
    examples come from a fallback.
    """

    lines: Count
    ignored: Count
    duplicates: Count
    examples: Count
    failures: Count
    failures_by_reason: dict[str, Count]
    rescued: Count = 0


@dataclasses.dataclass(frozen=True)
class Host:
    """The outcomes of a host: its number of examples, and its failures by reason."""

    host: str
    examples: Count
    failures: dict[str, Count]


@dataclasses.dataclass(frozen=True)
class OtherHosts:
    """The number of hosts that are not listed, and the sums of their outcomes."""

    hosts: Count
    examples: Count
    failures: Count


@dataclasses.dataclass(frozen=True)
class MeasureCounts:
    """The histogram of a measure: N + 1 edges of bins, and the numbers of images in each bin.

    Attributes:
      edges: In ascending order; the first and the last bin also count what is beyond.
      examples: Numbers of examples.
      filtered: Numbers of images that a filter dropped.
    """

    edges: list[float]
    examples: list[Count]
    filtered: list[Count]


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """Numbers of near-duplicates: clusters of images with similar perceptual hashes.

    Attributes:
      clusters: Number of clusters.
      images: Number of images in them.
      largest: Number of images in the largest cluster.
      leaks: Number of training images whose cluster has a validation image.
      not_compared: Number of images whose hash has too low a quality.
      capped: At least so many hashes had too many candidates to be compared with all of them.
      bytes: Size of `near_duplicates.parquet`; 0 if it was not written, without clusters.
    """

    clusters: Count
    images: Count
    largest: Count
    leaks: Count
    not_compared: Count
    capped: Count
    bytes: Count

    def describe(self) -> str:
        """Return the numbers in one line for a person."""
        clusters = count(self.clusters, "cluster")
        leaks = count(self.leaks, "training image")
        found = (
            f"{count(self.images, 'image')} in {clusters}, the largest of {self.largest:,}; "
            f"{leaks} like a validation image"
        )
        parts = [f"near-duplicates: {found if self.clusters else 'none'}"]
        if self.not_compared:
            parts.append(f"{count(self.not_compared, 'image')} too flat to compare")
        if self.capped:
            parts.append(f"at least {count(self.capped, 'image')} compared in part")
        return "; ".join(parts)


@dataclasses.dataclass(frozen=True)
class RepeatedBody:
    """A body that several URLs returned: its sha256 in hex, how often, and one of the URLs."""

    sha256: str
    count: Count
    url: str


@dataclasses.dataclass(frozen=True)
class InputFile:
    """A file that an option names; both are None if it names none. The sha256 is in hex."""

    name: str | None
    sha256: str | None


@dataclasses.dataclass(frozen=True)
class ExampleFile:
    """A shard: its name in the folder, its split, and its numbers of examples and bytes."""

    name: FileName
    split: Split
    examples: Count
    bytes: Count


@dataclasses.dataclass(frozen=True)
class FailureFile:
    """A file of failures: its name in the folder, and its numbers of failures and bytes."""

    name: FileName
    failures: Count
    bytes: Count


@dataclasses.dataclass(frozen=True)
class MetadataFile:
    """A file of `metadata-*.parquet`: its name in the folder, and its numbers of rows and bytes."""

    name: str
    rows: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class TransformFile:
    """A file of `--statistics`: its path in the folder, and its number of bytes."""

    name: str
    bytes: Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """The description of a complete dataset.

    Attributes:
      description: What the dataset holds, in one sentence.
      format_version: Version of this format.
      encoding: `lab_float32`, `lab_uint8` or `rgb_png`.
      compression: Compression of the shards: `none` or `gzip`.
      image_size: Side of the stored square image, pixels.
      embedding_size: Length of an embedding; 0 without the network.
      features: The features of a record, by name.
      counts: Numbers of lines, examples and failures.
      failures_by_stage: Numbers of failures by stage and reason.
      classes: Number of examples of each class, by split.
      hosts: Outcomes of the hosts with the most images, the largest first, without rescued images.
      other_hosts: Outcomes of the other hosts.
      measures: Histograms of the measures of colour and light, by their names.
      near_duplicates: Numbers of near-duplicates; None if they were not searched.
      repeated_content: Bodies that many URLs returned, the most frequent first.
      checkpoint, exclude_sha256, class_file, validation_ids: The files that determine the
        dataset.
      options: The values of all options, without credentials.
      versions: Versions of beam_pipeline, Python and packages.
      files: The shards.
      transform: The files of `--statistics`.
      failure_files: The files of failures.
      filtered_files: The file with a sample of the filtered images, if there are any.
      metadata_files: The files with a row for each example.
    """

    description: str
    format_version: int
    encoding: Literal["lab_float32", "lab_uint8", "rgb_png"]
    compression: Literal["none", "gzip"]
    image_size: Count
    embedding_size: Count
    features: dict[str, Feature]
    counts: Counts
    failures_by_stage: dict[str, dict[str, Count]]
    classes: dict[str, dict[Split, Count]]
    hosts: list[Host]
    other_hosts: OtherHosts
    measures: dict[str, MeasureCounts]
    near_duplicates: NearDuplicates | None
    repeated_content: list[RepeatedBody]
    checkpoint: InputFile
    exclude_sha256: InputFile
    class_file: InputFile
    validation_ids: InputFile
    options: dict[str, Any]
    versions: dict[str, str]
    files: list[ExampleFile]
    transform: list[TransformFile]
    failure_files: list[FailureFile]
    filtered_files: list[FailureFile]
    metadata_files: list[MetadataFile]

    @property
    def file_sizes(self) -> dict[str, int]:
        """The sizes of the listed files, bytes, by their paths in the folder."""
        files: list[ExampleFile | FailureFile | MetadataFile | TransformFile] = [
            *self.files,
            *self.failure_files,
            *self.filtered_files,
            *self.metadata_files,
            *self.transform,
        ]
        sizes = {file.name: file.bytes for file in files}
        if self.near_duplicates and self.near_duplicates.bytes:
            sizes[naming.NEAR_DUPLICATES] = self.near_duplicates.bytes
        return sizes

    @property
    def index_names(self) -> list[str]:
        """The names of the indices of shards, which are not listed."""
        return naming.index_names(file.name for file in self.files)

    @staticmethod
    def from_json(text: str | bytes) -> DatasetInfo:
        """Parse the content of `dataset.json`, which is untrusted.

        Raises:
          ValueError: It is not a JSON object, has another format version, or a field is missing or
            of another type. The message names the field.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ValueError("it is not a JSON object")
        version = fields.get("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(
                f"it has the format version {version}, and this program reads {FORMAT_VERSION}: "
                "read the dataset with the version of beam_pipeline that it names under "
                "`versions`, or make it again"
            )
        return from_fields(fields, DatasetInfo)

    def to_json(self) -> str:
        """Return the content of `dataset.json`."""
        return json.dumps(dataclasses.asdict(self), indent=1)


def from_fields(fields: Any, kind: type[T]) -> T:
    """Convert parsed JSON to a dataclass.

    Raises:
      ValueError: A field, which the message names, is missing or of another type.
    """
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


Features = Mapping[str, Feature]


class Statistics(NamedTuple):
    """Statistics of all training examples, white padding included.

    Attributes:
      examples: Number of training examples.
      lab_mean, lab_variance: float32 (3,), of `L*`, `a*` and `b*`, over all pixels.
      embedding_mean, embedding_variance: float32 (1001,), or (0,) without the network.
      ab_frequency: float32 (23, 23), the share of all pixels in each bin of `a*` (rows) and
        `b*` (columns). Bins are 10 wide, with centres from -110 to 110.
    """

    examples: int
    lab_mean: np.ndarray
    lab_variance: np.ndarray
    embedding_mean: np.ndarray
    embedding_variance: np.ndarray
    ab_frequency: np.ndarray
