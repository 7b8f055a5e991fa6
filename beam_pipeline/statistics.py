"""What is typical of a dataset: an analysis of its training examples by tensorflow_transform, in the graph that makes them.

The analysis adds up one row of sums a batch, so that no pixel is shuffled, and the sums of a commit are the next one's start. From
those of the last commit tensorflow_transform makes `transform/`, for training and serving alike: the SavedModel `transform_fn`,
which normalizes raw examples, the schema of what it gives, and the schema of the raw examples.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_pipeline import color, files, finished, quiet, records, tensors, wire
from beam_pipeline.elements import EmbeddedImage, ImageRef, RgbImage
from beam_pipeline.finished import TRANSFORM, Folder

with quiet.silent_imports():
    import tensorflow as tf
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from tfx_bsl.public import tfxio

BIN, BINS = 10, 23  # bins of a* and of b* are 10 wide, their centres -110, -100, ... 110
_BATCH = 16
# Zhang et al. 2016, https://arxiv.org/abs/1603.08511: how far the frequencies are smoothed, and mixed with uniform ones.
SIGMA, UNIFORM = 5.0, 0.5


class Statistics(NamedTuple):
    """Of all training examples, white padding included.

    Attributes:
      examples: Their number.
      lab_mean, lab_variance: float32 (3,), of L*, a* and b*, over all pixels.
      embedding_mean, embedding_variance: float32 (1001,), or (0,) without the network.
      ab_frequency: float32 (23, 23), the share of all pixels in each bin of a* (rows) and b* (columns), 10 wide, the centres from
        -110 to 110. The prior of Zhang et al. 2016.
    """

    examples: int
    lab_mean: np.ndarray
    lab_variance: np.ndarray
    embedding_mean: np.ndarray
    embedding_variance: np.ndarray
    ab_frequency: np.ndarray


def read(folder: Folder) -> Statistics:
    """What the dataset's `transform/` knows. Raises FileNotFoundError if there is none."""
    transform = load_transform(folder)
    side = folder.description["image_size"]
    embedding = np.zeros(folder.description["embedding_size"], np.float32)
    image = RgbImage(ImageRef("", ""), np.zeros((side, side, 3), np.uint8), (1, 1))
    any_record = records.encode_example(EmbeddedImage(image, embedding if embedding.size else None), folder.description["encoding"])
    told = transform(tf.io.parse_single_example(any_record, tensors.feature_spec(folder.description)), constants=True)
    arrays = {name: value.numpy() for name, value in told.items() if name in Statistics._fields}
    arrays["ab_frequency"] = arrays["ab_frequency"].reshape(BINS, BINS)
    return Statistics(
        **{"embedding_mean": embedding, "embedding_variance": embedding, **arrays, "examples": int(arrays["examples"])}
    )


def load_transform(folder: Folder) -> Callable[..., dict[str, tf.Tensor]]:
    """A function that turns one parsed raw example into what `dataset.load(..., transformed=True)` gives.

    Raises:
      FileNotFoundError: the dataset was made without `--statistics`.
    """
    path = finished.join(folder.path, TRANSFORM)
    if not tf.io.gfile.exists(finished.join(path, tft.TFTransformOutput.TRANSFORM_FN_DIR)):
        raise FileNotFoundError(f"{path} is not there: the dataset was made without --statistics")
    layer = tft.TFTransformOutput(path).transform_features_layer()

    def transform(example: dict[str, tf.Tensor], constants: bool = False) -> dict[str, tf.Tensor]:
        batch = layer({name: value[None] for name, value in example.items()})
        return {name: value[0] for name, value in batch.items() if constants or name not in Statistics._fields}

    return transform


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
        metadata = tft.DatasetMetadata.from_feature_spec(tensors.feature_spec(description))
        arrow = tfxio.TFExampleBeamRecord("beam", ["beam_pipeline"], schema=metadata.schema).TensorAdapterConfig()
        add_up = functools.partial(AddRows, before=self._before, after=self._after)

        def preprocess(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return transform_examples(inputs, description, add_up)

        batches = (
            examples
            | "Batch" >> beam.BatchElements(min_batch_size=_BATCH, max_batch_size=_BATCH)
            | "ReadBatch" >> beam.Map(to_record_batch, arrow.arrow_schema)
        )
        with tft_beam.Context(temp_dir=self._temporary):
            transform_fn = (batches, arrow) | "Analyze" >> tft_beam.AnalyzeDataset(preprocess)
            done = [transform_fn[0], transform_fn[1].deferred_metadata]
            if self._after is None:
                folder = finished.join(self._output, TRANSFORM)
                raw = finished.join(folder, tft.TFTransformOutput.RAW_METADATA_DIR)
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
    total = np.load(io.BytesIO(files.read_bytes(before))) if before else np.zeros(width)
    total += sums
    if after:
        file = io.BytesIO()
        np.save(file, total)
        files.write_bytes(after, file.getvalue())
    return total


def remove_folder(unused_done: Any, folder: str) -> None:
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)


def to_record_batch(batch: Sequence[bytes], schema: pa.Schema) -> pa.RecordBatch:
    """Serialized examples in Arrow's form, which tensorflow_transform takes. Its own reader would take 2 ms an image."""
    examples = [wire.read_example(record) for record in batch]
    return pa.RecordBatch.from_arrays(
        [_to_column([one[field.name] for one in examples], field.type) for field in schema], schema=schema
    )


def _to_column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(values[0], list):
        return pa.array(values, kind)
    ends = np.cumsum([0, *map(len, values)])
    return pa.LargeListArray.from_arrays(ends, np.concatenate(values)).cast(kind)


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
    outputs = tensors.decode_planes(inputs, description)
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
    counts = tf.math.bincount(tf.reshape(bins, [-1]), minlength=BINS**2, maxlength=BINS**2)
    return tf.ensure_shape(counts, [BINS**2])


def _moments(sums: tf.Tensor, squares: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    mean = tf.math.divide_no_nan(sums, number)
    return mean, tf.maximum(tf.math.divide_no_nan(squares, number) - mean * mean, 0)


def _to_bins(ab: tf.Tensor) -> tf.Tensor:
    """The bin of each pixel: (..., 2), a* and b* divided by 127, to int32 (...,)."""
    places = tf.clip_by_value(tf.cast(tf.floor(ab * (127 / BIN) + (BINS // 2 + 0.5)), tf.int32), 0, BINS - 1)
    return places[..., 0] * BINS + places[..., 1]


def rebalance(frequency: tf.Tensor) -> tf.Tensor:
    """The weight of each bin, float64 (529,), from their frequencies, whose sum is 1: section 2.2 of Zhang et al. 2016.

    The frequencies are smoothed over the bins that sRGB reaches, mixed half and half with uniform ones, and inverted; the mean
    weight of a pixel with smoothed frequencies is 1.
    """
    kernel, reached = _smoothing()
    smoothed = tf.linalg.matvec(kernel, frequency)
    weights = 1 / ((1 - UNIFORM) * smoothed + UNIFORM / reached)
    return tf.math.divide_no_nan(weights, tf.maximum(tf.reduce_sum(smoothed * weights), 1e-12))


@functools.cache
def _smoothing() -> tuple[np.ndarray, int]:
    """The share of each bin, (529, 529), that each other one has from it, and the number of bins that sRGB reaches."""
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    places = np.floor(color.rgb_to_lab(cube)[0, :, 1:] / BIN + BINS // 2 + 0.5).astype(int)
    is_reached = np.zeros((BINS, BINS), bool)
    is_reached[places[:, 0], places[:, 1]] = True
    centres = np.stack(np.meshgrid(np.arange(BINS), np.arange(BINS), indexing="ij"), -1).reshape(-1, 2) * BIN
    distances = np.square(centres[:, None] - centres[None]).sum(-1)
    kernel = np.exp(-distances / (2 * SIGMA**2)) * is_reached.reshape(-1, 1)
    return kernel / np.maximum(kernel.sum(0), 1e-300), int(is_reached.sum())
