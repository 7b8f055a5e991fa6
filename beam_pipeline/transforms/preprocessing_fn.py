"""The preprocessing_fn: what tensorflow_transform is to learn of raw examples, and what it makes of them then. Pure."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import numpy as np

from beam_pipeline.images import lab_color
from beam_pipeline.process import native_output
from beam_pipeline.records import tf_decode

with native_output.suppress_stderr():
    import tensorflow as tf
    import tensorflow_transform as tft

# Zhang et al. 2016, https://arxiv.org/abs/1603.08511: how far the frequencies are smoothed, and mixed with uniform ones.
SIGMA, UNIFORM = 5.0, 0.5


def transform_examples(
    inputs: dict[str, tf.Tensor], description: dict[str, Any], add_up: Callable[[int], beam.PTransform]
) -> dict[str, tf.Tensor]:
    """The preprocessing_fn.

    Args:
      inputs: Raw features of a batch.
      description: `encoding` and `features`, as in `dataset.json`.
      add_up: Makes what adds up rows of a width over the dataset.

    Returns:
      What `dataset.load` gives, but `image_embedding` z-scored, with `image_weight`; and the fields of `Statistics` but that
      `ab_frequency` is flat, each the same for all examples.
    """
    outputs = tf_decode.decode_planes(inputs, description)
    l, ab, embedding = outputs["image_l"], outputs["image_ab"], outputs.get("image_embedding")
    number = tf.shape(l)[0]
    bins = _to_bins(ab)
    parts = {
        "examples": tf.cast(number, tf.float64)[None],
        "lab": _sum_pixels(tf.concat([l, ab], -1)),
        "lab_squares": _sum_pixels(tf.concat([l * l, ab * ab], -1)),
        "bins": tf.cast(_count(bins), tf.float64),
    }
    if embedding is not None:
        precise = tf.cast(embedding, tf.float64)
        parts |= {"embedding": tf.reduce_sum(precise, 0), "embedding_squares": tf.reduce_sum(precise * precise, 0)}
    widths = [part.shape[0] for part in parts.values()]
    row = tf.concat(list(parts.values()), 0)[None]
    [sums] = tft.experimental.ptransform_analyzer([row], add_up(sum(widths)), [tf.float64], [[sum(widths)]], name="sums")
    added = dict(zip(parts, tf.split(tf.ensure_shape(sums, [sum(widths)]), widths), strict=True))

    examples = added["examples"][0]
    mean, variance = _moments(added["lab"], added["lab_squares"], examples * math.prod(l.shape[1:]))
    frequency = tf.math.divide_no_nan(added["bins"], tf.reduce_sum(added["bins"]))
    constants = {
        "examples": tf.cast(examples, tf.int64),
        "lab_mean": mean * [50, 127, 127] + [50, 0, 0],
        "lab_variance": variance * tf.square(tf.constant([50, 127, 127], tf.float64)),
        "ab_frequency": frequency,
    }
    if embedding is not None:
        mean, variance = _moments(added["embedding"], added["embedding_squares"], examples)
        outputs["image_embedding"] = tf.cast(tf.math.divide_no_nan(precise - mean, tf.sqrt(variance)), tf.float32)
        constants |= {"embedding_mean": mean, "embedding_variance": variance}
    outputs["image_weight"] = tf.gather(tf.cast(rebalance(frequency), tf.float32), bins)[..., None]
    for name, constant in constants.items():
        value = constant if constant.dtype == tf.int64 else tf.cast(constant, tf.float32)
        outputs[name] = tf.tile(value[None], [number] + [1] * value.shape.rank)
    return outputs


def _sum_pixels(planes: tf.Tensor) -> tf.Tensor:
    """(N, S, S, C) to float64 (C,); in float32 within an image, which is precise to 1e-6."""
    return tf.reduce_sum(tf.cast(tf.reduce_sum(planes, [1, 2]), tf.float64), 0)


def _count(bins: tf.Tensor) -> tf.Tensor:
    counts = tf.math.bincount(tf.reshape(bins, [-1]), minlength=lab_color.AB_BINS**2, maxlength=lab_color.AB_BINS**2)
    return tf.ensure_shape(counts, [lab_color.AB_BINS**2])


def _moments(sums: tf.Tensor, squares: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    mean = tf.math.divide_no_nan(sums, number)
    return mean, tf.maximum(tf.math.divide_no_nan(squares, number) - mean * mean, 0)


def _to_bins(ab: tf.Tensor) -> tf.Tensor:
    """The bin of each pixel: (..., 2), a* and b* divided by 127, to int32 (...,)."""
    places = tf.clip_by_value(
        tf.cast(tf.floor(ab * (127 / lab_color.AB_BIN) + (lab_color.AB_BINS // 2 + 0.5)), tf.int32), 0, lab_color.AB_BINS - 1
    )
    return places[..., 0] * lab_color.AB_BINS + places[..., 1]


def rebalance(frequency: tf.Tensor) -> tf.Tensor:
    """The weight of each bin, float64 (529,), from their frequencies, whose sum is 1: section 2.2 of Zhang et al. 2016.

    The frequencies are smoothed over the bins that sRGB reaches, mixed half and half with uniform ones, and inverted. The mean
    weight of the training pixels is 1, so that the scale of a loss does not depend on how grey they are; theirs is that of pixels
    with smoothed frequencies.
    """
    kernel, reached = _smoothing()
    smoothed = tf.linalg.matvec(kernel, frequency)
    weights = 1 / ((1 - UNIFORM) * smoothed + UNIFORM / reached)
    return tf.math.divide_no_nan(weights, tf.maximum(tf.reduce_sum(frequency * weights), 1e-12))


@functools.cache
def _smoothing() -> tuple[np.ndarray, int]:
    """The share of each bin, (529, 529), that each other one has from it, and the number of bins that sRGB reaches."""
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    places = np.floor(lab_color.rgb_to_lab(cube)[0, :, 1:] / lab_color.AB_BIN + lab_color.AB_BINS // 2 + 0.5).astype(int)
    is_reached = np.zeros((lab_color.AB_BINS, lab_color.AB_BINS), bool)
    is_reached[places[:, 0], places[:, 1]] = True
    centres = (
        np.stack(np.meshgrid(np.arange(lab_color.AB_BINS), np.arange(lab_color.AB_BINS), indexing="ij"), -1).reshape(-1, 2)
        * lab_color.AB_BIN
    )
    distances = np.square(centres[:, None] - centres[None]).sum(-1)
    kernel = np.exp(-distances / (2 * SIGMA**2)) * is_reached.reshape(-1, 1)
    return kernel / np.maximum(kernel.sum(0), 1e-300), int(is_reached.sum())
