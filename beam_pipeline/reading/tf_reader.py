"""Reads a dataset with tf.data."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from beam_pipeline import naming
from beam_pipeline.process import native_output
from beam_pipeline.reading import class_labels, statistics
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.records import tf_decode, tfrecord
from beam_pipeline.storage import any_path
from beam_pipeline.storage.any_path import is_local, open_file

with native_output.suppress_stderr():
    import tensorflow as tf


def load_all(folders: Sequence[DatasetDir], split: str, transformed: bool) -> tf.data.Dataset:
    """Return the examples of a split of several datasets, mixed in proportion to their numbers."""
    numbers = [sum(shard.kept for shard in folder.shards(split)) for folder in folders]
    labels = class_labels.label_classes(name for folder in folders for name in folder.info.classes)
    loaded = [load(folder, split, transformed, labels) for folder in folders]
    mixed, total = loaded[0], sum(numbers)
    if len(loaded) > 1 and total:
        mixed = tf.data.Dataset.sample_from_datasets(
            loaded,
            weights=[number / total for number in numbers],
            seed=0,
            stop_on_empty_dataset=False,
            rerandomize_each_iteration=False,
        )
    return mixed.apply(tf.data.experimental.assert_cardinality(total))


def load(
    folder: DatasetDir, split: str, transformed: bool, labels: Mapping[str, int]
) -> tf.data.Dataset:
    """Return the examples of a split, as `dataset.load` does; several shards are read at a time.

    Args:
      folder: The dataset.
      split: Name of the split.
      transformed: Whether to apply the dataset's `transform/`.
      labels: The label of each class.
    """
    features, encoding = folder.info.features, folder.info.encoding
    spec = tf_decode.feature_spec(features)

    table = _label_table(labels)
    transform = statistics.load_transform(folder) if transformed else None

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.io.parse_single_example(record, spec)
        decoded = (
            transform(values) if transform else tf_decode.decode_planes(values, features, encoding)
        )
        return {**decoded, "image_label": table.lookup(values["image_class"])}

    return read_records(folder, split).map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def _label_table(labels: Mapping[str, int]) -> tf.lookup.StaticHashTable:
    keys, values = list(labels), list(labels.values())
    initializer = tf.lookup.KeyValueTensorInitializer(keys, values, tf.string, tf.int64)
    return tf.lookup.StaticHashTable(initializer, default_value=-1)


def read_records(folder: DatasetDir, split: str) -> tf.data.Dataset:
    """Return the serialized examples of a split, in an order that is the same each time.

    Excluded ones are left out.

    At the end of a shard that holds fewer examples than `dataset.json` lists, or the first one too
    many, iteration raises InvalidArgumentError, which names the shard.

    Raises:
      ValueError: A shard, which the message names, is missing or has another size than
        `dataset.json` lists.
    """
    shards = folder.shards(split)
    sizes = any_path.list_files(folder.path)
    for shard in shards:
        if sizes.get(shard.name) != shard.bytes:
            raise ValueError(
                f"{shard.path} has {sizes.get(shard.name, 'no')} bytes, "
                f"{naming.DATASET_INFO} lists {shard.bytes}"
            )
    random.Random(0).shuffle(shards)
    # TensorFlow reads local files; Beam also reads object stores.
    read = _read_local if is_local(folder.path) else _read_anywhere
    paths = tf.constant([shard.path for shard in shards], tf.string)
    examples = tf.constant([shard.examples for shard in shards], tf.int64)
    excluded = tf.ragged.constant([shard.excluded for shard in shards], tf.int64, ragged_rank=1)
    return tf.data.Dataset.from_tensor_slices((paths, examples, excluded)).interleave(
        lambda path, number, indices: _leave_out(
            _check_count(read(path, folder.is_compressed), path, number), indices
        ),
        cycle_length=min(16, max(1, len(shards))),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _leave_out(records: tf.data.Dataset, indices: tf.Tensor) -> tf.data.Dataset:
    numbered = records.enumerate()
    kept = numbered.filter(lambda index, record: tf.reduce_all(indices != index))
    return kept.map(lambda index, record: record)


def _check_count(records: tf.data.Dataset, path: tf.Tensor, expected: tf.Tensor) -> tf.data.Dataset:
    """Return the records of a shard; raise unless their number is the expected one."""
    end = tf.data.Dataset.from_tensors((True, b""))
    marked = records.map(lambda record: (False, record)).concatenate(end).enumerate()

    def is_record(number: tf.Tensor, marker: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        is_end, _ = marker
        # Without a record too many, the end is the expected one.
        is_right = tf.where(is_end, number == expected, number < expected)
        found = tf.where(is_end, tf.as_string(number), tf.constant("more"))
        message = tf.strings.join(
            [path, " holds ", found, " examples, not ", tf.as_string(expected)]
        )
        with tf.control_dependencies([tf.debugging.Assert(is_right, [message], summarize=-1)]):
            return tf.logical_not(is_end)

    return marked.filter(is_record).map(lambda number, marker: marker[1])


def _read_local(path: tf.Tensor, compressed: bool) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(path, compression_type="GZIP" if compressed else "")


def _read_anywhere(path: tf.Tensor, compressed: bool) -> tf.data.Dataset:
    record = tf.TensorSpec((), tf.string)
    return tf.data.Dataset.from_generator(
        _records, args=(path, compressed), output_signature=record
    )


def _records(path: bytes, compressed: bool) -> Iterator[bytes]:
    with open_file(path.decode(), compressed) as file:
        yield from tfrecord.read_records(file, path.decode())
