"""What training code calls: a finished folder as tf.data, or as NumPy arrays without TensorFlow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from beam_pipeline.reading import dataset_dir
from beam_pipeline.reading.numpy_reader import Examples

if TYPE_CHECKING:
    import tensorflow as tf

    from beam_pipeline.reading.statistics import Statistics

__all__ = ["Examples", "examples", "load", "read_statistics"]


def load(folder: str | os.PathLike[str], split: str = "train", transformed: bool = False) -> tf.data.Dataset:
    """Reads a dataset, several shards at a time, as the same float32 tensors whatever its encoding is.

    Elements are dictionaries, in an order that is the same each time:

    - `image_name`, `image_url`, `image_id`: string scalars.
    - `original_width`, `original_height`: int64 scalars, of the image before it was resized, pixels.
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
      transformed: Apply what the run has learnt of the training examples (`--statistics`, `read_statistics`): `image_embedding` has
        mean 0 and variance 1 in each dimension, and there is `image_weight`, float32 (S, S, 1), which gives rare colours as much
        weight as frequent ones; its mean over the training pixels is about 1.

    Returns:
      A tf.data.Dataset, empty if the split holds no image.

    Raises:
      FileNotFoundError: the folder holds no finished dataset, or no statistics.
      ValueError: there is no such split, or `dataset.json` is broken.
      tf.errors.InvalidArgumentError, tf.errors.DataLossError: while reading, a shard is broken, or holds more or fewer examples
        than `dataset.json` lists.
    """
    # Whoever reads NumPy arrays need not have it.
    from beam_pipeline.reading import tf_reader

    return tf_reader.load(dataset_dir.open_dataset_dir(folder, split), split, transformed)


def examples(folder: str | os.PathLike[str], split: str = "train") -> Examples:
    """Reads a dataset as NumPy arrays; nothing but NumPy, Pillow and scikit-image is imported.

    Gives a sequence of dictionaries with what `load` gives, as NumPy has it: bytes, int, and float32 arrays. Iterating reads shard
    by shard. `examples(folder)[7]` finds the example by an index of its shard, which is built when the first example of that shard
    is asked for, and read past without reading its images; a shard with gzip is unpacked up to the example each time, and one on an
    object store is read through once for its index.

    It is a dataset as PyTorch's DataLoader takes it, with any number of workers:

        images = dataset.examples("data/tfrecords")
        for batch in torch.utils.data.DataLoader(images, batch_size=32, shuffle=True, num_workers=2):
            batch["image_l"], batch["image_ab"], batch["image_embedding"]  # tensors, (32, S, S, 1), (32, S, S, 2), (32, 1001)

    Checksums are not looked at, as that needs another library: `python -m beam_pipeline.validate` does.

    Args:
      folder: Where `dataset.json` lies, a str or a path; on an object store Beam is imported.
      split: `train` or `validation`.

    Raises:
      FileNotFoundError: the folder holds no finished dataset.
      ValueError: there is no such split, or `dataset.json` is broken; while reading, what a shard holds is not what it should.
    """
    return Examples(dataset_dir.open_dataset_dir(folder, split), split)


def read_statistics(folder: str | os.PathLike[str]) -> Statistics:
    """Read what `--statistics` has learned of the training examples.

    Args:
      folder: Where `dataset.json` lies, a str or a path, on a disk or `gs://`.

    Returns:
      Mean and variance of L*, a*, b* and of the embedding, and the frequency of colours.

    Raises:
      FileNotFoundError: the folder holds no finished dataset, or no statistics.
      ValueError: `dataset.json` is broken, or TensorFlow cannot read the folder.
    """
    # Whoever reads NumPy arrays need not have TensorFlow.
    from beam_pipeline.reading import statistics

    return statistics.read(dataset_dir.open_dataset_dir(folder))
