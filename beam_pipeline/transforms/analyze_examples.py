"""What is typical of a dataset: an analysis of its training examples by tensorflow_transform, in the graph that makes them.

The analysis adds up one row of sums a batch, so that no pixel is shuffled, and the sums of a commit are the next one's start. From
those of the last commit tensorflow_transform makes `transform/`, for training and serving alike: the SavedModel `transform_fn`,
which normalizes raw examples, the schema of what it gives, and the schema of the raw examples.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_pipeline.naming import TRANSFORM
from beam_pipeline.process import native_output
from beam_pipeline.records import example_proto, tf_decode
from beam_pipeline.storage import any_path, filesystem
from beam_pipeline.transforms import preprocessing_fn

with native_output.suppress_stderr():
    import tensorflow as tf
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from tfx_bsl.public import tfxio

_BATCH = 16


class AnalyzeExamples(beam.PTransform):
    """Serialized training examples -> `transform/`, or the sums of a commit for the next one. Gives one element, when that is done.

    Attributes:
      output: The dataset's folder.
      description: `encoding` and `features`, as in `dataset.json`.
      before, after: Files with the sums up to this commit, and with it; None for the first, and the last.
      temporary: A folder that all workers can reach; removed at the end.
    """

    def __init__(self, output: str, description: dict[str, Any], before: str | None, after: str | None, temporary: str):
        super().__init__()
        self._output, self._description = output, description
        self._before, self._after, self._temporary = before, after, temporary

    def expand(self, examples: beam.PCollection) -> beam.PCollection:
        description, pipeline = self._description, examples.pipeline
        metadata = tft.DatasetMetadata.from_feature_spec(tf_decode.feature_spec(description))
        arrow = tfxio.TFExampleBeamRecord("beam", ["beam_pipeline"], schema=metadata.schema).TensorAdapterConfig()
        add_up = functools.partial(AddRows, before=self._before, after=self._after)

        def preprocess(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return preprocessing_fn.transform_examples(inputs, description, add_up)

        batches = (
            examples
            | "Batch" >> beam.BatchElements(min_batch_size=_BATCH, max_batch_size=_BATCH)
            | "ReadBatch" >> beam.Map(to_record_batch, arrow.arrow_schema)
        )
        with tft_beam.Context(temp_dir=self._temporary):
            transform_fn = (batches, arrow) | "Analyze" >> tft_beam.AnalyzeDataset(preprocess)
            done = [transform_fn[0], transform_fn[1].deferred_metadata]
            if self._after is None:
                folder = any_path.join(self._output, TRANSFORM)
                raw = any_path.join(folder, tft.TFTransformOutput.RAW_METADATA_DIR)
                done.append(transform_fn | "WriteTransform" >> tft_beam.WriteTransformFn(folder))
                done.append(metadata | "WriteSchema" >> tft_beam.WriteMetadata(raw, pipeline))
        all_done = done | "Done" >> beam.Flatten() | "CountDone" >> beam.combiners.Count.Globally()
        return all_done | "RemoveTemporary" >> beam.Map(remove_folder, self._temporary)


class AddRows(beam.PTransform):
    """Batches of rows, float64 (N, width), in tuples of one -> their sum, (width,), with the sums of a file; another keeps it."""

    def __init__(self, width: int, before: str | None, after: str | None):
        super().__init__()
        self._width, self._before, self._after = width, before, after

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        rows = batches | "TakeRow" >> beam.MapTuple(lambda rows: rows.sum(axis=0))
        return (
            rows
            | "Add" >> beam.CombineGlobally(add_rows)
            | "KeepSums" >> beam.Map(keep_sums, self._width, self._before, self._after)
        )


def add_rows(rows: Iterable[np.ndarray]) -> np.ndarray | float:
    """The sum of rows; 0 if there is none."""
    return sum(rows, start=0.0)


def keep_sums(sums: np.ndarray | float, width: int, before: str | None, after: str | None) -> np.ndarray:
    total = np.load(io.BytesIO(filesystem.read_bytes(before))) if before else np.zeros(width)
    total += sums
    if after:
        file = io.BytesIO()
        np.save(file, total)
        filesystem.write_bytes(after, file.getvalue())
    return total


def remove_folder(unused_done: Any, folder: str) -> None:
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)


def to_record_batch(batch: Sequence[bytes], schema: pa.Schema) -> pa.RecordBatch:
    """Serialized examples in Arrow's form, which tensorflow_transform takes. Its own reader would take 2 ms an image."""
    examples = [example_proto.read_example(record) for record in batch]
    return pa.RecordBatch.from_arrays(
        [_to_column([one[field.name] for one in examples], field.type) for field in schema], schema=schema
    )


def _to_column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(values[0], list):
        return pa.array(values, kind)
    ends = np.cumsum([0, *map(len, values)])
    return pa.LargeListArray.from_arrays(ends, np.concatenate(values)).cast(kind)
