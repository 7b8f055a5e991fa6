"""Conversion between EmbeddedImage and serialized tf.train.Example, and a dataset's features.

Pure.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from beam_pipeline.dataset_info import Feature, Features
from beam_pipeline.elements import EmbeddedImage
from beam_pipeline.images import lab_color, png_notes
from beam_pipeline.images.measures import Measures
from beam_pipeline.records import example_proto

EMBEDDING_SIZE = 1001
# The measures in `images/measures.py`, which has their formulas and sources.
MEANINGS = {
    "colorfulness": "M3 of Hasler and Suesstrunk 2003; 0 is grey, 33 moderately colourful",
    "colorfulness_abs": "the same of absolute values, as DDColor, CT2, UniColor and BigColor do",
    "max_chroma_ab": "maximum of |a*| and |b*| over all pixels; at most 5 is grey",
    "tint": "mean squared deviation from a single hue in a thumbnail; at most 22 is toned or grey",
    "brightness_p5": "5th percentile of L* / 100",
    "brightness_p99": "99th percentile of L* / 100",
    "entropy": "Shannon entropy of L* in 256 levels, bits",
}


def encode_example(
    image: EmbeddedImage, encoding: str, metadata: bool = False, measures: bool = False
) -> bytes:
    """Serialize an image as a tf.train.Example with the features of `describe_features`.

    Args:
      image: An image of any size.
      encoding: `lab_float32`, `lab_uint8` or `rgb_png`.
      metadata: Whether to write the values of `--keep_columns`; `{}` for an image without any.
      measures: Whether to write the measures of the image.
    """
    ref, rgb = image.ref, image.image
    width, height = rgb.original_size
    features: dict[str, bytes | int | np.ndarray] = {
        "image_name": ref.name.encode(),
        "image_url": ref.url.encode(errors="surrogateescape"),
        "image_id": ref.id.encode(errors="surrogateescape"),
        "image_class": ref.image_class.encode(),
        "original_width": width,
        "original_height": height,
    }
    if metadata:
        features["image_metadata"] = (ref.metadata or "{}").encode()
    if measures and rgb.measures:
        for name, value in rgb.measures._asdict().items():
            features[name] = np.array([value], np.float32)
    if encoding == "rgb_png":
        features["image_png"] = png_notes.encode_png(rgb.pixels)
    else:
        scale = lab_color.scale_lab if encoding == "lab_float32" else lab_color.quantize_lab
        lab = lab_color.rgb_to_lab(rgb.pixels) if rgb.lab is None else rgb.lab
        features["image_l"], features["image_ab"] = scale(lab)
    if image.embedding is not None:
        features["image_embedding"] = image.embedding
    return example_proto.write_example(features)


def decode_example(record: bytes | memoryview, features: Features) -> dict[str, Any]:
    """Parse a record of `encode_example`; a PNG is not decoded.

    Args:
      record: A serialized tf.train.Example.
      features: The result of `describe_features`.

    Returns:
      By name: bytes, an int or float, or an array of the feature's dtype and shape, which may be
      a view of the record.

    Raises:
      ValueError: The record is not a tf.train.Example or does not hold exactly these features.
    """
    values = example_proto.read_example(record)
    if set(values) != set(features):
        raise ValueError(
            f"it contains {', '.join(sorted(values)) or 'nothing'}, "
            f"not {', '.join(sorted(features))}"
        )
    return {name: _decode_value(name, values[name], feature) for name, feature in features.items()}


def _decode_value(name: str, value: list[bytes] | np.ndarray, feature: Feature) -> Any:
    dtype, shape = feature.dtype, feature.shape
    in_bytes = dtype in ("bytes", "png", "raw uint8")
    if in_bytes:
        if not isinstance(value, list) or len(value) != 1:
            raise ValueError(f"{name} is not a single bytes value")
        if dtype != "raw uint8":
            return value[0]
        value, dtype = np.frombuffer(value[0], np.uint8), "uint8"
    if isinstance(value, list) or value.dtype != dtype:
        raise ValueError(f"{name} is not of type {dtype}")
    if value.size != math.prod(shape):
        raise ValueError(f"{name} has {value.size} values, not {math.prod(shape)}")
    return value.reshape(shape) if shape else value[0].item()


def describe_features(
    encoding: str,
    image_size: int,
    embedding: bool,
    metadata: bool = False,
    measures: bool = False,
) -> dict[str, Feature]:
    """Return the features of a record, as listed in `dataset.json`.

    A raw uint8 plane is one bytes value; `dtype` and `shape` are those of the array inside it.

    Args:
      encoding: `lab_float32`, `lab_uint8` or `rgb_png`.
      image_size: Side of the square, pixels.
      embedding: Whether records hold embeddings.
      metadata: Whether records hold the values of `--keep_columns`.
      measures: Whether records hold the measures of the image.

    Returns:
      The features by name.
    """
    side = image_size
    features = {
        "image_name": Feature("bytes", [], "md5(image_url).jpeg"),
        "image_url": Feature(
            "bytes", [], "the URL, the file's path, or PATH#MEMBER for an image in a container"
        ),
        "image_id": Feature(
            "bytes", [], "the line's ID or the file's stem, empty if there is none"
        ),
        "image_class": Feature("bytes", [], "name of the class, empty if unknown"),
        "original_width": Feature("int64", [], "of the image before it was resized, pixels"),
        "original_height": Feature("int64", [], "of the image before it was resized, pixels"),
    }
    if metadata:
        features["image_metadata"] = Feature(
            "bytes", [], "the values of --keep_columns, as a JSON object"
        )
    if measures:
        features |= {name: Feature("float32", [], MEANINGS[name]) for name in Measures._fields}
    if encoding == "lab_float32":
        features["image_l"] = Feature("float32", [side, side, 1], "L* / 50 - 1")
        features["image_ab"] = Feature("float32", [side, side, 2], "a* / 127, b* / 127")
    elif encoding == "lab_uint8":
        features["image_l"] = Feature("raw uint8", [side, side, 1], "round(L* * 255 / 100)")
        features["image_ab"] = Feature(
            "raw uint8", [side, side, 2], "round(a* + 128), round(b* + 128)"
        )
    else:
        features["image_png"] = Feature("png", [side, side, 3], "the resized sRGB image, lossless")
    if embedding:
        features["image_embedding"] = Feature(
            "float32", [EMBEDDING_SIZE], "logits of Inception-ResNet-v2 for the grey image"
        )
    return features
