"""Train a small colorizer on a complete dataset for a few steps, and color a few images.

    make run
    python -m examples.train_colorizer data/sample --output data/pictures

The network is a small version of deep-koalarization (https://arxiv.org/abs/1712.03400). An encoder
reads the lightness. Its features are joined, at each position, with the embedding of the complete
image. A decoder predicts a* and b* from both. A few steps on a few images show that the parts fit
together; good colours need trained embeddings, thousands of images and hours.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import keras
import numpy as np
import skimage.color
import tensorflow as tf
from PIL import Image

from beam_pipeline import dataset

SIDE = 224  # divisible by 8, the factor by which the encoder reduces the image
PICTURES = 4


def build_model(embedding_size: int, width: int = 16) -> keras.Model:
    """Return a model (L, embedding) -> ab, scaled as in the dataset.

    Args:
      embedding_size: E, the length of an embedding.
      width: The number of filters of the first layer.

    Returns:
      A model from float32 (N, 224, 224, 1) and (N, E) to (N, 224, 224, 2).
    """
    lightness, embedding = (
        keras.Input((SIDE, SIDE, 1), name="lightness"),
        keras.Input((embedding_size,), name="embedding"),
    )

    def convolve(x: keras.KerasTensor, filters: int, strides: int = 1) -> keras.KerasTensor:
        return keras.layers.Conv2D(filters, 3, strides, padding="same", activation="relu")(x)

    features = lightness
    for factor in (1, 2, 4):
        features = convolve(convolve(features, factor * width, strides=2), 2 * factor * width)
    cells = SIDE // 8
    everywhere = keras.layers.Reshape((cells, cells, embedding_size))(
        keras.layers.RepeatVector(cells * cells)(embedding)
    )
    fused = keras.layers.Conv2D(8 * width, 1, activation="relu")(
        keras.layers.Concatenate()([features, everywhere])
    )
    painted = convolve(fused, 4 * width)
    for factor in (2, 1):
        painted = convolve(keras.layers.UpSampling2D()(painted), 2 * factor * width)
    painted = keras.layers.Conv2D(2, 3, padding="same", activation="tanh")(painted)
    return keras.Model(
        [lightness, embedding], keras.layers.UpSampling2D(interpolation="bilinear")(painted)
    )


def load_pairs(folder: str, transformed: bool) -> tf.data.Dataset:
    """Return a dataset of (input, target, weight of each pixel).

    The weights come from the statistics; without them they are 1.
    """

    def pair(image: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        planes = tf.concat(
            [
                image["image_l"],
                image["image_ab"],
                image.get("image_weight", tf.ones_like(image["image_l"])),
            ],
            -1,
        )
        l, ab, weight = tf.split(
            tf.image.resize(planes, (SIDE, SIDE), antialias=True), [1, 2, 1], -1
        )
        return (l, image["image_embedding"]), ab, weight[..., 0]

    return dataset.load(folder, transformed=transformed).map(
        pair, num_parallel_calls=tf.data.AUTOTUNE
    )


def save_pictures(model: keras.Model, pairs: tf.data.Dataset, folder: Path) -> None:
    """Write a few images as grey | predicted | true, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, ((l, embedding), true, _) in enumerate(pairs.take(PICTURES).as_numpy_iterator()):
        predicted = model.predict_on_batch((l[None], embedding[None]))[0]
        row = [to_rgb(l, ab) for ab in (np.zeros_like(true), predicted, true)]
        Image.fromarray(np.concatenate(row, axis=1)).save(folder / f"{index}.png")


def to_rgb(l: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """Convert scaled Lab planes, as `dataset.load` returns them, to uint8 sRGB."""
    lab = np.concatenate([(l + 1) * 50, ab * 127], axis=-1)
    return np.round(skimage.color.lab2rgb(lab) * 255).astype(np.uint8)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "dataset", metavar="DATASET", help="a finished folder, made with the network"
    )
    parser.add_argument(
        "--output",
        default="data/pictures",
        help="folder for pictures and model (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=int, default=30, help="batches to train on (default: %(default)s)"
    )
    parser.add_argument(
        "--batch_size", type=int, default=8, help="images in a batch (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    try:
        info = dataset.read_info(options.dataset)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if not info.embedding_size:
        print(
            f"{options.dataset} was made without the network: the model has no embedding to join",
            file=sys.stderr,
        )
        return 2
    pairs = load_pairs(options.dataset, bool(info.transform))
    model = build_model(info.embedding_size)
    model.compile("adam", "mse")
    batches = (
        pairs.repeat().shuffle(100, seed=0).batch(options.batch_size).prefetch(tf.data.AUTOTUNE)
    )
    model.fit(batches, steps_per_epoch=options.steps, epochs=1, verbose=2)
    save_pictures(model, pairs, Path(options.output))
    model.save(Path(options.output, "colorizer.keras"))
    print(f"{options.output}: grey | predicted | true")
    return 0


if __name__ == "__main__":
    sys.exit(main())
