"""Train a small colorizer with JAX on a complete dataset, or an export, for a few steps.

    python -m examples.train_jax data/tfrecords

    python -m beam_pipeline.export data/tfrecords --to array_record --output data/exported
    python -m examples.train_jax data/exported

Grain shuffles all examples, whichever shards they are in, and gives the same order on each run. It
reads `dataset.examples`, or ArrayRecord files, whose records `dataset.record_decoder` decodes.
"""

from __future__ import annotations

import argparse
import glob
import os
import sys
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from beam_pipeline import dataset

Parameters = dict[str, jax.Array]


def load(folder: str, seed: int = 0) -> grain.MapDataset:
    """Return the training examples of a dataset, or of its export, in a global random order."""
    paths = sorted(glob.glob(os.path.join(folder, "train-*.array_record")))
    if paths:
        source = grain.MapDataset.source(grain.sources.ArrayRecordDataSource(paths))
        return source.shuffle(seed=seed).map(dataset.record_decoder(folder))
    return grain.MapDataset.source(dataset.examples(folder)).shuffle(seed=seed)


def select(example: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return what the model sees: texts have no place in a batch of arrays."""
    return {name: example[name] for name in ("image_l", "image_embedding", "image_ab")}


def make_parameters(key: jax.Array, embedding_size: int, width: int = 16) -> Parameters:
    """Return the initial parameters of `predict`."""
    shapes = {
        "encoder": (3, 3, 1, width),
        "fusion": (1, 1, width + embedding_size, width),
        "decoder": (3, 3, width, 2),
    }
    keys = jax.random.split(key, len(shapes))
    return {
        name: jax.random.normal(key, shape) / np.sqrt(np.prod(shape[:3]))
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def predict(parameters: Parameters, l: jax.Array, embedding: jax.Array) -> jax.Array:
    """Predict a* and b*, scaled as in the dataset.

    Args:
      parameters: The result of `make_parameters`.
      l: float32 (N, S, S, 1).
      embedding: float32 (N, E).

    Returns:
      float32 (N, S, S, 2).
    """

    def convolve(x: jax.Array, name: str) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, parameters[name], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    small = l[:, ::4, ::4]
    features = jax.nn.relu(convolve(small, "encoder"))
    everywhere = jnp.broadcast_to(
        embedding[:, None, None], (*features.shape[:3], embedding.shape[1])
    )
    fused = jax.nn.relu(convolve(jnp.concatenate([features, everywhere], -1), "fusion"))
    ab = jnp.tanh(convolve(fused, "decoder"))
    return jax.image.resize(ab, (*l.shape[:3], 2), "bilinear")


@jax.jit
def step(
    parameters: Parameters, batch: dict[str, jax.Array], rate: float = 0.01
) -> tuple[Parameters, jax.Array]:
    """Return the parameters after a step of gradient descent, and the loss before it."""

    def loss_of(parameters: Parameters) -> jax.Array:
        predicted = predict(parameters, batch["image_l"], batch["image_embedding"])
        return jnp.mean((predicted - batch["image_ab"]) ** 2)

    loss, gradients = jax.value_and_grad(loss_of)(parameters)
    new = jax.tree.map(lambda value, slope: value - rate * slope, parameters, gradients)
    return new, loss


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "dataset", metavar="DATASET", help="a complete folder, made with the network, or its export"
    )
    parser.add_argument("--steps", type=int, default=30, help="batches (default: %(default)s)")
    parser.add_argument(
        "--batch_size", type=int, default=8, help="images in a batch (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that read (default: threads)"
    )
    options = parser.parse_args(argv)
    try:
        examples = load(options.dataset)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if "image_embedding" not in examples[0]:
        print(f"{options.dataset} was made without the network", file=sys.stderr)
        return 2
    batches = examples.map(select).repeat().batch(options.batch_size).to_iter_dataset()
    if options.workers:
        flags.FLAGS.mark_as_parsed()  # Grain reads its flags for them
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=options.workers))
    parameters = make_parameters(jax.random.key(0), examples[0]["image_embedding"].size)
    losses = []
    for _, batch in zip(range(options.steps), batches, strict=False):
        parameters, loss = step(parameters, batch)
        losses.append(float(loss))
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {len(losses)} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
