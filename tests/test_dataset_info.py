"""Tests of the typed description of a dataset, which may come from a stranger."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_dataset import make_info

from beam_pipeline.dataset_info import (
    DatasetInfo,
    ExampleFile,
    Feature,
    Host,
    InputFile,
    NearDuplicates,
    RepeatedBody,
)

INFO = make_info(
    description="planes",
    features={"image_l": Feature("float32", [299, 299, 1], "L* / 50 - 1")},
    failures_by_stage={"fetch": {"dns": 3}},
    hosts=[Host("a", 5, {"dns": 1})],
    repeated_content=[RepeatedBody("00", 3, "http://a/\udcff")],
    checkpoint=InputFile("untrained", "ab"),
    options={"skip": 0, "input": None},
    files=[ExampleFile("lab_images_00000-of-00001.tfrecord", "train", 3, 30)],
)


def test_what_is_written_is_read():
    assert DatasetInfo.from_json(INFO.to_json()) == INFO


def test_fields_of_later_versions_are_ignored():
    fields = json.loads(INFO.to_json()) | {"croissant": "croissant.json"}
    assert DatasetInfo.from_json(json.dumps(fields)) == INFO


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"counts": {"lines": "3"}}, r"Expected `int`, got `str` - at `\$.counts.lines`"),
        ({"files": [{"name": "x"}]}, r"missing required field `split` - at `\$.files\[0\]`"),
        ({"counts": json.loads(INFO.to_json())["counts"] | {"failures": -1}}, r"counts.failures"),
        ({"files": [{"name": "../x", "split": "train", "examples": 1, "bytes": 1}]}, "regex"),
        ({"files": 3}, r"Expected `array`, got `int` - at `\$.files`"),
        ({"encoding": "jpeg"}, r"Invalid enum value 'jpeg' - at `\$.encoding`"),
        ({"format_version": 2}, "has the format version 2, and this program reads 1"),
    ],
)
def test_a_wrong_field_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        DatasetInfo.from_json(json.dumps(json.loads(INFO.to_json()) | change))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(DatasetInfo)])
def test_a_missing_field_is_named(name):
    fields = json.loads(INFO.to_json())
    del fields[name]
    with pytest.raises(ValueError, match=name.replace("_", ".")):
        DatasetInfo.from_json(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", "[" * 100_000, b"\xff", '{"a": NaN}'])
def test_what_is_no_description_is_refused(text):
    with pytest.raises(ValueError, match=r"not JSON|not a JSON object|format version"):
        DatasetInfo.from_json(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([field.name for field in dataclasses.fields(DatasetInfo)]), VALUES)
def test_any_value_is_read_or_refused(name, value):
    text = json.dumps(json.loads(INFO.to_json()) | {name: value})
    try:
        info = DatasetInfo.from_json(text)
    except ValueError:
        return
    assert isinstance(info, DatasetInfo)


def test_near_duplicates_are_described_in_one_line():
    assert NearDuplicates(0, 0, 0, 0, 0, 0, 0).describe() == "near-duplicates: none"
    found = NearDuplicates(
        clusters=2, images=5, largest=3, leaks=1, not_compared=4, capped=1_000, bytes=9
    )
    assert found.describe() == (
        "near-duplicates: 5 images in 2 clusters, the largest of 3; 1 training image like a "
        "validation image; 4 images too flat to compare; at least 1,000 images compared in part"
    )
