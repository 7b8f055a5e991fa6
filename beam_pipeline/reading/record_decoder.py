"""Decodes records that another library has read."""

from __future__ import annotations

from typing import Any

from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.reading import class_labels
from beam_pipeline.records import example_codec, numpy_decode


class RecordDecoder:
    """Decodes a record to the arrays of `dataset.examples`. Picklable."""

    def __init__(self, info: DatasetInfo):
        self._features, self._encoding = info.features, info.encoding
        self._labels = class_labels.label_classes(info.classes)

    def __call__(self, record: bytes) -> dict[str, Any]:
        """Decode a record.

        Args:
          record: A serialized tf.train.Example.

        Raises:
          ValueError: It is not an example of the dataset.
        """
        example = numpy_decode.decode_planes(
            example_codec.decode_example(record, self._features), self._features, self._encoding
        )
        label = class_labels.label_of(example["image_class"], self._labels)
        return {**example, "image_label": label}
