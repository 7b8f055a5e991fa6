"""Measure writing and reading the records of a dataset, in a process of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from beam_pipeline.records import tf_decode

ROUNDS, REPEATS = 3, 2


def read(folder: str) -> None:
    """Print, as JSON, the rates of `dataset.load` and of a reader that only parses.

    The unit is examples per second. The processor milliseconds per example of `dataset.load` are
    printed too.
    """
    import tensorflow as tf

    from beam_pipeline import dataset

    info = dataset.read_info(folder)
    paths = [f"{folder}/{file.name}" for file in info.files]
    compression = "GZIP" if info.compression == "gzip" else ""
    spec = tf_decode.feature_spec(info.features)

    def bare() -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(
            paths, compression_type=compression, num_parallel_reads=min(16, len(paths))
        )
        return records.map(
            lambda record: tf.io.parse_single_example(record, spec),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    readers = {
        name: images.repeat(REPEATS).prefetch(tf.data.AUTOTUNE)
        for name, images in (("load", dataset.load(folder)), ("bare", bare()))
    }
    rates: dict[str, list[float]] = {"load": [], "bare": [], "milliseconds": []}
    for _ in range(ROUNDS + 1):
        for name, images in readers.items():
            began, processor = time.monotonic(), time.process_time()
            number = sum(1 for _ in images)
            assert number == REPEATS * info.counts.examples
            rates[name].append(number / (time.monotonic() - began))
            if name == "load":
                rates["milliseconds"].append((time.process_time() - processor) / number * 1000)
    print(json.dumps({name: sorted(values[1:])[ROUNDS // 2] for name, values in rates.items()}))


def read_at_random(folder: str) -> None:
    """Print the rate of `examples[i]` in a random order, in examples per second."""
    import numpy as np

    from beam_pipeline import dataset

    examples = dataset.examples(folder)
    order = np.random.default_rng(0).integers(0, len(examples), 2 * len(examples))
    rates = []
    for _ in range(ROUNDS + 1):
        began = time.monotonic()
        for index in order:
            examples[int(index)]
        rates.append(len(order) / (time.monotonic() - began))
    print(sorted(rates[1:])[ROUNDS // 2])


def write(encoding: str, compression: str, folder: str) -> None:
    """Print the processor milliseconds that it takes to encode and write an image.

    The record is written as the job's sink writes it.
    """
    from beam_pipeline.config import Config
    from beam_pipeline.elements import EmbeddedImage, ImageRef, RgbImage
    from beam_pipeline.images import decoding
    from beam_pipeline.transforms import write_shards
    from beam_pipeline.transforms.encode_examples import encode_example
    from benchmarks import photographs

    ref = ImageRef("n00000000_0", "http://example.org/photograph.jpg")
    photos = photographs.make_photographs()
    pictures = [
        EmbeddedImage(RgbImage(ref, *decoding.decode(data, 299, "pad", 10**8)), None)
        for data in photos
    ]
    options: dict[str, Any] = {"encoding": encoding, "compression": compression}
    config = Config(input="urls.txt", output=folder, checkpoint="none", **options)
    sink = write_shards.ExampleSink(str(Path(folder) / "written"), compression, 10**6, folder)
    rounds = []
    for _ in range(5):
        path = Path(folder) / f"written-{time.monotonic_ns()}"
        began = time.process_time()
        file = sink.open(str(path))
        for image in pictures:
            sink.write_record(file, encode_example(image, config, None).stored)
        sink.close(file)
        rounds.append((time.process_time() - began) / len(pictures) * 1000)
        path.unlink()
    print(sorted(rounds)[2])
