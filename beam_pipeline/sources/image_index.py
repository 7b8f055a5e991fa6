"""An index of the images of `--images`, in the order in which they are read.

Neighbours in a folder or an archive mostly show the same class. The order of a hash separates them,
but no hash order is known before the last image is listed. SQLite sorts the list in a temporary
file, so that memory stays flat for any number of images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import sqlite3
import time
from collections.abc import Iterable, Iterator

from beam_pipeline.elements import ImageRef, Row
from beam_pipeline.process.console import complain

_BATCH = 1000
_REPORT_INTERVAL = 30.0  # seconds


class ImageIndex:
    """The images of a listing, sorted.

    Images that can be read on their own are in the order of a hash of their URL. Images with a
    `Row` stay in sequence within their group, and the groups are in the order of a hash. A folder
    or inner archive becomes the class of its images unless all of them lie in the same.

    Attributes:
      ignored: Number of ignored lines.
    """

    def __init__(self, refs: Iterable[ImageRef | None]):
        """List and sort images; None is an ignored line."""
        self.ignored = 0
        self._folders: set[str] = set()  # the first two
        # An unnamed database is a temporary file, which SQLite deletes.
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("CREATE TABLE listed (key BLOB, ref BLOB)")
        self._insert(refs)
        self._database.execute("CREATE TABLE sorted AS SELECT ref FROM listed ORDER BY key, rowid")
        self._database.execute("DROP TABLE listed")

    def __len__(self) -> int:
        return self._database.execute("SELECT max(rowid) FROM sorted").fetchone()[0] or 0

    def __iter__(self) -> Iterator[ImageRef]:
        has_classes = len(self._folders) > 1
        for (pickled,) in self._database.execute("SELECT ref FROM sorted ORDER BY rowid"):
            ref = pickle.loads(pickled)
            if has_classes and ref.folder and not ref.image_class:
                ref = dataclasses.replace(ref, image_class=ref.folder.rsplit("/", 1)[-1])
            yield ref

    def _insert(self, refs: Iterable[ImageRef | None]) -> None:
        batch, listed, reported = [], 0, time.monotonic()
        for ref in refs:
            if ref is None:
                self.ignored += 1
                continue
            if len(self._folders) < 2:
                self._folders.add(ref.folder)
            batch.append((_key(ref), pickle.dumps(ref)))
            if len(batch) == _BATCH:
                self._database.executemany("INSERT INTO listed VALUES (?, ?)", batch)
                listed += len(batch)
                batch.clear()
                if time.monotonic() - reported > _REPORT_INTERVAL:
                    reported = time.monotonic()
                    complain(f"listing the images: {listed:,} so far", 0)
        self._database.executemany("INSERT INTO listed VALUES (?, ?)", batch)


def _key(ref: ImageRef) -> bytes:
    if not isinstance(ref.location, Row):
        return bytes.fromhex(ref.name[:32])
    group = f"{ref.location.path}#{ref.location.group}"
    return hashlib.md5(group.encode(errors="surrogateescape"), usedforsecurity=False).digest()
