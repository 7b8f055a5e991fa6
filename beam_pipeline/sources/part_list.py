"""The images of a part as a file, which the workers of an engine read.

A graph that contained half a million images would be too large: Dataflow accepts 10 MB.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator, Sequence

from beam_pipeline.elements import ImageRef, ListFile
from beam_pipeline.process import deflate
from beam_pipeline.storage import filesystem

_BLOCK = 1000  # images that are pickled together


def write(path: str, refs: Sequence[ImageRef]) -> ListFile:
    """Write images to a file on any filesystem that Beam supports, about 100 bytes for each."""
    stream = io.BytesIO()
    for start in range(0, len(refs), _BLOCK):
        pickle.dump(refs[start : start + _BLOCK], stream)
    data = deflate.compress(stream.getvalue())
    filesystem.write_bytes(path, data)
    return ListFile(path, hashlib.sha256(data).hexdigest())


def read(file: ListFile) -> Iterator[ImageRef]:
    """Yield the images of a file.

    Raises:
      OSError: The file cannot be read.
      ValueError: It is not the file that `write` has written. Nothing of it is unpickled then.
    """
    data = filesystem.read_bytes(file.path)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ValueError(f"{file.path} has changed since the job was submitted")
    with deflate.open_gzip(io.BytesIO(data)) as stream:
        while True:
            try:
                yield from pickle.load(stream)
            except EOFError:
                return
