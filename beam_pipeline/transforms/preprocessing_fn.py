"""The preprocessing_fn of tensorflow_transform: statistics of raw examples and their normalization.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import apache_beam as beam

from beam_pipeline.dataset_info import Features
from beam_pipeline.images import ab_gamut, lab_color
from beam_pipeline.process import native_output
from beam_pipeline.records import tf_decode

with native_output.suppress_stderr():
    import tensorflow as tf
    import tensorflow_transform as tft

# The bins of a*, b* in the sums of `transform_examples`: after the number of examples, and the sums
# of Lab and of its squares.
BINS = slice(7, 7 + lab_color.AB_BINS**2)


def transform_examples(
    inputs: dict[str, tf.Tensor],
    features: Features,
    encoding: str,
    add_up: Callable[[int], beam.PTransform],
) -> dict[str, tf.Tensor]:
    """Transform a batch of raw examples; this is the preprocessing_fn.

    Args:
      inputs: Raw features of a batch.
      features, encoding: As in `dataset.json`.
      add_up: Returns a transform that adds up rows of a given width over the dataset.

    Returns:
      The tensors of `dataset.load`, with `image_embedding` z-scored and `image_weight` added; and
      the fields of `Statistics`, equal for all examples, with `ab_frequency` flattened.
    """
    outputs = tf_decode.decode_planes(inputs, features, encoding)
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
        parts |= {
            "embedding": tf.reduce_sum(precise, 0),
            "embedding_squares": tf.reduce_sum(precise * precise, 0),
        }
    widths = [part.shape[0] for part in parts.values()]
    row = tf.concat(list(parts.values()), 0)[None]
    [sums] = tft.experimental.ptransform_analyzer(
        [row], add_up(sum(widths)), [tf.float64], [[sum(widths)]], name="sums"
    )
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
        outputs["image_embedding"] = tf.cast(
            tf.math.divide_no_nan(precise - mean, tf.sqrt(variance)), tf.float32
        )
        constants |= {"embedding_mean": mean, "embedding_variance": variance}
    outputs["image_weight"] = tf.gather(tf.cast(rebalance(frequency), tf.float32), bins)[..., None]
    for name, constant in constants.items():
        value = constant if constant.dtype == tf.int64 else tf.cast(constant, tf.float32)
        outputs[name] = tf.tile(value[None], [number] + [1] * value.shape.rank)
    return outputs


def _sum_pixels(planes: tf.Tensor) -> tf.Tensor:
    """Sum planes, (N, S, S, C), over examples and pixels to float64 (C,).

    Sums within an image are in float32, which is precise to 1e-6.
    """
    return tf.reduce_sum(tf.cast(tf.reduce_sum(planes, [1, 2]), tf.float64), 0)


def _count(bins: tf.Tensor) -> tf.Tensor:
    counts = tf.math.bincount(
        tf.reshape(bins, [-1]), minlength=lab_color.AB_BINS**2, maxlength=lab_color.AB_BINS**2
    )
    return tf.ensure_shape(counts, [lab_color.AB_BINS**2])


def _moments(sums: tf.Tensor, squares: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    mean = tf.math.divide_no_nan(sums, number)
    return mean, tf.maximum(tf.math.divide_no_nan(squares, number) - mean * mean, 0)


def _to_bins(ab: tf.Tensor) -> tf.Tensor:
    """Return the bin of each pixel, int32 (...,), from a* and b* divided by 127, (..., 2)."""
    indices = tf.clip_by_value(
        tf.cast(tf.floor(ab * (127 / lab_color.AB_BIN) + (lab_color.AB_BINS // 2 + 0.5)), tf.int32),
        0,
        lab_color.AB_BINS - 1,
    )
    return indices[..., 0] * lab_color.AB_BINS + indices[..., 1]


def rebalance(frequency: tf.Tensor) -> tf.Tensor:
    """Return the weight of each bin: section 2.2 of Zhang et al. 2016.

    The frequencies are smoothed over the 313 bins (`ab_gamut.smooth_prior`), mixed half and half
    with uniform ones, and inverted. The weights are scaled so that the mean weight of the training
    pixels is 1; the scale of a loss then does not depend on how grey they are. In the paper the
    mean weight of pixels with the smoothed frequencies is 1.

    Args:
      frequency: float64 (529,), sum 1.

    Returns:
      float64 (529,).
    """
    shares = tf.math.unsorted_segment_sum(frequency, ab_gamut.NEAREST, len(ab_gamut.POINTS))
    smoothed = tf.linalg.matvec(ab_gamut.SMOOTHING, shares)
    uniform = ab_gamut.UNIFORM / len(ab_gamut.POINTS)
    weights = tf.gather(1 / ((1 - ab_gamut.UNIFORM) * smoothed + uniform), ab_gamut.NEAREST)
    return tf.math.divide_no_nan(weights, tf.maximum(tf.reduce_sum(frequency * weights), 1e-12))
