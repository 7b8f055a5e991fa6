"""Writing and reading the records of a dataset, for programs of their own."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

ROUNDS = 3


def read(folder: str) -> None:
    """Prints, as JSON, examples a second of `dataset.load` and of one that only parses, and the former's processor ms."""
    import tensorflow as tf

    from beam_pipeline import books, dataset

    description = books.read_description(folder)
    assert description
    paths = [f"{folder}/{file['name']}" for file in description["files"]]
    packed = "GZIP" if description["options"]["compression"] == "gzip" else ""
    spec = {
        name: tf.io.FixedLenFeature(feature["shape"], tf.float32)
        if feature["dtype"] == "float32"
        else tf.io.FixedLenFeature([], tf.string)
        for name, feature in description["features"].items()
    }

    def bare() -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(paths, compression_type=packed, num_parallel_reads=min(16, len(paths)))
        return records.map(lambda record: tf.io.parse_single_example(record, spec), num_parallel_calls=tf.data.AUTOTUNE)

    rates: dict[str, list[float]] = {"load": [], "bare": [], "milliseconds": []}
    for _ in range(ROUNDS + 1):
        for name, make in (("load", lambda: dataset.load(folder)), ("bare", bare)):
            began, processor = time.monotonic(), time.process_time()
            number = sum(1 for _ in make().prefetch(tf.data.AUTOTUNE))
            assert number == description["counts"]["examples"]
            rates[name].append(number / (time.monotonic() - began))
            if name == "load":
                rates["milliseconds"].append((time.process_time() - processor) / number * 1000)
    print(json.dumps({name: sorted(values[1:])[ROUNDS // 2] for name, values in rates.items()}))


def write(encoding: str, compression: str, folder: str) -> None:
    """Prints the processor milliseconds in which an image is encoded, and its record written as the job's sink does."""
    import numpy as np
    from PIL import Image

    from beam_pipeline import records, sinks
    from beam_pipeline.elements import EmbeddedImage, ImageRef, RgbImage
    from benchmarks import photographs

    ref = ImageRef("n00000000_0", "http://example.org/photograph.jpg")
    pictures = [np.asarray(Image.open(io.BytesIO(data)).resize((299, 299))) for data in photographs.make_photographs()]
    embedding = np.random.default_rng(0).standard_normal(records.EMBEDDING_SIZE, np.float32)
    images = [EmbeddedImage(RgbImage(ref, picture), embedding) for picture in pictures]
    sink = sinks.WriteExamples(str(Path(folder) / "written"), compression, 10**6)._sink
    rounds = []
    for _ in range(5):
        path = Path(folder) / f"written-{time.monotonic_ns()}"
        began = time.process_time()
        file = sink.open(str(path))
        for image in images:
            sink.write_record(file, records.encode_example(image, encoding))
        sink.close(file)
        rounds.append((time.process_time() - began) / len(images) * 1000)
        path.unlink()
    print(sorted(rounds)[2])
