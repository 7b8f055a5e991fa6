"""Reads the statistics of a dataset, made with `--statistics`, from its `transform/`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from beam_pipeline import naming
from beam_pipeline.dataset_info import Statistics
from beam_pipeline.elements import EmbeddedImage, ImageRef, RgbImage
from beam_pipeline.images import lab_color
from beam_pipeline.images.measures import Measures
from beam_pipeline.process import native_output
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.records import example_codec, tf_decode
from beam_pipeline.storage import any_path

with native_output.suppress_stderr():
    import tensorflow as tf
    import tensorflow_transform as tft


def read(folder: DatasetDir) -> Statistics:
    """Return the statistics in the dataset's `transform/`.

    Raises:
      FileNotFoundError: The dataset was made without `--statistics`.
      ValueError: TensorFlow cannot read the dataset's filesystem.
    """
    transform = load_transform(folder)
    side = folder.info.image_size
    embedding = np.zeros(folder.info.embedding_size, np.float32)
    pixels, measures = np.zeros((side, side, 3), np.uint8), Measures(*[0.0] * len(Measures._fields))
    image = RgbImage(ImageRef("", ""), pixels, (1, 1), measures=measures)
    any_record = example_codec.encode_example(
        EmbeddedImage(image, embedding if embedding.size else None),
        folder.info.encoding,
        "image_metadata" in folder.info.features,
        "colorfulness" in folder.info.features,
    )
    values = transform(
        tf.io.parse_single_example(any_record, tf_decode.feature_spec(folder.info.features)),
        constants=True,
    )
    arrays = {name: value.numpy() for name, value in values.items() if name in Statistics._fields}
    arrays["ab_frequency"] = arrays["ab_frequency"].reshape(lab_color.AB_BINS, lab_color.AB_BINS)
    return Statistics(
        **{
            "embedding_mean": embedding,
            "embedding_variance": embedding,
            **arrays,
            "examples": int(arrays["examples"]),
        }
    )


def load_transform(folder: DatasetDir) -> Callable[..., dict[str, tf.Tensor]]:
    """Return the function that transforms one parsed raw example.

    Its outputs are those of `dataset.load(..., transformed=True)`, and with `constants=True` the
    fields of `Statistics` too.

    Raises:
      FileNotFoundError: The dataset was made without `--statistics`.
      ValueError: TensorFlow cannot read the dataset's filesystem.
    """
    path = any_path.join(folder.path, naming.TRANSFORM)
    if not folder.has_statistics:
        raise FileNotFoundError(f"{path} does not exist: the dataset was made without --statistics")
    if not any_path.is_local(path) and not path.startswith("gs://"):
        raise ValueError(f"{path} cannot be read by TensorFlow: copy it to a disk")
    layer = tft.TFTransformOutput(path).transform_features_layer()

    def transform(example: dict[str, tf.Tensor], constants: bool = False) -> dict[str, tf.Tensor]:
        batch = layer({name: value[None] for name, value in example.items()})
        return {
            name: value[0]
            for name, value in batch.items()
            if constants or name not in Statistics._fields
        }

    return transform
