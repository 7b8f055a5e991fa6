"""Tests of the rows of metadata: every column of hostile texts, and those of --keep_columns."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.elements import EmbeddedImage, ImageRef, RgbImage
from beam_pipeline.images.measures import Measures
from beam_pipeline.images.perceptual_hash import PerceptualHash
from beam_pipeline.records import metadata_table

# JSON and file names may hold surrogates.
TEXTS = st.text(st.characters(codec=None)) | st.text("\ud800\udc80\udcff\n\0é\u2028")


def make_image(ref: ImageRef, **fields) -> EmbeddedImage:
    return EmbeddedImage(RgbImage(ref, np.empty(0), (40, 30), **fields), None)


def make_rows(images: list[EmbeddedImage], kept=(), offsets=(0, 100)) -> list[dict]:
    rows = [metadata_table.encode_row(image) for image in images]
    table = metadata_table.make_table(rows, "train", "x.tfrecord", offsets, kept)
    assert table.schema == metadata_table.make_schema(kept)
    return table.to_pylist()


def test_a_row_of_each_example():
    ref = ImageRef("n1_2", "http://a/1.jpg", image_class="cat")
    measures = Measures(*(index + 0.5 for index in range(7)))
    image = make_image(
        ref,
        body_sha256="ab" * 32,
        final_url="https://me:secret@b/2.jpg",
        image_source="fallback",
        measures=measures,
        hash=PerceptualHash(b"\x07" * 32, 80),
    )
    [first, second] = make_rows([image, make_image(ImageRef("", "/a/\udcff.jpg"))])
    assert first == {
        "name": ref.name,
        "url": "http://a/1.jpg",
        "id": "n1_2",
        "class": "cat",
        "split": "train",
        "shard": "x.tfrecord",
        "index": 0,
        "offset": 0,
        "original_width": 40,
        "original_height": 30,
        **{name: index + 0.5 for index, name in enumerate(Measures._fields)},
        "pdq": b"\x07" * 32,
        "pdq_quality": 80,
        "sha256": "ab" * 32,
        "final_url": "https://REDACTED@b/2.jpg",
        "image_source": "fallback",
    }
    assert (second["url"], second["index"], second["offset"]) == ("/a/%FF.jpg", 1, 100)
    assert (second["id"], second["class"]) == ("", "")
    assert second["sha256"] is second["final_url"] is second["tint"] is None
    assert second["image_source"] is None
    assert second["pdq"] is second["pdq_quality"] is None


def test_a_gzipped_shard_has_no_offsets():
    [row] = make_rows([make_image(ImageRef("", "http://a/1"))], offsets=[None])
    assert row["offset"] is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a \u201ccat\u201d\n", "a \u201ccat\u201d\n"),
        ("", ""),
        (3, "3"),
        (0.5, "0.5"),
        (True, "true"),
        (None, None),
        (["é", {"b": None}], '["é", {"b": null}]'),
    ],
)
def test_kept_values_are_strings_or_json(value, text):
    ref = ImageRef("", "http://a/1", metadata=json.dumps({"caption": value, "other": 1}))
    [row] = make_rows([make_image(ref)], ["caption", "licence"])
    assert (row["caption"], row["licence"]) == (text, None)


def test_kept_columns_do_not_replace_others():
    kept = ["url", "kept_url", "caption", "caption"]
    ref = ImageRef("", "http://a/1", metadata=json.dumps({name: name for name in kept}))
    [row] = make_rows([make_image(ref)], kept)
    assert row["url"] == "http://a/1"
    assert {name: value for name, value in row.items() if name.startswith(("kept", "caption"))} == {
        "kept_url": "url",
        "kept_kept_url": "kept_url",
        "caption": "caption",
        "kept_caption": "caption",
    }


def test_values_that_are_nested_too_deep_are_left_out():
    ref = ImageRef("", "http://a/1", metadata='{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    [row] = make_rows([make_image(ref)], ["a"])
    assert row["a"] is None


@given(texts=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS))
def test_any_text_is_a_valid_row(texts):
    id, image_class, final_url, caption = texts
    metadata = json.dumps({"caption": caption})
    ref = ImageRef(id, "http://a/1", image_class=image_class, metadata=metadata)
    line = metadata_table.encode_row(make_image(ref, final_url=final_url))
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    table = metadata_table.make_table([line], "train", "x", [0], ["caption"])
    table.validate(full=True)
    assert table.schema.field("caption").type == pa.string()
