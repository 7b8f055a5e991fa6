"""What a kind of input is: the protocol that each module of a kind follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

from beam_pipeline.config import Config
from beam_pipeline.elements import ImageRef, Problem

# Bytes at the beginning of a file by which its kind is recognized.
HEAD_BYTES = 8192
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")


class Source(Protocol):
    """A kind of input. A module with these functions is one."""

    def recognizes(self, path: str, head: bytes) -> bool:
        """Return whether a file or folder is of this kind.

        Args:
          path: A path or URL that exists.
          head: The first `HEAD_BYTES` bytes of the file; empty for a folder.
        """
        ...

    def read_refs(self, path: str, config: Config) -> Iterator[ImageRef | None]:
        """Yield the images of a file or folder, in order; None for a line that is ignored.

        Damage ends the iteration, or that of a part: one image with a `problem` then represents
        what is behind the damage.

        Raises:
          UsageError: The file is not usable at all. The error names it and says what to do.
        """
        ...


class GroupedSource(Source, Protocol):
    """A kind of input that is read from front to back, so that its images have a `Row`."""

    def read_group(
        self, refs: Sequence[ImageRef], config: Config
    ) -> Iterator[tuple[ImageRef, bytes | Problem]]:
        """Read images of one group, in sequence, without reading the others.

        Args:
          refs: Images of one group, in the order of their rows.
          config: The options.

        Yields:
          Each image with its bytes, at most `--max_image_bytes`, or the reason why it has none.
        """
        ...


def member_ref(path: str, member: str, **fields: object) -> ImageRef:
    """Return the image of a container, with the URL `PATH#MEMBER` and the member's stem as ID."""
    return dataclasses.replace(ImageRef(stem(member), f"{path}#{member}"), **fields)  # type: ignore[arg-type]


def stem(name: str) -> str:
    """Return a file name without its folders and its ending.

    >>> stem("val/ILSVRC2012_val_00000001.JPEG")
    'ILSVRC2012_val_00000001'
    """
    name = name.rsplit("/", 1)[-1]
    return name.rpartition(".")[0] if "." in name else name


def is_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)
