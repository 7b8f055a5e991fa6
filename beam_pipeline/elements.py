"""What flows through the graph. Every element carries the `ImageRef` it is about."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Sequence

import numpy as np

from beam_pipeline.redaction import redact


@dataclasses.dataclass(frozen=True)
class ImageRef:
    """One image of the list.

    Attributes:
      id: The line's ID, such as `n00004475_6590`; empty if it had none.
      url: Where the image is: a URL, or a path when a folder of files is read, whose bytes that are not UTF-8 are surrogates,
        as `os.fsdecode` has them.
      is_retried: It failed when it was fetched or decoded, so that what is kept of it is not taken.
    """

    id: str
    url: str
    is_retried: bool = False

    @functools.cached_property
    def name(self) -> str:
        """`md5(url).jpeg`, in hex: the image's file name, and its key wherever one is needed."""
        return hashlib.md5(self.url.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest() + ".jpeg"

    @property
    def url_text(self) -> str:
        """The URL where only text can stand, as in JSON."""
        return as_text(self.url)


def as_text(text: str) -> str:
    """Percent-encode the bytes of a file's name that are not UTF-8; text is itself."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", _percent_encode, text)


def _percent_encode(match: re.Match[str]) -> str:
    code = ord(match[0]) - 0xDC00
    return f"%{code:02X}" if 0x80 <= code <= 0xFF else "?"


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image file as it came: `data`, and how it was come by; `is_resized` if by an earlier run's `--resized_dir`."""

    ref: ImageRef
    data: bytes
    attempts: int
    final_url: str
    is_resized: bool = False

    @property
    def nbytes(self) -> int:
        return len(self.data)


@dataclasses.dataclass(frozen=True, eq=False)
class RgbImage:
    """A square sRGB image.

    Attributes:
      ref: Where it comes from.
      pixels: uint8 (S, S, 3).
      original_size: Width and height before it was resized, pixels.
      network_pixels: uint8 (299, 299, 3), what the network sees; None where that is `pixels`, or there is no network.
      body: The file as it was downloaded, if it is to be kept.
    """

    ref: ImageRef
    pixels: np.ndarray
    original_size: tuple[int, int]
    network_pixels: np.ndarray | None = None
    body: bytes | None = None

    @property
    def nbytes(self) -> int:
        network_bytes = 0 if self.network_pixels is None else self.network_pixels.nbytes
        return self.pixels.nbytes + network_bytes + len(self.body or b"")


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddedImage:
    """An image with its `embedding` float32 (1001,), or None where no network is used."""

    image: RgbImage
    embedding: np.ndarray | None

    @property
    def ref(self) -> ImageRef:
        return self.image.ref

    @property
    def nbytes(self) -> int:
        return self.image.nbytes


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why one image gave no example.

    Attributes:
      ref: The image.
      stage: `read`, `fetch` or `decode`.
      reason: One of the words in the README's table of failures, such as `http_404`.
      detail: The same for a person, with what the server or the decoder said.
      attempts: How many tries were made; a try may take several requests, as where it is redirected.
      final_url: Where the last redirect led.
    """

    ref: ImageRef
    stage: str
    reason: str
    detail: str
    attempts: int = 0
    final_url: str = ""

    def as_json(self) -> dict[str, str | int]:
        """Return the fields of a line of `failures-*.jsonl`, all of them text that UTF-8 can hold.

        `url` is as it was given, to be asked for again; what servers added to it is without credentials.
        """
        fields = dataclasses.asdict(self)
        ref = fields.pop("ref")
        fields |= {name: redact(fields[name]) for name in ("detail", "final_url")}
        fields = {"id": ref["id"], "url": ref["url"], "name": self.ref.name, **fields}
        return {name: as_text(value) if isinstance(value, str) else value for name, value in fields.items()}


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished file: its `name` in the folder, how many `records` it holds, and its size in `bytes`."""

    name: str
    records: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Commit:
    """A part of the list.

    Attributes:
      number: Of the commit, from 0.
      refs: Its images; None where the graph reads the list itself.
      counts: Of `lines`, `ignored` and `duplicates` (of images in earlier commits) read with them.
      is_last: No more of the list is left.
      list_digest: Of the names of all images of the list up to here, in hex.
    """

    number: int = 0
    refs: Sequence[ImageRef] | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    is_last: bool = True
    list_digest: str = ""

    @property
    def label(self) -> str:
        """What the files of the commit have in their names, if there is more than one."""
        return "" if self.is_last and self.number == 0 else f"{self.number:05}-"


WHOLE_LIST = Commit()


# ("class", WNID), or ("host", HOST, "example" or the reason of a failure), and how often.
Tally = tuple[tuple[str, ...], int]
