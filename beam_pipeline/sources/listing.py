"""All images of a run: the inputs joined, each image with its class and its split."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import re
import threading
import weakref
from collections.abc import Iterable, Iterator

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef, as_text
from beam_pipeline.sources import (
    id_files,
    json_lines,
    opening,
    paths,
    registry,
    source,
    stored_copies,
)
from beam_pipeline.sources.image_index import ImageIndex
from beam_pipeline.storage import any_path, filesystem

_NO_REASONS = "none: it is not a list of failures"


def read_refs(config: Config, counts: collections.Counter[str]) -> Iterator[ImageRef]:
    """Yield the images of a run: those of validation inputs first, then `--input` or `--images`.

    URLs are in the order of their list, after `--skip` and up to `--count`. `--images` are listed
    completely first, then yielded in the order of an `ImageIndex`.

    Args:
      config: The options.
      counts: Receives the number of `lines` and of `ignored` lines: blank lines, comments, failures
        for a reason not in `--retry_reasons`, and images before `--skip` or after `--count`. The
        numbers are complete when the generator ends.

    Raises:
      UsageError: An input cannot be read to its end. The error names the file.
    """
    complete = _Completion(config)
    for refs in (_validation_refs(config), _main_refs(config)):
        for ref in refs:
            counts["lines"] += 1
            if ref is None:
                counts["ignored"] += 1
            else:
                yield complete(ref)


def _validation_refs(config: Config) -> Iterator[ImageRef | None]:
    if config.validation_input:
        refs = _list("--validation_input", config.validation_input, config)
    elif config.validation_images:
        refs = _indexed("--validation_images", config.validation_images, config)
    else:
        return
    for ref in refs:
        yield ref and dataclasses.replace(ref, is_validation=True)


def _main_refs(config: Config) -> Iterator[ImageRef | None]:
    if config.images:
        return _indexed("--images", config.images, config)
    assert config.input is not None
    return _select(_list("--input", config.input, config), config)


def _list(option: str, value: str, config: Config) -> Iterator[ImageRef | None]:
    """Yield the images of all files that an option names, in order."""
    for path in paths.expand(option, value):
        if option.endswith("images"):
            yield from registry.find_images(path).read_refs(path, config)
            continue
        source = registry.find_input(path, config)
        if config.retry_reasons and option == "--input" and source is not json_lines:
            raise UsageError(
                f"{path} contains no image that failed for one of --retry_reasons "
                f"{config.retry_reasons}. Its reasons are {_NO_REASONS}."
            )
        yield from source.read_refs(path, config)


def _select(refs: Iterable[ImageRef | None], config: Config) -> Iterator[ImageRef | None]:
    """Apply `--skip` and `--count`: images that are left out become ignored lines."""
    end = None if config.count is None else config.skip + config.count
    number = 0
    for ref in refs:
        is_left_out = number < config.skip or (end is not None and number >= end)
        number += ref is not None
        yield None if is_left_out else ref


# The indexes of a run, because a listing is read several times.
_indexes: weakref.WeakKeyDictionary[Config, dict[str, ImageIndex]] = weakref.WeakKeyDictionary()
_indexing = threading.Lock()


def _indexed(option: str, value: str, config: Config) -> Iterator[ImageRef | None]:
    with _indexing:
        indexes = _indexes.setdefault(config, {})
        if option not in indexes:
            refs = _list(option, value, config)
            if option == "--images":
                # A listing of an archive may take hours; it ends once `--count` is reached.
                stop = None if config.count is None else config.skip + config.count
                refs = _select(itertools.islice(refs, stop), config)
            indexes[option] = ImageIndex(refs)
    yield from itertools.repeat(None, indexes[option].ignored)
    yield from indexes[option]


class _Completion:
    """Gives images their class, their split, and their stored copy."""

    def __init__(self, config: Config):
        self._classes = id_files.read_classes(config.class_file) if config.class_file else {}
        self._ids = id_files.read_ids(config.validation_ids) if config.validation_ids else None
        self._has_own = bool(config.validation_input or config.validation_images)
        self._stratify = _Stratifier(config.validation_fraction) if config.stratify else None
        self._copies = stored_copies.list_copies(config)

    def __call__(self, ref: ImageRef) -> ImageRef:
        known = self._classes.get(ref.id) or ref.image_class or wordnet_id(ref.id)
        image_class = as_text(known)
        return dataclasses.replace(
            ref,
            image_class=image_class,
            is_validation=self._is_validation(ref, image_class),
            folder="",
            fallback=self._copies.find(ref.id) if self._copies and not ref.location else None,
        )

    def _is_validation(self, ref: ImageRef, image_class: str) -> bool | None:
        if self._ids is not None:
            file_name = re.split("[/#]", ref.url)[-1]
            return not self._ids.isdisjoint((ref.id, ref.url, file_name))
        if self._has_own:
            return bool(ref.is_validation)
        return self._stratify(image_class) if self._stratify else ref.is_validation


class _Stratifier:
    """Chooses a share of each class, within one image.

    Of a class's images, in the order of the list, every 1/fraction-th is chosen. The first one is
    determined by a hash of the class, so that small classes are not all left out.
    """

    def __init__(self, fraction: float):
        self._fraction = fraction
        self._numbers: collections.Counter[str] = collections.Counter()

    def __call__(self, image_class: str) -> bool:
        digest = hashlib.md5(image_class.encode(errors="replace"), usedforsecurity=False)
        offset = int.from_bytes(digest.digest()[:4]) / 2**32
        number = self._numbers[image_class]
        self._numbers[image_class] += 1
        chosen = [int(offset + self._fraction * count) for count in (number, number + 1)]
        return chosen[1] > chosen[0]


def check_readable(config: Config) -> None:
    """Read the input up to its first image, to report an unusable one before anything is fetched.

    Of lists, the first file of each path or glob is looked at; of images, all are listed, those of
    `--fallback_images` too.

    Raises:
      UsageError: An input does not exist, cannot be read, or contains no image.
    """
    for name in ("validation_input", "input"):
        option, value = f"--{name}", getattr(config, name)
        for part in paths.split(option, value) if value else ():
            path = paths.match(option, part)[0]
            next(registry.find_input(path, config).read_refs(path, config), None)
    option = "validation_input" if config.validation_input else "validation_images"
    if getattr(config, option) and not any(_validation_refs(config)):
        raise UsageError(f"--{option} {getattr(config, option)} contains no image. Check the path.")
    if first := next(filter(None, _main_refs(config)), None):
        if stored_copies.list_copies(config) and config.input and not first.id:
            raise UsageError(
                f"--fallback_images needs IDs, and the first image of {config.input} has none. "
                "Give lines of ID URL, or --id_column."
            )
        return
    if config.skip:
        raise UsageError(
            f"{config.input or config.images} has no image left after --skip {config.skip}. "
            "Give a smaller number."
        )
    if config.retry_reasons:
        raise UsageError(
            f"--input {config.input} contains no image that failed for one of "
            f"--retry_reasons {config.retry_reasons}. Its reasons are {_list_reasons(config)}."
        )
    raise UsageError(
        f"--input {config.input} contains no URL: every line is blank or a comment. Check the file."
    )


def _list_reasons(config: Config) -> str:
    """Return the reasons in lists of failures, for a message."""
    assert config.input is not None
    reasons: set[str] = set()
    for path in paths.expand("--input", config.input):
        reasons |= json_lines.read_reasons(path, config)
    return ", ".join(sorted(reason[:40] for reason in reasons)[:40]) or _NO_REASONS


def count_images(config: Config) -> int:
    """Return the number of images of a run, duplicates included.

    Raises:
      UsageError: An input cannot be read to its end.
    """
    refs = itertools.chain(_validation_refs(config), _main_refs(config))
    return sum(ref is not None for ref in refs)


def refuse_pipe(config: Config) -> None:
    """Raise UsageError if a list is a pipe.

    Only the process of the command can read a pipe, and only once.
    """
    for name in ("input", "validation_input"):
        option, value = f"--{name}", getattr(config, name)
        for part in filter(any_path.is_local, paths.split(option, value) if value else ()):
            for path in filter(opening.is_pipe, paths.match(option, part)):
                raise UsageError(
                    f"{option} {path} is a pipe, which the workers of this runner cannot read. "
                    "Save the list to a file, or let the command wait for the job."
                )


def identify_containers(config: Config) -> str:
    """Return a text that changes when an archive or a Parquet file of images changes."""
    names = ("images", "validation_images", "fallback_images")
    values = {f"--{name}": getattr(config, name) for name in names}
    containers = [
        path
        for option, value in values.items()
        if value
        for path in paths.expand(option, value)
        if not source.is_image_name(path) and not any_path.is_folder(path)
    ]
    return "".join(f"{path} {filesystem.read_version(path)}\n" for path in containers)


def list_files(config: Config) -> list[str]:
    """Return the files of `--input` and `--validation_input`, without URLs.

    Raises:
      UsageError: An option cannot be read or matches no file.
    """
    return [
        path
        for name in ("input", "validation_input")
        if (value := getattr(config, name))
        for path in paths.expand(f"--{name}", value)
        if not any_path.is_url(path)
    ]


def wordnet_id(image_id: str) -> str:
    """Return the WordNet ID at the start of an ImageNet ID; empty if there is none.

    >>> wordnet_id("n00004475_6590")
    'n00004475'
    """
    match = re.match(r"(n\d{8})(?:_|$)", image_id)
    return match[1] if match else ""
