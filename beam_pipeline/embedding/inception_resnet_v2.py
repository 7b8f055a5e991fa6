"""The network Inception-ResNet-v2, and its ModelHandler for Beam's RunInference."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from beam_pipeline import naming
from beam_pipeline.config import NETWORK_SIZE
from beam_pipeline.elements import EmbeddedImage, RgbImage
from beam_pipeline.embedding import checkpoints
from beam_pipeline.process import native_output, stage_times
from beam_pipeline.records.example_codec import EMBEDDING_SIZE

with native_output.suppress_stderr():
    import keras
    import tensorflow as tf

_LOGGER = logging.getLogger(__name__)

_FIRST_BATCH = 4
_MICROSECONDS = Metrics.counter(naming.EMBED, "microseconds")


class Network:
    """Inception-ResNet-v2 with 1001 classes, without softmax, on grey images.

    Source: Szegedy et al. 2016, https://arxiv.org/abs/1602.07261. The front end (conversion to grey
    and scaling) is that of deep-koalarization.
    """

    def __init__(self, checkpoint: str, precision: str, sha256: str | None = None):
        """Build the network and load its weights.

        Args:
          checkpoint: The value of `--checkpoint`, except `none`.
          precision: `float32` or `bfloat16`.
          sha256: The value that `checkpoints.verify` returned. No other weights are loaded.

        Raises:
          UsageError: See `checkpoints.read_weights`.
        """
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(precision)
        try:
            self._model = keras.applications.InceptionResNetV2(
                weights=None, classes=EMBEDDING_SIZE, classifier_activation=None
            )
        finally:
            keras.config.set_dtype_policy(policy)
        variables = [
            variable for layer in _creation_order(self._model) for variable in layer.weights
        ]
        for variable, weights in zip(
            variables, checkpoints.read_weights(checkpoint, sha256), strict=True
        ):
            variable.assign(weights)
        self._precision = precision
        self._turn = threading.Lock()

    def embed(self, pixels: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the logits of images.

        Only one thread computes at a time: a second simultaneous batch would not be faster, but
        would double the memory.

        Args:
          pixels: N images, uint8 (299, 299, 3), sRGB.

        Returns:
          Logits, float32 (N, 1001).
        """
        batch = np.asarray(pixels)
        with self._turn:
            began = time.perf_counter()
            logits = self._embed(batch).numpy()
            # Counts for this thread's bundle, if Beam runs one in it. The wait for the lock is not
            # part of the network's time.
            _MICROSECONDS.inc(round((time.perf_counter() - began) * 1e6))
        return logits

    # One trace serves every batch size: the last batch of a bundle may be smaller.
    @tf.function(
        input_signature=[tf.TensorSpec((None, NETWORK_SIZE, NETWORK_SIZE, 3), tf.uint8)],
        autograph=False,
    )
    def _embed(self, pixels: tf.Tensor) -> tf.Tensor:
        grey = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(pixels))
        scaled = 2 * tf.cast(grey, tf.float32) / 255 - 1
        return tf.cast(self._model(tf.cast(scaled, self._precision), training=False), tf.float32)


def _creation_order(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers in the order in which the network's definition creates them.

    The variables of the checkpoint have the same order. It is derived from the graph, inputs before
    outputs and branches from first to last. Layer names cannot be used, because they contain a
    counter that all models in the process share.
    """
    producers = {id(layer.output): layer for layer in model.layers}
    ordered: dict[keras.layers.Layer, None] = {}
    pending = [(model.layers[-1], False)]
    while pending:
        layer, inputs_are_done = pending.pop()
        if inputs_are_done:
            ordered[layer] = None
        elif layer not in ordered:
            pending.append((layer, True))
            if not isinstance(layer, keras.layers.InputLayer):
                pending += [
                    (producers[id(tensor)], False)
                    for tensor in reversed(keras.tree.flatten(layer.input))
                ]
    return list(ordered)


_networks: dict[tuple[str, str, str | None], Network] = {}
_loading = threading.Lock()


def load_network(checkpoint: str, precision: str, sha256: str | None = None) -> Network:
    """Return the process's network for a checkpoint and precision.

    All bundles, threads and runs of a process share it.

    Args:
      checkpoint: The value of `--checkpoint`, except `none`.
      precision: `float32` or `bfloat16`.
      sha256: The value that `checkpoints.verify` returned.
    """
    with _loading:
        key = (checkpoint, precision, sha256)
        if key not in _networks:
            began = time.monotonic()
            network = Network(*key)
            # Traces and optimizes the graph now, so that the first batch does not wait for it.
            network.embed(np.zeros((1, NETWORK_SIZE, NETWORK_SIZE, 3), np.uint8))
            _networks[key] = network
            _LOGGER.info(
                "process %d loaded the network in %.1f s", os.getpid(), time.monotonic() - began
            )
        return _networks[key]


class EmbeddingHandler(ModelHandler[RgbImage, EmbeddedImage, Network]):
    """Computes the EmbeddedImage of each RgbImage, in batches of up to `batch_size`."""

    def __init__(self, checkpoint: str, precision: str, batch_size: int, sha256: str | None = None):
        super().__init__()
        self._checkpoint, self._precision, self._batch_size, self._sha256 = (
            checkpoint,
            precision,
            batch_size,
            sha256,
        )

    def batch_elements_kwargs(self) -> dict[str, Any]:
        """Return the arguments of BatchElements.

        Batches double in size from a small first batch, after which images can be written, up to
        `batch_size`. Beam would otherwise choose a size by the duration of the batches, for which
        it needs a limit.
        """
        return {
            "min_batch_size": min(_FIRST_BATCH, self._batch_size),
            "max_batch_size": self._batch_size,
            "target_batch_overhead": None,
            "target_batch_duration_secs": float("inf"),
            "variance": 0.0,
        }

    def load_model(self) -> Network:
        return load_network(self._checkpoint, self._precision, self._sha256)

    def run_inference(
        self,
        batch: Sequence[RgbImage],
        model: Network,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterator[EmbeddedImage]:
        seen = [
            image.pixels if image.network_pixels is None else image.network_pixels
            for image in batch
        ]
        began = time.perf_counter()
        embeddings = model.embed(seen)
        stage_times.add(naming.EMBED, round((time.perf_counter() - began) * 1e6))
        return (
            EmbeddedImage(dataclasses.replace(image, network_pixels=None), embedding)
            for image, embedding in zip(batch, embeddings, strict=True)
        )

    def get_num_bytes(self, batch: Sequence[RgbImage]) -> int:
        return sum(image.nbytes for image in batch)

    def get_metrics_namespace(self) -> str:
        return naming.EMBED
