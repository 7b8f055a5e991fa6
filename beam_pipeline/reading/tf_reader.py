"""A finished folder -> tf.data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from beam_pipeline import quiet
from beam_pipeline.images import lab_color
from beam_pipeline.reading.dataset_dir import Folder, is_local, open_file
from beam_pipeline.records import tfrecord

with quiet.silent_imports():
    import tensorflow as tf

_DTYPES = {"float32": tf.float32, "int64": tf.int64}


def load(folder: Folder, split: str, transformed: bool) -> tf.data.Dataset:
    """The examples of a split, as `dataset.load` gives them, several shards at a time."""
    spec, description = feature_spec(folder.description), folder.description

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        return decode_planes(tf.io.parse_single_example(record, spec), description)

    examples = read_records(folder, split)
    if not transformed:
        return examples.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    from beam_pipeline.transforms import analyze_examples

    transform = analyze_examples.load_transform(folder)
    return examples.map(lambda record: transform(tf.io.parse_single_example(record, spec)), num_parallel_calls=tf.data.AUTOTUNE)


def read_records(folder: Folder, split: str) -> tf.data.Dataset:
    """The serialized examples of a split, in an order that is the same each time.

    A shard that holds more or fewer than `dataset.json` lists raises InvalidArgumentError, which names it, at its end.
    """
    shards = folder.shards(split)
    random.Random(0).shuffle(shards)
    # TensorFlow knows local files, Beam the object stores too.
    read = _read_local if is_local(folder.path) else _read_anywhere
    paths = tf.constant([shard.path for shard in shards], tf.string)
    examples = tf.constant([shard.examples for shard in shards], tf.int64)
    return tf.data.Dataset.from_tensor_slices((paths, examples)).interleave(
        lambda path, number: _check_count(read(path, folder.is_packed), path, number),
        cycle_length=min(16, max(1, len(shards))),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _check_count(records: tf.data.Dataset, path: tf.Tensor, expected: tf.Tensor) -> tf.data.Dataset:
    """The records of a shard; raises at their end unless they were as many as expected."""
    end = tf.data.Dataset.from_tensors((True, b""))
    marked = records.map(lambda record: (False, record)).concatenate(end).enumerate()

    def is_record(number: tf.Tensor, marker: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        def check() -> tf.Tensor:
            message = tf.strings.join([path, " holds ", tf.as_string(number), " examples, not ", tf.as_string(expected)])
            with tf.control_dependencies([tf.debugging.Assert(number == expected, [message], summarize=-1)]):
                return tf.constant(False)

        return tf.cond(marker[0], check, lambda: tf.constant(True))

    return marked.filter(is_record).map(lambda number, marker: marker[1])


def _read_local(path: tf.Tensor, packed: bool) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(path, compression_type="GZIP" if packed else "")


def _read_anywhere(path: tf.Tensor, packed: bool) -> tf.data.Dataset:
    record = tf.TensorSpec((), tf.string)
    return tf.data.Dataset.from_generator(_records, args=(path, packed), output_signature=record)


def _records(path: bytes, packed: bool) -> Iterator[bytes]:
    with open_file(path.decode(), packed) as file:
        yield from tfrecord.read_records(file, path.decode())


def feature_spec(description: dict[str, Any]) -> dict[str, tf.io.FixedLenFeature]:
    """What `tf.io.parse_example` needs for the records that a `dataset.json` describes.

    float32 and int64 are lists of numbers; all else, a raw array too, is one bytes value.
    """
    features = description["features"]
    return {
        name: tf.io.FixedLenFeature(
            feature["shape"] if feature["dtype"] in _DTYPES else [], _DTYPES.get(feature["dtype"], tf.string)
        )
        for name, feature in features.items()
    }


def decode_planes(values: dict[str, tf.Tensor], description: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Turns what records hold into the tensors that `dataset.load` gives.

    Args:
      values: Parsed by `feature_spec`, of one example or of a batch.
      description: What the dataset's `dataset.json` holds.
    """
    features, encoding = description["features"], description["encoding"]
    tensors = {name: value for name, value in values.items() if features[name]["dtype"] in ("bytes", *_DTYPES)}
    if encoding == "lab_uint8":
        l, ab = (tf.cast(_decode_raw(values[name], features[name]["shape"]), tf.float32) for name in ("image_l", "image_ab"))
        return {**tensors, "image_l": l / 127.5 - 1, "image_ab": (ab - 128) / 127}
    if encoding == "rgb_png":
        lab = rgb_to_lab(_decode_png(values["image_png"], features["image_png"]["shape"]))
        return {**tensors, "image_l": tf.clip_by_value(lab[..., :1] / 50 - 1, -1, 1), "image_ab": lab[..., 1:] / 127}
    return tensors


def _decode_raw(data: tf.Tensor, shape: list[int]) -> tf.Tensor:
    values = tf.reshape(tf.io.decode_raw(data, tf.uint8), tf.concat([tf.shape(data), shape], 0))
    return tf.ensure_shape(values, [*data.shape, *shape])


def _decode_png(data: tf.Tensor, shape: list[int]) -> tf.Tensor:
    if data.shape.rank:
        return tf.map_fn(lambda one: _decode_png(one, shape), data, fn_output_signature=tf.TensorSpec(shape, tf.uint8))
    return tf.ensure_shape(tf.io.decode_png(data, channels=3), shape)


def rgb_to_lab(pixels: tf.Tensor) -> tf.Tensor:
    """`color.rgb_to_lab` in TensorFlow, for graphs: uint8 (..., 3) to float32 (..., 3).

    IEC 61966-2-1 to linear RGB, its primaries to XYZ, and CIE 15 to L*a*b*, with scikit-image's constants.
    """
    xyz = tf.tensordot(tf.gather(lab_color.LINEAR, tf.cast(pixels, tf.int32)), lab_color.TO_XYZ, 1)
    f = tf.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = tf.unstack(f, axis=-1)
    return tf.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
