"""Measure the network alone, in a process of its own: its rate and its start-up time."""

from __future__ import annotations

import io
import itertools
import json
import time

BATCH = 32


def bare(precision: str, batches: str, size: str = str(BATCH)) -> None:
    """Print the images per second of the `tf.function` on batches of photographs."""
    import numpy as np
    from PIL import Image

    from beam_pipeline.config import NETWORK_SIZE
    from beam_pipeline.embedding.inception_resnet_v2 import load_network
    from benchmarks import photographs

    network = load_network("untrained", precision)
    files = itertools.islice(itertools.cycle(photographs.make_photographs()), int(size))
    pixels = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(data)).resize((NETWORK_SIZE, NETWORK_SIZE)))
            for data in files
        ]
    )
    network.embed(pixels)
    began = time.monotonic()
    for _ in range(int(batches)):
        network.embed(pixels)
    print(int(batches) * int(size) / (time.monotonic() - began))


def start(checkpoint: str, began: str) -> None:
    """Print, as JSON, the seconds from `began` to each step of the start-up.

    The steps are: modules imported, weights loaded, first batch done.
    """
    import apache_beam  # noqa: F401
    import numpy as np
    import tensorflow as tf  # noqa: F401

    from beam_pipeline import config
    from beam_pipeline.embedding import inception_resnet_v2

    seconds = {"imported": time.monotonic() - float(began)}
    network = inception_resnet_v2.Network(checkpoint, "float32")
    seconds["filled"] = time.monotonic() - float(began)
    network.embed(np.zeros((1, config.NETWORK_SIZE, config.NETWORK_SIZE, 3), np.uint8))
    print(json.dumps({**seconds, "ready": time.monotonic() - float(began)}))


def compare_precisions() -> None:
    """Print, as JSON, the errors of bfloat16 logits of photographs against float32."""
    import numpy as np
    from PIL import Image

    from beam_pipeline.config import NETWORK_SIZE
    from beam_pipeline.embedding.inception_resnet_v2 import load_network
    from benchmarks import photographs

    files = photographs.make_photographs()
    pixels = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(data)).resize((NETWORK_SIZE, NETWORK_SIZE)))
            for data in files
        ]
    )
    exact, near = (
        load_network("untrained", precision).embed(pixels) for precision in ("float32", "bfloat16")
    )
    errors = np.abs(near - exact)
    # The part that all images share carries no information about an image.
    own, other = exact - exact.mean(0), near - near.mean(0)
    cosines = (own * other).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(other, axis=1)
    reported = {
        "largest": errors.max(),
        "mean": errors.mean(),
        "deviation": exact.std(0).mean(),
        "cosine": cosines.min(),
    }
    print(json.dumps({name: float(value) for name, value in reported.items()}))
