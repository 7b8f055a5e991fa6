"""EmbeddedImage -> serialized tf.train.Example, for each encoding, and what a dataset's features are. Pure.

A record is 1 MB of packed floats, which on the wire are plain little-endian bytes. The protobuf library takes 20 ms to
put them there one by one; copying them takes a fraction of one, so the few bytes around them are written here. The format:
https://protobuf.dev/programming-guides/encoding and tensorflow/core/example/{example,feature}.proto.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from beam_pipeline import color
from beam_pipeline.elements import EmbeddedImage

EMBEDDING_SIZE = 1001
# In photographs little repeats but runs: looking for those alone takes fewer bytes than zlib's level 1, and less time.
PNG_COMPRESSION = zlib.Z_RLE

# The field numbers of Feature.
_BYTES_LIST, _FLOAT_LIST = 1, 2


def encode_example(image: EmbeddedImage, encoding: str) -> bytes:
    """Serializes an image as a tf.train.Example with the features that `describe_features` lists.

    Args:
      image: Of any size.
      encoding: `lab_float32`, `lab_uint8` or `rgb_png`.
    """
    ref = image.ref
    features = [
        _feature("image_name", _BYTES_LIST, ref.name.encode()),
        _feature("image_url", _BYTES_LIST, ref.url.encode(errors="surrogateescape")),
        _feature("image_id", _BYTES_LIST, ref.id.encode()),
    ]
    if encoding == "rgb_png":
        features.append(_feature("image_png", _BYTES_LIST, encode_png(image.image.pixels)))
    else:
        scale, kind = (color.scale_lab, _FLOAT_LIST) if encoding == "lab_float32" else (color.quantize_lab, _BYTES_LIST)
        l, ab = scale(color.rgb_to_lab(image.image.pixels))
        features += [_feature("image_l", kind, l), _feature("image_ab", kind, ab)]
    if image.embedding is not None:
        features.append(_feature("image_embedding", _FLOAT_LIST, image.embedding))
    return b"".join(_message(1, [part for feature in features for part in feature]))


def encode_png(pixels: np.ndarray, **notes: str) -> bytes:
    """Encodes pixels, uint8 (H, W, 3), as a PNG, with notes as its text."""
    file, text = io.BytesIO(), PngImagePlugin.PngInfo()
    for name, note in notes.items():
        text.add_text(name, note)
    Image.fromarray(pixels).save(file, "PNG", compress_type=PNG_COMPRESSION, pnginfo=text)
    return file.getvalue()


def describe_features(encoding: str, image_size: int, embedding: bool) -> dict[str, dict[str, Any]]:
    """What a record holds: name -> `dtype`, `shape` and `meaning`, as it stands in `dataset.json`.

    A raw uint8 plane is one bytes value; `dtype` and `shape` are those of the array inside it.
    """
    side = image_size
    features: dict[str, dict[str, Any]] = {
        "image_name": {"dtype": "bytes", "shape": [], "meaning": "md5(image_url).jpeg"},
        "image_url": {"dtype": "bytes", "shape": [], "meaning": "the line's URL, or the file's path"},
        "image_id": {"dtype": "bytes", "shape": [], "meaning": "the line's ID, empty if it had none"},
    }
    if encoding == "lab_float32":
        features["image_l"] = {"dtype": "float32", "shape": [side, side, 1], "meaning": "L* / 50 - 1"}
        features["image_ab"] = {"dtype": "float32", "shape": [side, side, 2], "meaning": "a* / 127, b* / 127"}
    elif encoding == "lab_uint8":
        features["image_l"] = {"dtype": "raw uint8", "shape": [side, side, 1], "meaning": "round(L* * 255 / 100)"}
        features["image_ab"] = {"dtype": "raw uint8", "shape": [side, side, 2], "meaning": "round(a* + 128), round(b* + 128)"}
    else:
        features["image_png"] = {"dtype": "png", "shape": [side, side, 3], "meaning": "the resized sRGB image, lossless"}
    if embedding:
        features["image_embedding"] = {
            "dtype": "float32",
            "shape": [EMBEDDING_SIZE],
            "meaning": "logits of Inception-ResNet-v2 for the grey image",
        }
    return features


def _feature(name: str, kind: int, value: bytes | memoryview | np.ndarray) -> Iterable[bytes | memoryview]:
    """An entry of `Features.feature`: {1: name, 2: Feature {kind: {1: value}}}."""
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).data.cast("B")
    entry = [*_message(1, [name.encode()]), *_message(2, _message(kind, _message(1, [value])))]
    return _message(1, entry)


def _message(field: int, parts: Iterable[bytes | memoryview]) -> list[bytes | memoryview]:
    """A length-delimited field, in parts that are joined only once."""
    parts = list(parts)
    return [bytes([field << 3 | 2]), _varint(sum(map(len, parts))), *parts]


def _varint(number: int) -> bytes:
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
