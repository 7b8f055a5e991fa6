"""A finished dataset folder, found and opened: without Beam where it lies on a disk."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
import re
from collections.abc import Iterator
from typing import IO, Any, cast

# What lies in it beside shards and failures. Only the first is always there.
DESCRIPTION, METRICS, REPORT, TRANSFORM = "dataset.json", "metrics.json", "report.html", "transform"
SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of examples, as `dataset.json` tells of it: where it is, and how many `examples` and `bytes` it has."""

    path: str
    name: str
    split: str
    examples: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder with a whole dataset: its `path`, and the `description` that its `dataset.json` holds."""

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
    def head(self) -> Folder:
        """The same without what takes much room, such as the list of shards: what another process needs to read a shard."""
        return Folder(self.path, {key: self.description[key] for key in ("encoding", "features", "options")})

    def shards(self, *splits: str) -> list[Shard]:
        """The shards of the splits, in order."""
        return [Shard(join(self.path, file["name"]), **file) for file in self.description["files"] if file["split"] in splits]


def find(path: str | os.PathLike[str], split: str = "train") -> Folder:
    """Finds the dataset of a folder, on any filesystem that Beam knows.

    Raises:
      FileNotFoundError: the folder holds no finished dataset.
      ValueError: its `dataset.json` is broken, the client of its object store is not installed, or there is no such split.
    """
    path = os.fspath(path)
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not known: it is {' or '.join(SPLITS)}")
    description = read_description(path)
    if description is None:
        raise FileNotFoundError(f"{join(path, DESCRIPTION)} is not there: no run has ended in this folder")
    return Folder(path, description)


def read_description(folder: str) -> dict[str, Any] | None:
    """Reads a folder's `dataset.json`; None where there is none. Raises ValueError, which names it, if it is broken."""
    path = join(folder, DESCRIPTION)
    if not exists(path):
        return None
    try:
        with open_file(path) as file:
            description = json.load(file)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(description, dict) or not isinstance(description.get("options"), dict):
        raise ValueError(f"{path} does not describe a dataset")
    return description


@contextlib.contextmanager
def open_file(path: str, packed: bool = False) -> Iterator[IO[bytes]]:
    """Opens a file for reading; unpacks gzip. Raises OSError, which names the path."""
    with contextlib.ExitStack() as stack:
        if is_local(path):
            raw: IO[bytes] = stack.enter_context(open(path, "rb"))
        else:
            from beam_pipeline.storage import filesystem

            raw = stack.enter_context(filesystem.open_bytes(path))
        yield cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw))) if packed else raw


def exists(path: str) -> bool:
    if is_local(path):
        return os.path.exists(path)
    from beam_pipeline.storage import filesystem

    filesystem.check_client(path)
    return filesystem.FileSystems.exists(path)


def list_files(folder: str, below: str = "") -> dict[str, int]:
    """The files in a folder, or in a folder below it, and deeper: paths in the folder, with their bytes."""
    if is_local(folder):
        found = (os.path.join(path, name) for path, _, names in os.walk(os.path.join(folder, below)) for name in names)
        return {os.path.relpath(path, folder): os.path.getsize(path) for path in found}
    from beam_pipeline.storage import filesystem

    sizes = filesystem.list_folder(folder, f"{below}/**" if below else "**")
    names = {path.removeprefix(join(folder, "")): size for path, size in sizes.items()}
    return {name: size for name, size in names.items() if name and not name.endswith("/")}


def join(folder: str, name: str) -> str:
    return os.path.join(folder, name) if is_local(folder) else f"{folder.rstrip('/')}/{name}"


def is_local(path: str) -> bool:
    """Whether a path is one of this machine's: without a scheme, as Beam tells it."""
    return re.match(r"[a-zA-Z][-a-zA-Z0-9+.]*://", path.strip()) is None
