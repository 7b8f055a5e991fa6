"""A finished dataset folder -> tf.data."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

from apache_beam.io.filesystems import FileSystems

from beam_pipeline import books, color, files, quiet, tfrecords

with quiet.silent_imports():
    import tensorflow as tf

_TEXTS = ("image_name", "image_url", "image_id")


def load(folder: str | os.PathLike[str], split: str = "train") -> tf.data.Dataset:
    """Reads a dataset, several shards at a time, as the same float32 tensors whatever its encoding is.

    Elements are dictionaries, in an order that is the same each time:

    - `image_name`, `image_url`, `image_id`: string scalars.
    - `image_l`: float32 (S, S, 1), `L* / 50 - 1`, in [-1, 1].
    - `image_ab`: float32 (S, S, 2), `a*, b*` divided by 127, in (-1, 1).
    - `image_embedding`: float32 (1001,), logits for the grey image; not there if the dataset was made without the network.

    `lab_uint8` gives L* within 0.2 and a*, b* within 0.5 of what was encoded; `rgb_png` is within 1e-4 of `lab_float32`.

    Shuffle, batch and feed it to Keras:

        images = dataset.load("data/tfrecords")
        pairs = images.map(lambda image: ((image["image_l"], image["image_embedding"]), image["image_ab"]))
        model.fit(pairs.shuffle(1000).batch(32).prefetch(tf.data.AUTOTUNE), epochs=10)

    An image takes 1 MB in the shuffle buffer. A shard holds images from a few thousand neighbouring lines of the list, in the
    order of a hash; shards are read in a random order that is the same each time, 16 at a time in turns.

    Args:
      folder: Where `dataset.json` lies, a str or a path, on any filesystem that Beam knows.
      split: `train` or `validation`.

    Returns:
      A tf.data.Dataset, empty if the split holds no image.

    Raises:
      FileNotFoundError: the folder holds no finished dataset.
      ValueError: there is no such split.
    """
    folder = os.fspath(folder)
    description = books.read_description(folder)
    if description is None:
        raise FileNotFoundError(f"{FileSystems.join(folder, books.DESCRIPTION)} is not there: no run has ended in this folder")
    if split not in ("train", "validation"):
        raise ValueError(f"split {split!r} is not known: it is train or validation")
    paths = [FileSystems.join(folder, file["name"]) for file in description["files"] if file["split"] == split]
    random.Random(0).shuffle(paths)
    packed = description["options"]["compression"] == "gzip"
    # TensorFlow knows local files, Beam the object stores too.
    read = _read_anywhere if FileSystems.get_scheme(folder) else _read_local
    shards = tf.data.Dataset.from_tensor_slices(tf.constant(paths, tf.string)).interleave(
        lambda path: read(path, packed),
        cycle_length=min(16, max(1, len(paths))),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return shards.map(lambda record: parse_example(record, description), num_parallel_calls=tf.data.AUTOTUNE)


def _read_local(path: tf.Tensor, packed: bool) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(path, compression_type="GZIP" if packed else "")


def _read_anywhere(path: tf.Tensor, packed: bool) -> tf.data.Dataset:
    record = tf.TensorSpec((), tf.string)
    return tf.data.Dataset.from_generator(_records, args=(path, packed), output_signature=record)


def _records(path: bytes, packed: bool) -> Iterator[bytes]:
    with files.open_file(path.decode(), packed) as file:
        yield from tfrecords.read_records(file, path.decode())


def parse_example(record: tf.Tensor, description: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Parses one serialized example into the tensors that `load` gives.

    Args:
      record: A string scalar.
      description: What the dataset's `dataset.json` holds.
    """
    features = description["features"]
    # A float32 array is a list of floats; all else, a raw array too, is one bytes value.
    spec = {
        name: tf.io.FixedLenFeature(feature["shape"], tf.float32)
        if feature["dtype"] == "float32"
        else tf.io.FixedLenFeature([], tf.string)
        for name, feature in features.items()
    }
    values = tf.io.parse_single_example(record, spec)
    tensors = {name: values[name] for name in (*_TEXTS, "image_embedding") if name in values}
    if description["encoding"] == "lab_float32":
        return {**tensors, "image_l": values["image_l"], "image_ab": values["image_ab"]}
    if description["encoding"] == "lab_uint8":
        l, ab = (
            tf.cast(tf.reshape(tf.io.decode_raw(values[name], tf.uint8), features[name]["shape"]), tf.float32)
            for name in ("image_l", "image_ab")
        )
        return {**tensors, "image_l": l / 127.5 - 1, "image_ab": (ab - 128) / 127}
    pixels = tf.ensure_shape(tf.io.decode_png(values["image_png"], channels=3), features["image_png"]["shape"])
    lab = rgb_to_lab(pixels)
    return {**tensors, "image_l": tf.clip_by_value(lab[..., :1] / 50 - 1, -1, 1), "image_ab": lab[..., 1:] / 127}


def rgb_to_lab(pixels: tf.Tensor) -> tf.Tensor:
    """`color.rgb_to_lab` in TensorFlow, for graphs: uint8 (..., 3) to float32 (..., 3).

    IEC 61966-2-1 to linear RGB, its primaries to XYZ, and CIE 15 to L*a*b*, with scikit-image's constants.
    """
    xyz = tf.tensordot(tf.gather(color.LINEAR, tf.cast(pixels, tf.int32)), color.TO_XYZ, 1)
    f = tf.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = tf.unstack(f, axis=-1)
    return tf.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
