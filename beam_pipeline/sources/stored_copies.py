"""The images of `--fallback_images`, by ID: copies of images that are gone.

SQLite keeps them in a temporary file, so that memory stays flat for any number of images.
"""

from __future__ import annotations

import pickle
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Extent, ImageRef, StoredCopy
from beam_pipeline.process.console import complain
from beam_pipeline.sources import paths, registry

_OPTION = "--fallback_images"
_BATCH = 1000


class StoredCopies:
    """Copies of images; of several with one ID, the first."""

    def __init__(self, refs: Iterable[ImageRef]):
        # An unnamed database is a temporary file, which SQLite deletes.
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("CREATE TABLE copies (id BLOB PRIMARY KEY, copy BLOB) WITHOUT ROWID")
        batch = []
        for ref in refs:
            batch.append((_key(ref.id), pickle.dumps((ref.url, ref.location))))
            if len(batch) == _BATCH:
                self._insert(batch)
        self._insert(batch)

    def find(self, image_id: str) -> StoredCopy | None:
        """Return the copy of an image; None if there is none, or the ID is empty."""
        query = "SELECT copy FROM copies WHERE id = ?"
        row = self._database.execute(query, (_key(image_id),)).fetchone() if image_id else None
        return StoredCopy(*pickle.loads(row[0])) if row else None

    def _insert(self, batch: list[tuple[bytes, bytes]]) -> None:
        self._database.executemany("INSERT OR IGNORE INTO copies VALUES (?, ?)", batch)
        batch.clear()


def _key(image_id: str) -> bytes:
    return image_id.encode(errors="surrogatepass")


# A listing is read several times in a run, and a container may hold millions of images.
_listed: weakref.WeakKeyDictionary[Config, StoredCopies] = weakref.WeakKeyDictionary()
_listing = threading.Lock()


def list_copies(config: Config) -> StoredCopies | None:
    """Return the images of `--fallback_images`, listed once for a config; None without the option.

    Raises:
      UsageError: A file cannot be read, holds no image, or can only be read from front to back.
    """
    if not config.fallback_images:
        return None
    with _listing:
        if config not in _listed:
            _listed[config] = StoredCopies(_read_refs(config.fallback_images, config))
        return _listed[config]


def _read_refs(value: str, config: Config) -> Iterator[ImageRef]:
    for path in paths.expand(_OPTION, value):
        for ref in registry.find_images(path).read_refs(path, config):
            if ref is None:
                continue
            if ref.problem:
                complain(f"{_OPTION} {ref.url_text}: {ref.problem.detail}", 0)
            elif isinstance(ref.location, Extent):
                yield ref
            else:
                raise UsageError(
                    f"{_OPTION} {path} can only be read from front to back. Give a folder, a .tar "
                    "that is not compressed, or a .zip."
                )
