"""An object store for tests: `store:///path` is the local file `/path`.

Only Beam can open it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

PREFIX = "store://"


class Store(LocalFileSystem):
    @classmethod
    def scheme(cls) -> str:
        return "store"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for found in super()._list(_local(dir_or_prefix)):
            yield FileMetadata(
                PREFIX + found.path, found.size_in_bytes, found.last_updated_in_seconds
            )

    def metadata(self, path: str) -> FileMetadata:
        found = super().metadata(_local(path))
        return FileMetadata(path, found.size_in_bytes, found.last_updated_in_seconds)

    def _path_open(self, path: str, *arguments: Any, **options: Any) -> Any:
        return super()._path_open(_local(path), *arguments, **options)

    def exists(self, path: str) -> bool:
        return super().exists(_local(path))

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            os.unlink(_local(path))


def _local(path: str) -> str:
    return path.removeprefix(PREFIX)
