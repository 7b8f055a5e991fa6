"""Inception-ResNet-v2: the network, and the ModelHandler that brings it to Beam's RunInference."""

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

from beam_pipeline.config import NETWORK_SIZE
from beam_pipeline.elements import EmbeddedImage, RgbImage
from beam_pipeline.embedding import checkpoints
from beam_pipeline.process import native_output
from beam_pipeline.records.example_codec import EMBEDDING_SIZE

with native_output.suppress_stderr():
    import keras
    import tensorflow as tf

_LOGGER = logging.getLogger(__name__)

_FIRST_BATCH = 4
_MICROSECONDS = Metrics.counter("embedding", "microseconds")


class Network:
    """Inception-ResNet-v2, 1001 classes, no softmax, on grey images.

    Szegedy et al. 2016, https://arxiv.org/abs/1602.07261; the front end is that of deep-koalarization.
    """

    def __init__(self, checkpoint: str, precision: str, sha256: str | None = None):
        """Builds the network and fills it.

        Args:
          checkpoint: As the option has it, but `none`.
          precision: `float32` or `bfloat16`.
          sha256: What `checkpoints.verify` has returned; no other weights are loaded.

        Raises:
          UsageError: as `checkpoints.read_weights`.
        """
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(precision)
        try:
            self._model = keras.applications.InceptionResNetV2(weights=None, classes=EMBEDDING_SIZE, classifier_activation=None)
        finally:
            keras.config.set_dtype_policy(policy)
        variables = [variable for layer in _creation_order(self._model) for variable in layer.weights]
        for variable, weights in zip(variables, checkpoints.read_weights(checkpoint, sha256), strict=True):
            variable.assign(weights)
        self._precision = precision
        self._turn = threading.Lock()

    def embed(self, pixels: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """The logits of images. Threads take turns: a second batch would not be faster, but take as much memory again.

        Args:
          pixels: Of N images, uint8 (299, 299, 3), sRGB.

        Returns:
          float32 (N, 1001).
        """
        batch = np.asarray(pixels)
        with self._turn:
            began = time.perf_counter()
            logits = self._embed(batch).numpy()
            # Of this thread's bundle, if Beam runs one in it; waiting for one's turn is not the network's time.
            _MICROSECONDS.inc(round((time.perf_counter() - began) * 1e6))
        return logits

    # One trace for every batch size: the rest of a bundle is a small batch.
    @tf.function(input_signature=[tf.TensorSpec((None, NETWORK_SIZE, NETWORK_SIZE, 3), tf.uint8)], autograph=False)
    def _embed(self, pixels: tf.Tensor) -> tf.Tensor:
        grey = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(pixels))
        scaled = 2 * tf.cast(grey, tf.float32) / 255 - 1
        return tf.cast(self._model(tf.cast(scaled, self._precision), training=False), tf.float32)


def _creation_order(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers in the order in which the network's definition creates them, which is the checkpoint's.

    Read off the graph, inputs before outputs and branches from the first to the last, since the layers' names come from
    a counter that every other model in the process has a share in.
    """
    ordered: dict[keras.layers.Layer, None] = {}
    pending = [(model.layers[-1], False)]
    while pending:
        layer, inputs_are_done = pending.pop()
        if inputs_are_done:
            ordered[layer] = None
        elif layer not in ordered:
            pending.append((layer, True))
            if not isinstance(layer, keras.layers.InputLayer):
                pending += [(tensor._keras_history.operation, False) for tensor in reversed(keras.tree.flatten(layer.input))]
    return list(ordered)


_networks: dict[tuple[str, str, str | None], Network] = {}
_loading = threading.Lock()


def load_network(checkpoint: str, precision: str, sha256: str | None = None) -> Network:
    """The process's one network of this checkpoint and precision, however many bundles, threads or runs ask for it."""
    with _loading:
        key = (checkpoint, precision, sha256)
        if key not in _networks:
            began = time.monotonic()
            network = Network(*key)
            # Has the graph traced and optimized, for which the first batch would have to wait.
            network.embed(np.zeros((1, NETWORK_SIZE, NETWORK_SIZE, 3), np.uint8))
            _networks[key] = network
            _LOGGER.info("process %d loaded the network in %.1f s", os.getpid(), time.monotonic() - began)
        return _networks[key]


class EmbeddingHandler(ModelHandler[RgbImage, EmbeddedImage, Network]):
    """RgbImage -> EmbeddedImage, `batch_size` at a time."""

    def __init__(self, checkpoint: str, precision: str, batch_size: int, sha256: str | None = None):
        super().__init__()
        self._checkpoint, self._precision, self._batch_size, self._sha256 = checkpoint, precision, batch_size, sha256

    def batch_elements_kwargs(self) -> dict[str, Any]:
        """Batches double from a small one, after which images can be written, to the size that is asked for.

        Beam would settle on a size by the time that batches take, for which it has to be given a limit.
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
        self, batch: Sequence[RgbImage], model: Network, inference_args: dict[str, Any] | None = None
    ) -> Iterator[EmbeddedImage]:
        seen = [image.pixels if image.network_pixels is None else image.network_pixels for image in batch]
        embeddings = model.embed(seen)
        return (
            EmbeddedImage(dataclasses.replace(image, network_pixels=None), embedding)
            for image, embedding in zip(batch, embeddings, strict=True)
        )

    def get_num_bytes(self, batch: Sequence[RgbImage]) -> int:
        return sum(image.nbytes for image in batch)

    def get_metrics_namespace(self) -> str:
        return "embedding"
