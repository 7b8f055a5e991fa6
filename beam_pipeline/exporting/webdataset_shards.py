"""WebDataset shards: tar archives in which the members of an example share a key. Pure.

Format: https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from beam_pipeline.dataset_info import Features
from beam_pipeline.elements import as_text
from beam_pipeline.reading import class_labels
from beam_pipeline.records import example_codec

# The member of each array.
_ARRAYS = {"image_l": "l.npy", "image_ab": "ab.npy", "image_embedding": "embedding.npy"}
_TEXTS = {"image_url": "url", "image_id": "id", "image_class": "class"}
_SIZES = {"original_width": "width", "original_height": "height"}


def write_shard(
    file: IO[bytes], records: Iterator[bytes], features: Features, labels: Mapping[str, int]
) -> None:
    """Write examples as a tar archive, which depends on nothing else.

    Args:
      file: An open file.
      records: Serialized tf.train.Examples.
      features: The features of a record, as in `dataset.json`.
      labels: The label of each class.

    Raises:
      ValueError: A record is not an example of the dataset.
    """
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        for record in records:
            values = example_codec.decode_example(record, features)
            key = _key(values["image_name"])
            for ending, data in make_members(values, labels):
                member = tarfile.TarInfo(f"{key}.{ending}")  # time, owner and group are 0
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def make_members(
    values: Mapping[str, Any], labels: Mapping[str, int]
) -> Iterator[tuple[str, bytes]]:
    """Yield the ending and the content of each member of an example.

    Planes, PNG and embedding are those of the record; nothing is converted.

    Args:
      values: The result of `example_codec.decode_example`.
      labels: The label of each class.
    """
    for name, ending in _ARRAYS.items():
        if name in values:
            yield ending, _encode_npy(values[name])
    if "image_png" in values:
        yield "png", values["image_png"]
    label = class_labels.label_of(values["image_class"], labels)
    if label >= 0:
        yield "cls", b"%d" % label
    yield "json", json.dumps(describe(values)).encode()


def describe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts and numbers of an example, for JSON.

    Raises:
      ValueError: `image_metadata` is not JSON.
    """
    described: dict[str, Any] = {
        column: as_text(values[name].decode(errors="surrogateescape"))
        for name, column in _TEXTS.items()
    }
    described |= {column: values[name] for name, column in _SIZES.items()}
    if "image_metadata" in values:
        try:
            described["metadata"] = json.loads(values["image_metadata"])
        except RecursionError as error:
            raise ValueError("image_metadata is nested too deeply") from error
    measures = {name: values[name] for name in example_codec.MEANINGS if name in values}
    return described | ({"measures": measures} if measures else {})


def _key(name: bytes) -> str:
    """Return the key of an example: its name without the ending.

    Raises:
      ValueError: The name is not one that a run gives: it could lead out of a folder.
    """
    match = re.fullmatch(rb"([0-9a-f]{32})\.jpeg", name)
    if not match:
        raise ValueError(f"image_name {name!r} is not the name of an example")
    return match[1].decode()


def _encode_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()
