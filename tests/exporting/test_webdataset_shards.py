"""Tests of the members of an example in a WebDataset shard."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import numpy as np
import pytest

from beam_pipeline.dataset_info import Feature
from beam_pipeline.exporting import webdataset_shards
from beam_pipeline.records import example_codec, example_proto

NAME = b"0123456789abcdef0123456789abcdef.jpeg"
TEXTS: dict[str, Any] = {
    "image_name": NAME,
    "image_url": b"http://a/1.jpg",
    "image_id": b"n1_1",
    "image_class": b"n1",
    "original_width": 640,
    "original_height": 480,
}


def members(values, labels=None):
    return dict(webdataset_shards.make_members({**TEXTS, **values}, labels or {}))


def test_arrays_are_stored_in_their_own_type():
    planes: dict[str, np.ndarray] = {
        "image_l": np.arange(4, dtype=np.uint8).reshape(2, 2, 1),
        "image_ab": np.arange(8, dtype=np.uint8).reshape(2, 2, 2),
        "image_embedding": np.linspace(-1, 1, 1001, dtype=np.float32),
    }
    made = members(planes)
    assert list(made) == ["l.npy", "ab.npy", "embedding.npy", "json"]
    for ending, name in (
        ("l.npy", "image_l"),
        ("ab.npy", "image_ab"),
        ("embedding.npy", "image_embedding"),
    ):
        read = np.load(io.BytesIO(made[ending]))
        assert read.dtype == planes[name].dtype
        np.testing.assert_array_equal(read, planes[name])


def test_a_png_is_stored_as_it_is():
    made = members({"image_png": b"the bytes of a PNG"})
    assert made["png"] == b"the bytes of a PNG"
    assert not {"l.npy", "ab.npy", "embedding.npy"} & set(made)


@pytest.mark.parametrize(("labels", "stored"), [({"n1": 7}, b"7"), ({"n2": 7}, None)])
def test_a_label_is_stored_if_it_is_known(labels, stored):
    assert members({}, labels).get("cls") == stored


def test_texts_are_stored_as_json():
    values = {
        "image_url": b"/photos/caf\xe9.jpg",  # not UTF-8
        "image_metadata": '{"caption": "café", "size": [1, 2]}'.encode(),
        "colorfulness": 12.5,
    }
    assert json.loads(members(values)["json"]) == {
        "url": "/photos/caf%E9.jpg",
        "id": "n1_1",
        "class": "n1",
        "width": 640,
        "height": 480,
        "metadata": {"caption": "café", "size": [1, 2]},
        "measures": {"colorfulness": 12.5},
    }


@pytest.mark.parametrize("metadata", [b"not JSON", b"[" * 100_000, b"\xff"])
def test_broken_metadata_is_refused(metadata):
    with pytest.raises(ValueError):
        members({"image_metadata": metadata})


FEATURES = {
    **example_codec.describe_features("rgb_png", 2, embedding=False),
    "image_png": Feature("png", [2, 2, 3], ""),
}


def record(name: bytes) -> bytes:
    return example_proto.write_example({**TEXTS, "image_name": name, "image_png": b"PNG"})


def test_an_archive_holds_nothing_of_this_machine():
    file = io.BytesIO()
    webdataset_shards.write_shard(file, iter([record(NAME)]), FEATURES, {})
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        found = archive.getmembers()
    assert [member.name for member in found] == [
        f"{NAME.decode()[:32]}.{x}" for x in ("png", "json")
    ]
    for member in found:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) == (
            *(0, 0, 0, "", ""),
            0o644,
        )


@pytest.mark.parametrize(
    "name", [b"../../etc/passwd", b"a.b.jpeg", b"", NAME[:-5], NAME.upper(), NAME + b"\n"]
)
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(ValueError, match="is not the name of an example"):
        webdataset_shards.write_shard(io.BytesIO(), iter([record(name)]), FEATURES, {})
