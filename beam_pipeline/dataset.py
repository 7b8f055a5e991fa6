"""The reading API for training code: tf.data, or NumPy arrays without TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from beam_pipeline.dataset_info import DatasetInfo, Statistics
from beam_pipeline.reading import dataset_dir, export_info
from beam_pipeline.reading.numpy_reader import Examples
from beam_pipeline.reading.record_decoder import RecordDecoder

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "DatasetInfo",
    "Examples",
    "RecordDecoder",
    "Statistics",
    "examples",
    "load",
    "read_info",
    "read_statistics",
    "record_decoder",
]

_Path = str | os.PathLike[str]


def load(
    folder: _Path | Sequence[_Path],
    split: str = "train",
    transformed: bool = False,
    exclude: Sequence[str] = (),
) -> tf.data.Dataset:
    """Read a dataset as float32 tensors, several shards at a time.

    The tensors are the same for every encoding. Elements are dictionaries, in the same order each
    time:

    - `image_name`, `image_url`, `image_id`, `image_class`: string scalars; an unknown class is
      empty. `image_metadata`, a JSON object, with `--keep_columns`.
    - `image_label`: int64 scalar, the index of the class among the sorted names of all classes, -1
      if it is unknown. The WordNet IDs of ILSVRC2012 have their usual labels, 0 to 999.
    - `original_width`, `original_height`: int64 scalars, the size before resizing, pixels.
    - `image_l`: float32 (S, S, 1), `L* / 50 - 1`, in [-1, 1].
    - `image_ab`: float32 (S, S, 2), `a*, b*` divided by 127, in (-1, 1).
    - `image_embedding`: float32 (1001,), logits for the grey image; absent if the dataset was made
      without the network.

    `lab_uint8` returns `L*` within 0.2 and `a*, b*` within 0.5 of the encoded values; `rgb_png` is
    within 1e-4 of `lab_float32`.

    Shuffle, batch and feed it to Keras:

        images = dataset.load("data/tfrecords")
        pairs = images.map(
            lambda image: ((image["image_l"], image["image_embedding"]), image["image_ab"])
        )
        model.fit(pairs.shuffle(1000).batch(32).prefetch(tf.data.AUTOTUNE), epochs=10)

    An image takes 1 MB in the shuffle buffer. A shard holds images from a few thousand neighbouring
    lines of the list, in the order of a hash. Shards are read in a fixed pseudo-random order, 16 of
    them interleaved.

    Args:
      folder: The folder of `dataset.json`, a str or a path, on any filesystem that Beam supports;
        or several, whose examples are mixed in proportion to their numbers: a dataset, and what a
        later run made of the images that had failed.
      split: `train` or `validation`.
      transformed: Of one folder: apply the statistics of the training examples (`--statistics`,
        `read_statistics`): `image_embedding` has mean 0 and variance 1 in each dimension, and
        elements have `image_weight`, float32 (S, S, 1), which gives rare colours as much weight as
        frequent ones; its mean over the training pixels is about 1.

      exclude: Examples to leave out, of a dataset with `--near_duplicates`: `"leaks"`, training
        images like a validation image; `"near_duplicates"`, all but the first image of each
        cluster, which is a validation image if it has one.

    Returns:
      A tf.data.Dataset of known cardinality, empty if the split holds no image.

    Raises:
      FileNotFoundError: the folder holds no complete dataset, or no statistics.
      ValueError: there is no such split, `dataset.json` is broken, or what to exclude is unknown.
      tf.errors.InvalidArgumentError, tf.errors.DataLossError: while reading, a shard is broken, or
        holds more or fewer examples than `dataset.json` lists.
    """
    # TensorFlow is optional for users who read NumPy arrays.
    from beam_pipeline.reading import tf_reader

    folders = _open_all(folder, split, exclude)
    if transformed and len(folders) > 1:
        raise ValueError("transformed=True needs one folder, because each has its own statistics")
    return tf_reader.load_all(folders, split, transformed)


def examples(
    folder: _Path | Sequence[_Path], split: str = "train", exclude: Sequence[str] = ()
) -> Examples:
    """Read a dataset as NumPy arrays, importing only NumPy, Pillow, scikit-image and msgspec.

    The elements are those of `load`, as bytes, int, and float32 arrays. Iteration reads shard by
    shard. Random access such as `examples(folder)[7]` reads one record, at the offset in the
    shard's index, `.idx`, also from a gzipped shard. Without an index the shard is searched once,
    on its first use; on an object store it is then read completely.

    The sequence is a map-style dataset for PyTorch's DataLoader, with any number of workers:

        images = dataset.examples("data/tfrecords")
        loader = torch.utils.data.DataLoader(images, batch_size=32, shuffle=True, num_workers=2)
        for batch in loader:
            batch["image_l"]  # tensor, (32, S, S, 1)
            batch["image_ab"]  # tensor, (32, S, S, 2)
            batch["image_embedding"]  # tensor, (32, 1001)

    Checksums of records are not verified, since that needs another library; use
    `python -m beam_pipeline.validate` for that.

    Args:
      folder: The folder of `dataset.json`, a str or a path; Beam is imported for an object store.
        Or several, whose examples follow one another.
      split: `train` or `validation`.
      exclude: As for `load`; it needs pyarrow.

    Returns:
      A sequence of dictionaries.

    Raises:
      FileNotFoundError: the folder holds no complete dataset.
      ValueError: there is no such split, `dataset.json` is broken, or what to exclude is unknown;
        while reading, a shard or
        its index is broken or does not match `dataset.json`.
    """
    return Examples(_open_all(folder, split, exclude), split)


def record_decoder(folder: _Path) -> RecordDecoder:
    """Return a function that decodes the records which another library has read.

    Such as Grain, from an export to ArrayRecord:

        source = grain.sources.ArrayRecordDataSource(sorted(glob("exported/train-*.array_record")))
        decode = dataset.record_decoder("exported")
        images = grain.MapDataset.source(source).shuffle(seed=0).map(decode)

    Args:
      folder: The folder of `dataset.json`, or of `export.json`, a str or a path, on any filesystem
        that Beam supports.

    Returns:
      A function from a serialized tf.train.Example to the dictionary of `examples`. It can be
      pickled.

    Raises:
      FileNotFoundError: the folder holds no complete dataset and no complete export.
      ValueError: `dataset.json` or `export.json` is broken.
    """
    exported = export_info.read(os.fspath(folder))
    return RecordDecoder(exported.dataset if exported else read_info(folder))


def _open_all(
    folder: _Path | Sequence[_Path], split: str, exclude: Sequence[str]
) -> list[dataset_dir.DatasetDir]:
    """Open one or several datasets. Raises ValueError if their examples differ in shape."""
    paths = [folder] if isinstance(folder, (str, os.PathLike)) else list(folder)
    if not paths:
        raise ValueError("No folder is given. Give at least one.")
    exclude = [exclude] if isinstance(exclude, str) else exclude
    first, *others = opened = [dataset_dir.open_dataset_dir(path, split, exclude) for path in paths]
    for other in others:
        for name in ("image_size", "embedding_size"):
            if getattr(other.info, name) != getattr(first.info, name):
                raise ValueError(
                    f"{other.path} has the {name} {getattr(other.info, name)}, but {first.path} "
                    f"has {getattr(first.info, name)}. Read them separately."
                )
    return opened


def read_statistics(folder: _Path) -> Statistics:
    """Read the statistics of the training examples that `--statistics` has written.

    Args:
      folder: The folder of `dataset.json`, a str or a path, on a disk or `gs://`.

    Returns:
      Mean and variance of `L*, a*, b*` and of the embedding, and the frequency of colours.

    Raises:
      FileNotFoundError: the folder holds no complete dataset, or no statistics.
      ValueError: `dataset.json` is broken, or TensorFlow cannot read the folder.
    """
    # TensorFlow is optional for users who read NumPy arrays.
    from beam_pipeline.reading import statistics

    return statistics.read(dataset_dir.open_dataset_dir(folder))


def read_info(folder: _Path) -> DatasetInfo:
    """Read the description of a dataset: `dataset.json`, typed.

        info = dataset.read_info("data/tfrecords")
        print(info.counts.examples, info.embedding_size, info.options["resize"])

    Args:
      folder: The folder of `dataset.json`, a str or a path, on any filesystem that Beam supports.

    Raises:
      FileNotFoundError: the folder holds no complete dataset.
      ValueError: `dataset.json` is broken or of another format version.
    """
    return dataset_dir.open_dataset_dir(folder).info
