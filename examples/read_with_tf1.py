"""Read a dataset by the rules of deep-koalarization's trainer, with the API of TensorFlow 1.

    python -m beam_pipeline.run --images photos --output data/koalarization --image_size 224
    python -m examples.read_with_tf1 data/koalarization

The trainer reads the glob `lab_images_*.tfrecord`, for validation `val_lab_images_*.tfrecord`, with
queues: `image_name`, a string, and three lists of floats, `image_l` (224, 224, 1), `image_ab`
(224, 224, 2) and `image_embedding` (1001,).
"""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow.compat.v1 as tf

SIDE = 224  # the trainer knows no other size
PREFIXES = {"train": "lab_images_", "validation": "val_lab_images_"}


def read_one(folder: str, split: str) -> dict[str, tf.Tensor]:
    """Add the reading of one example to the graph; it ends after each example was read once.

    Raises:
      FileNotFoundError: The folder has no shards of the split.
    """
    pattern = os.path.join(folder, f"{PREFIXES[split]}*.tfrecord")
    files = sorted(glob.glob(pattern))
    if not files:
        raise FileNotFoundError(f"{pattern} matches no file: the dataset is missing or gzipped")
    queue = tf.train.string_input_producer(files, num_epochs=1, shuffle=False)
    _, record = tf.TFRecordReader().read(queue)
    example = tf.parse_single_example(
        record,
        {
            "image_name": tf.FixedLenFeature([], tf.string),
            "image_l": tf.FixedLenFeature([SIDE * SIDE], tf.float32),
            "image_ab": tf.FixedLenFeature([SIDE * SIDE * 2], tf.float32),
            "image_embedding": tf.FixedLenFeature([1001], tf.float32),
        },
    )
    example["image_l"] = tf.reshape(example["image_l"], [SIDE, SIDE, 1])
    example["image_ab"] = tf.reshape(example["image_ab"], [SIDE, SIDE, 2])
    return example


def batches(folder: str, split: str, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the examples of a split in batches; the last may be smaller."""
    with tf.Graph().as_default(), tf.Session() as session:
        batch = tf.train.batch(read_one(folder, split), batch_size, allow_smaller_final_batch=True)
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        coordinator = tf.train.Coordinator()
        threads = tf.train.start_queue_runners(session, coordinator)
        try:
            while True:
                yield session.run(batch)
        except tf.errors.OutOfRangeError:
            pass
        finally:
            coordinator.request_stop()
            coordinator.join(threads)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "dataset", metavar="DATASET", help="a complete folder, made with --image_size 224"
    )
    parser.add_argument("--split", default="train", choices=sorted(PREFIXES))
    parser.add_argument(
        "--batch_size", type=int, default=10, help="images in a batch (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    try:
        for batch in batches(options.dataset, options.split, options.batch_size):
            print(", ".join(f"{name} {value.shape}" for name, value in batch.items()))
    except (FileNotFoundError, tf.errors.InvalidArgumentError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
