"""Conversion of parsed records to tensors."""

from __future__ import annotations

from beam_pipeline.dataset_info import Features
from beam_pipeline.images import lab_color
from beam_pipeline.process import native_output

with native_output.suppress_stderr():
    import tensorflow as tf

_DTYPES = {"float32": tf.float32, "int64": tf.int64}


def feature_spec(features: Features) -> dict[str, tf.io.FixedLenFeature]:
    """Return the feature spec for `tf.io.parse_example`.

    float32 and int64 features are lists of numbers; all others, raw arrays included, are one bytes
    value.

    Args:
      features: The features of a record, as in `dataset.json`.
    """
    return {
        name: tf.io.FixedLenFeature(
            feature.shape if feature.dtype in _DTYPES else [],
            _DTYPES.get(feature.dtype, tf.string),
        )
        for name, feature in features.items()
    }


def decode_planes(
    values: dict[str, tf.Tensor], features: Features, encoding: str
) -> dict[str, tf.Tensor]:
    """Decode parsed records to the tensors of `dataset.load`.

    Args:
      values: One example or a batch, parsed with `feature_spec`.
      features: The features of a record, as in `dataset.json`.
      encoding: `lab_float32`, `lab_uint8` or `rgb_png`.
    """
    tensors = {
        name: value for name, value in values.items() if features[name].dtype in ("bytes", *_DTYPES)
    }
    if encoding == "lab_uint8":
        l, ab = (
            tf.cast(_decode_raw(values[name], features[name].shape), tf.float32)
            for name in ("image_l", "image_ab")
        )
        return {**tensors, "image_l": l / 127.5 - 1, "image_ab": (ab - 128) / 127}
    if encoding == "rgb_png":
        lab = rgb_to_lab(_decode_png(values["image_png"], features["image_png"].shape))
        return {
            **tensors,
            "image_l": tf.clip_by_value(lab[..., :1] / 50 - 1, -1, 1),
            "image_ab": lab[..., 1:] / 127,
        }
    return tensors


def _decode_raw(data: tf.Tensor, shape: list[int]) -> tf.Tensor:
    values = tf.reshape(tf.io.decode_raw(data, tf.uint8), tf.concat([tf.shape(data), shape], 0))
    return tf.ensure_shape(values, [*data.shape, *shape])


def _decode_png(data: tf.Tensor, shape: list[int]) -> tf.Tensor:
    if data.shape.rank:
        return tf.map_fn(
            lambda one: _decode_png(one, shape),
            data,
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )
    return tf.ensure_shape(tf.io.decode_png(data, channels=3), shape)


def rgb_to_lab(pixels: tf.Tensor) -> tf.Tensor:
    """Convert sRGB to CIE L*a*b* in a TensorFlow graph, as `lab_color.rgb_to_lab` does.

    Sources: IEC 61966-2-1 for linear RGB and its primaries for XYZ, CIE 15 for L*a*b*, with
    scikit-image's constants.

    Args:
      pixels: uint8 (..., 3).

    Returns:
      float32 (..., 3).
    """
    linear = tf.gather(lab_color.LINEAR, tf.cast(pixels, tf.int32))
    xyz = tf.reshape(linear, [-1, 3]) @ lab_color.TO_XYZ
    # TensorFlow's own power takes three times as long.
    cube_root = tf.exp(tf.math.log(tf.maximum(xyz, 0.008856)) / 3)
    f = tf.where(xyz > 0.008856, cube_root, 7.787 * xyz + 16 / 116)
    lab = f @ lab_color.TO_LAB - tf.constant([16, 0, 0], tf.float32)
    return tf.ensure_shape(tf.reshape(lab, tf.shape(pixels)), pixels.shape)
