"""WebDataset shards: consecutive members with the same key are a sample. Pure."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from beam_pipeline.elements import ImageRef

# Extensions of a sample's image, and of its other members that are read, with their maximum size.
_IMAGES = ("jpg", "jpeg", "png", "webp")
_SIDECARS = {"cls": 1 << 10, "txt": 64 << 10, "json": 1 << 20}
_MAX_METADATA = 64 << 10  # bytes of an image's metadata
_MAX_MEMBERS = 64  # of a sample


class Entry(NamedTuple):
    """A member of an archive.

    Attributes:
      name: Its name.
      ref: The image, if it is one.
      content: The bytes of a sidecar, empty if they are not to be read; None for other members.
    """

    name: str
    ref: ImageRef | None
    content: bytes | None = None


def split_key(name: str) -> tuple[str, str]:
    """Split a name into the key of its sample and the extension, in lower case.

    >>> split_key("train/n01440764_10026.seg.PNG")
    ('train/n01440764_10026', 'seg.png')
    """
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def is_sidecar(name: str) -> bool:
    return split_key(name)[1] in _SIDECARS


def is_read(name: str, size: int, columns: Sequence[str]) -> bool:
    """Return whether the content of a sidecar is used: it is wanted, and not too large."""
    extension = split_key(name)[1]
    return size <= _SIDECARS[extension] and (extension == "cls" or bool(columns))


def join_samples(entries: Iterable[Entry], columns: Sequence[str]) -> Iterator[ImageRef]:
    """Yield the images of an archive: one of each sample, and all that are in no sample.

    A sample has an image and a sidecar: `.cls`, `.json` or `.txt`. Its first image is used.

    Args:
      entries: The members, in order.
      columns: The keys of `.json` that become metadata; `txt` is the content of `.txt`.
    """
    for _, group in itertools.groupby(entries, lambda entry: split_key(entry.name)[0]):
        members = iter(group)
        # Names such as `photo.1.jpg` give all members of an archive the same key.
        yield from _join(list(itertools.islice(members, _MAX_MEMBERS)), columns)
        yield from (entry.ref for entry in members if entry.ref)


def _join(entries: Sequence[Entry], columns: Sequence[str]) -> Iterator[ImageRef]:
    sidecars = {
        split_key(entry.name)[1]: entry.content for entry in entries if entry.content is not None
    }
    image = next(
        (entry.ref for entry in entries if entry.ref and split_key(entry.name)[1] in _IMAGES), None
    )
    if image is None or not sidecars:
        yield from (entry.ref for entry in entries if entry.ref)
        return
    yield dataclasses.replace(
        image,
        image_class=_text(sidecars.get("cls")),
        metadata=_metadata(sidecars.get("json"), sidecars.get("txt"), columns) if columns else "",
    )


def _metadata(content: bytes | None, caption: bytes | None, columns: Sequence[str]) -> str:
    """Return a JSON object with the columns; null for those that are missing or not readable."""
    try:
        fields = json.loads(content or b"{}", parse_constant=lambda unused_name: None)
    except (ValueError, RecursionError):
        fields = None
    values = {"txt": _text(caption)} if caption else {}
    values |= fields if isinstance(fields, dict) else {}
    try:
        text = _dump({name: values.get(name) for name in columns})
    except (ValueError, RecursionError):  # an infinite number, such as 1e999
        text = ""
    return text if 0 < len(text) <= _MAX_METADATA else _dump(dict.fromkeys(columns))


def _dump(values: dict[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"), allow_nan=False)


def _text(content: bytes | None) -> str:
    return (content or b"").decode(errors="replace").strip()
