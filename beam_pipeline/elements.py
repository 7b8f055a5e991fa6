"""The elements of the graph. Each one carries the `ImageRef` of its image."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from beam_pipeline.images.measures import Measures
from beam_pipeline.images.perceptual_hash import PerceptualHash
from beam_pipeline.redaction import redact


class Extent(NamedTuple):
    """The bytes of an image in a file, which can be read on their own.

    Attributes:
      path: The file.
      offset: Position of the first byte.
      size: Number of bytes as they are stored; None for a complete file.
      is_deflated: Whether the bytes are compressed with raw DEFLATE, as in a zip archive.
    """

    path: str
    offset: int = 0
    size: int | None = None
    is_deflated: bool = False


class StoredCopy(NamedTuple):
    """A copy of an image, for when it is gone: its `PATH#MEMBER` or path, and where it is."""

    url: str
    location: Extent


class Row(NamedTuple):
    """The position of an image in a file that can only be read from front to back.

    Attributes:
      path: The file.
      group: Index of the part of the file that is read in one go: a row group of a Parquet file; 0
        for an archive, which is read completely.
      position: Index of the image's row or member in the group.
    """

    path: str
    group: int
    position: int


class Problem(NamedTuple):
    """What is wrong with an entry of the input: the reason and detail of its `Failure`."""

    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class ImageRef:
    """One image of the input.

    Attributes:
      id: The line's ID, such as `n00004475_6590`, or the stem of the file; empty if there is none.
      url: A URL; the path of a file (`--images`), in which bytes that are not UTF-8 are surrogates,
        as `os.fsdecode` returns them; or `PATH#MEMBER` for an image in a container.
      is_retried: Whether the image failed to be fetched or decoded in an earlier run, so that its
        kept copy is not used.
      location: Where the image is stored; None if `url` is to be requested.
      image_class: Name of its class; empty if unknown.
      folder: Path of the folder or inner archive that it lies in, as far as that may be its class.
      metadata: The values of `--keep_columns` as a JSON object; empty without that option.
      digest: Digest that the body must have: `sha256:HEX` or `md5:HEX`; empty for any.
      is_validation: Whether the input assigns it to validation; None if a hash decides.
      problem: Why it cannot be read; None if it may be readable.
      fallback: A copy in `--fallback_images`; None if there is none.
    """

    id: str
    url: str
    is_retried: bool = False
    location: Extent | Row | None = None
    image_class: str = ""
    folder: str = ""
    metadata: str = ""
    digest: str = ""
    is_validation: bool | None = None
    problem: Problem | None = None
    fallback: StoredCopy | None = None

    @functools.cached_property
    def name(self) -> str:
        """The file name and key of the image: `md5(url).jpeg`, in hex."""
        return (
            hashlib.md5(
                self.url.encode(errors="surrogateescape"), usedforsecurity=False
            ).hexdigest()
            + ".jpeg"
        )

    @property
    def url_text(self) -> str:
        """The URL as valid text, for JSON and logs."""
        return as_text(self.url)


def as_text(text: str) -> str:
    """Percent-encode the bytes of a file name that are not UTF-8; return other text unchanged."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", _percent_encode, text)


def _percent_encode(match: re.Match[str]) -> str:
    code = ord(match[0]) - 0xDC00
    return f"%{code:02X}" if 0x80 <= code <= 0xFF else "?"


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image file, not decoded.

    Attributes:
      ref: The image.
      data: The content of the file.
      attempts: Number of attempts to read it; 0 if an earlier run kept the file.
      final_url: The source of `data`: the URL after redirects, or the path of the file.
      is_resized: Whether the file comes from the `--resized_dir` of an earlier run.
      sha256: SHA-256 digest of `data`, in hex; empty if it is not known.
      gone: Why the origin did not give it, if it comes from a fallback; None otherwise.
    """

    ref: ImageRef
    data: bytes
    attempts: int
    final_url: str
    is_resized: bool = False
    sha256: str = ""
    gone: Problem | None = None

    @property
    def nbytes(self) -> int:
        return len(self.data)

    @property
    def image_source(self) -> str:
        """`origin` or `fallback`; empty if an earlier run kept the file."""
        return "fallback" if self.gone else "origin" if self.attempts else ""

    def fail(self, stage: str, problem: Problem) -> Failure:
        """Return the failure of the image; that of its origin if it comes from a fallback."""
        if self.gone:
            detail = f"{self.gone.detail}; fallback: {problem.reason}: {problem.detail}"
            stage, problem = "fetch", Problem(self.gone.reason, detail)
        return Failure(self.ref, stage, *problem, self.attempts, self.final_url)


@dataclasses.dataclass(frozen=True, eq=False)
class RgbImage:
    """A square sRGB image.

    Attributes:
      ref: The image in the list.
      pixels: uint8 (S, S, 3).
      original_size: Width and height before resizing, pixels.
      network_pixels: uint8 (299, 299, 3), the network's input; None if that is `pixels`, or if no
        network is used.
      body: The downloaded file, if it is to be kept.
      body_sha256: SHA-256 digest of the image file, in hex; empty if the image comes from
        `--resized_dir`.
      final_url: The URL after redirects; empty if an earlier run kept the file.
      lab: `pixels` in CIE L*a*b*, float32 (S, S, 3); None if the record does not hold it, or it is
        so large that computing it again is better than keeping it.
      measures: Measures of the image without padding; None if it was not measured.
      hash: Perceptual hash of the image without padding; None without `--near_duplicates`.
      image_source: `origin` or `fallback`; empty if an earlier run kept the file.
    """

    ref: ImageRef
    pixels: np.ndarray
    original_size: tuple[int, int]
    network_pixels: np.ndarray | None = None
    body: bytes | None = None
    body_sha256: str = ""
    final_url: str = ""
    lab: np.ndarray | None = None
    measures: Measures | None = None
    hash: PerceptualHash | None = None
    image_source: str = ""

    @property
    def nbytes(self) -> int:
        arrays = (self.pixels, self.network_pixels, self.lab)
        return sum(one.nbytes for one in arrays if one is not None) + len(self.body or b"")


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddedImage:
    """An image with its `embedding`, float32 (1001,), or None if no network is used."""

    image: RgbImage
    embedding: np.ndarray | None

    @property
    def ref(self) -> ImageRef:
        return self.image.ref

    @property
    def nbytes(self) -> int:
        return self.image.nbytes


class EncodedExample(NamedTuple):
    """A record, and what `metadata-*.parquet` says about it.

    Attributes:
      record: A serialized tf.train.Example.
      stored: The record as it is in the shard: with its framing, and compressed if the shard is.
      row: The result of `metadata_table.encode_row`.
    """

    record: bytes
    stored: bytes
    row: bytes


@dataclasses.dataclass(frozen=True)
class Failure:
    """The reason why an image has no example.

    Attributes:
      ref: The image.
      stage: `read`, `fetch`, `decode` or `filter`.
      reason: One of the reasons in the table in docs/failures.md, such as `http_404`.
      detail: A message for a person, with that of the server or the decoder.
      attempts: Number of attempts; one attempt may take several requests, as with redirects.
      final_url: The URL after redirects.
    """

    ref: ImageRef
    stage: str
    reason: str
    detail: str
    attempts: int = 0
    final_url: str = ""

    def as_json(self) -> dict[str, str | int]:
        """Return the fields of a line of `failures-*.jsonl`; all text is valid UTF-8.

        `url` is unchanged, so that it can be requested again. Credentials are redacted in `detail`
        and `final_url`, which come from servers. What only the input of this run says about an
        image follows, if it says it, so that a retry has it: `class`, `digest`, `metadata` (the
        text of a JSON object), `split`.
        """
        fields: dict[str, str | int] = {
            "id": self.ref.id,
            "url": self.ref.url,
            "name": self.ref.name,
            "stage": self.stage,
            "reason": self.reason,
            "detail": redact(self.detail),
            "attempts": self.attempts,
            "final_url": redact(self.final_url),
        }
        split = {None: "", True: "validation", False: "train"}[self.ref.is_validation]
        given = {
            "class": self.ref.image_class,
            "digest": self.ref.digest,
            "metadata": self.ref.metadata,
            "split": split,
        }
        fields |= {name: value for name, value in given.items() if value}
        return {
            name: as_text(value) if isinstance(value, str) else value
            for name, value in fields.items()
        }


class DroppedImage(NamedTuple):
    """An image that a filter drops, and its failure."""

    image: RgbImage
    failure: Failure


@dataclasses.dataclass(frozen=True)
class Shard:
    """A complete file.

    Attributes:
      name: The file name in the folder.
      records: Number of records.
      bytes: Size in bytes.
    """

    name: str
    records: int
    bytes: int


class ListFile(NamedTuple):
    """A file of images that `sources.part_list` has written.

    Attributes:
      path: Its path, on any filesystem that Beam supports.
      sha256: Its SHA-256 digest, in hex.
    """

    path: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Commit:
    """A part of the list.

    Attributes:
      index: Index of the commit, from 0.
      refs: Its images, or a file of them; None if the graph reads the list itself.
      counts: Numbers of `lines`, `ignored` and `duplicates` (of images in earlier commits) that
        were read with the images.
      is_last: Whether this is the end of the list.
      list_digest: SHA-256 digest of the names of all images of the list so far, in hex.
    """

    index: int = 0
    refs: Sequence[ImageRef] | ListFile | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    is_last: bool = True
    list_digest: str = ""

    @property
    def images(self) -> int:
        """Number of images of the list in this part, duplicates included."""
        return self.counts.get("lines", 0) - self.counts.get("ignored", 0)

    @property
    def file_prefix(self) -> str:
        """The part of file names that identifies the commit; empty if it is the only one."""
        return "" if self.is_last and self.index == 0 else f"{self.index:05}-"


WHOLE_LIST = Commit()


# A key and its count. The key is ("class", CLASS, SPLIT), ("host", HOST, "example" or the reason of
# a failure), ("source", "fallback"), or ("measure", NAME, index of the bin, "example" or
# "filtered").
OutcomeCount = tuple[tuple[str, ...], int]
