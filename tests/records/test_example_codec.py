"""Tests of records against the protobuf library and TensorFlow's own parser."""

import io
import os
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from skimage import color as reference

from beam_pipeline.elements import EmbeddedImage, ImageRef, RgbImage
from beam_pipeline.images import lab_color, png_notes
from beam_pipeline.records import example_codec, example_proto

ENCODINGS = ("lab_float32", "lab_uint8", "rgb_png")
REF = ImageRef("n00004475_6590", "http://a.example/é, 1.jpg", image_class="n00004475")
NOISE = np.random.default_rng(0)


def make_image(size: int = 5, embedding: bool = True, ref: ImageRef = REF) -> EmbeddedImage:
    pixels = NOISE.integers(0, 256, (size, size, 3), dtype=np.uint8)
    return EmbeddedImage(
        RgbImage(ref, pixels, (500, 375)),
        NOISE.standard_normal(1001, dtype=np.float32) if embedding else None,
    )


def decode(encoded: bytes) -> dict[str, Any]:
    """Return the features of a record as parsed by the protobuf library: bytes, or float32."""
    message = tf.train.Example.FromString(encoded)
    again = tf.train.Example.FromString(message.SerializeToString(deterministic=True))
    assert again == message
    features: dict[str, Any] = {}
    for name, feature in message.features.feature.items():
        if feature.WhichOneof("kind") == "bytes_list":
            [features[name]] = feature.bytes_list.value
        elif feature.WhichOneof("kind") == "int64_list":
            [features[name]] = feature.int64_list.value
        else:
            features[name] = np.array(feature.float_list.value, np.float32)
    return features


def as_described(encoded: bytes, encoding: str, size: int, embedding: bool) -> dict[str, Any]:
    """Return the features of a record, in the types and shapes of the description.

    There must be no other features.
    """
    features, description = (
        decode(encoded),
        example_codec.describe_features(encoding, size, embedding),
    )
    assert sorted(features) == sorted(description)
    for name, value in features.items():
        shape = description[name].shape
        match description[name].dtype:
            case "float32":
                features[name] = value.reshape(shape)
            case "raw uint8":
                features[name] = np.frombuffer(value, np.uint8).reshape(shape)
            case "png":
                features[name] = np.asarray(Image.open(io.BytesIO(value), formats=["PNG"])).reshape(
                    shape
                )
            case kind:
                assert (kind, shape) == ("int64" if isinstance(value, int) else "bytes", [])
    return features


@pytest.mark.parametrize("size", [1, 2, 7, 64, 299])
@pytest.mark.parametrize("embedding", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_record_holds_just_what_is_described(encoding, embedding, size):
    image = make_image(size, embedding)
    features = as_described(
        example_codec.encode_example(image, encoding), encoding, size, embedding
    )
    assert features.pop("image_name") == REF.name.encode()
    assert features.pop("image_url") == REF.url.encode()
    assert features.pop("image_id") == REF.id.encode()
    assert features.pop("image_class") == REF.image_class.encode()
    assert (features.pop("original_width"), features.pop("original_height")) == (500, 375)
    if embedding:
        np.testing.assert_array_equal(features.pop("image_embedding"), image.embedding)
    if encoding == "rgb_png":
        expected = {"image_png": image.image.pixels}
    else:
        scale = lab_color.scale_lab if encoding == "lab_float32" else lab_color.quantize_lab
        expected = dict(
            zip(
                ("image_l", "image_ab"),
                scale(lab_color.rgb_to_lab(image.image.pixels)),
                strict=True,
            )
        )
    assert sorted(features) == sorted(expected)
    for name, plane in expected.items():
        np.testing.assert_array_equal(features[name], plane)


def test_lab_float32_has_the_documented_values():
    image = make_image(40)
    lab = reference.rgb2lab(image.image.pixels / 255)
    features = as_described(
        example_codec.encode_example(image, "lab_float32"), "lab_float32", 40, True
    )
    np.testing.assert_allclose(features["image_l"], lab[..., :1] / 50 - 1, rtol=0, atol=1e-5)
    np.testing.assert_allclose(features["image_ab"], lab[..., 1:] / 127, rtol=0, atol=1e-5)


def test_lab_uint8_has_the_documented_values():
    image = make_image(40)
    lab = reference.rgb2lab(image.image.pixels / 255)
    features = as_described(example_codec.encode_example(image, "lab_uint8"), "lab_uint8", 40, True)
    # Half a step, plus the error of float32.
    np.testing.assert_allclose(features["image_l"], lab[..., :1] * 255 / 100, rtol=0, atol=0.501)
    np.testing.assert_allclose(features["image_ab"], lab[..., 1:] + 128.0, rtol=0, atol=0.501)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tensorflow_parses_a_record(encoding):
    size = 6
    image = make_image(size)
    description = example_codec.describe_features(encoding, size, True)
    dtypes = {"float32": tf.float32, "int64": tf.int64}
    spec = {
        name: tf.io.FixedLenFeature(feature.shape, dtypes[feature.dtype])
        if feature.dtype in dtypes
        else tf.io.FixedLenFeature([], tf.string)
        for name, feature in description.items()
    }
    lab = lab_color.rgb_to_lab(image.image.pixels)
    parsed = tf.io.parse_single_example(example_codec.encode_example(image, encoding), spec)
    assert parsed["image_url"].numpy() == REF.url.encode()
    assert parsed["original_width"].numpy() == 500
    np.testing.assert_array_equal(parsed["image_embedding"], image.embedding)
    if encoding == "lab_float32":
        np.testing.assert_array_equal(parsed["image_l"], lab_color.scale_lab(lab)[0])
        np.testing.assert_array_equal(parsed["image_ab"], lab_color.scale_lab(lab)[1])
    elif encoding == "lab_uint8":
        raw = tf.reshape(tf.io.decode_raw(parsed["image_ab"], tf.uint8), [size, size, 2])
        np.testing.assert_array_equal(raw, lab_color.quantize_lab(lab)[1])
    else:
        np.testing.assert_array_equal(tf.io.decode_png(parsed["image_png"]), image.image.pixels)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_record_is_no_longer_than_the_protobuf_library_would_make_it(encoding):
    encoded = example_codec.encode_example(make_image(64), encoding)
    assert len(encoded) == len(tf.train.Example.FromString(encoded).SerializeToString())


def test_an_embedding_that_is_not_there_is_no_feature():
    image = make_image(embedding=False)
    assert "image_embedding" not in decode(example_codec.encode_example(image, "lab_float32"))
    assert "image_embedding" not in example_codec.describe_features("lab_float32", 5, False)


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300))
@example("", "")
@example("\0", "\n\r\t")
@example("n" * 127, "http://a.example/" + "é" * 10_000)
@example("n" * 128, "\U0001f415" * 32)
def test_any_id_and_url_can_be_recorded(encoding, identifier, url):
    ref = ImageRef(identifier, url)
    features = decode(example_codec.encode_example(make_image(2, False, ref), encoding))
    assert features["image_id"] == identifier.encode()
    assert features["image_url"] == url.encode()
    assert features["image_name"] == ref.name.encode()


@given(st.binary(max_size=50).filter(lambda path: b"\0" not in path))
def test_the_bytes_of_any_path_are_recorded(path):
    features = decode(
        example_codec.encode_example(
            make_image(1, False, ImageRef("", os.fsdecode(path))), "rgb_png"
        )
    )
    assert features["image_url"] == path


@pytest.mark.parametrize(
    "transform", [lambda a: a, lambda a: a[::-1], lambda a: np.asfortranarray(a)]
)
def test_records_do_not_depend_on_how_arrays_lie_in_memory(transform):
    image = make_image(8)
    assert image.embedding is not None
    pixels, embedding = transform(image.image.pixels), image.embedding.astype(">f4")
    other = EmbeddedImage(RgbImage(REF, pixels, (500, 375)), embedding)
    features = as_described(
        example_codec.encode_example(other, "lab_float32"), "lab_float32", 8, True
    )
    np.testing.assert_array_equal(features["image_embedding"], image.embedding)
    np.testing.assert_allclose(
        features["image_l"],
        lab_color.scale_lab(lab_color.rgb_to_lab(pixels.copy()))[0],
        rtol=0,
        atol=1e-6,
    )


def test_floats_of_every_kind_are_kept():
    limits = np.finfo(np.float32)
    kinds = [
        np.nan,
        np.inf,
        -np.inf,
        0.0,
        -0.0,
        limits.max,
        limits.min,
        limits.smallest_subnormal,
        1 / 3,
    ]
    embedding = np.resize(np.array(kinds, np.float32), 1001)
    image = EmbeddedImage(make_image(1).image, embedding)
    kept = decode(example_codec.encode_example(image, "rgb_png"))["image_embedding"]
    np.testing.assert_array_equal(kept, embedding)
    np.testing.assert_array_equal(np.signbit(kept), np.signbit(embedding))


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_png_is_lossless(pixels):
    with Image.open(io.BytesIO(png_notes.encode_png(pixels))) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_png_is_lossless_at_the_usual_size():
    pixels = make_image(299).image.pixels
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(png_notes.encode_png(pixels)))), pixels
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_feature_is_described(encoding):
    for feature in example_codec.describe_features(encoding, 299, True).values():
        assert feature.meaning
        assert feature.shape in ([], [299, 299, 1], [299, 299, 2], [299, 299, 3], [1001])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_encoded_is_decoded(encoding):
    image = make_image(7)
    features = example_codec.describe_features(encoding, 7, True)
    decoded = example_codec.decode_example(example_codec.encode_example(image, encoding), features)
    assert list(decoded) == list(features)
    assert (decoded["image_url"], decoded["original_height"]) == (REF.url.encode(), 375)
    np.testing.assert_array_equal(decoded["image_embedding"], image.embedding)
    for name in ("image_l", "image_ab") if encoding != "rgb_png" else ():
        assert (list(decoded[name].shape), decoded[name].dtype.name) == (
            features[name].shape,
            features[name].dtype.removeprefix("raw "),
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_l": b"abc"}, "image_l is not of type float32"),
        ({"image_l": np.zeros(3, np.float32)}, "image_l has 3 values, not 49"),
        ({"image_id": 7}, "image_id is not a single bytes value"),
        ({"original_width": b"7"}, "original_width is not of type int64"),
        (
            {"label": 7},
            "it contains image_ab, image_class, image_embedding, image_id, image_l, image_name, "
            "image_url, label",
        ),
    ],
)
def test_what_is_no_such_example_is_refused(changes, said):
    features = example_codec.describe_features("lab_float32", 7, True)
    decoded = example_codec.decode_example(
        example_codec.encode_example(make_image(7), "lab_float32"), features
    )
    with pytest.raises(ValueError, match=said):
        example_codec.decode_example(example_proto.write_example({**decoded, **changes}), features)
