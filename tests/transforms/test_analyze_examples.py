"""Tests of tensorflow_transform's statistics of a dataset against NumPy on its records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from origin import image
from scipy.spatial import cKDTree
from tensorflow_metadata.proto.v0 import schema_pb2
from written_dataset import SIZE, analyze, cut_shard, read_records, write_dataset

from beam_pipeline import dataset, run
from beam_pipeline.dataset_info import Statistics
from beam_pipeline.images import lab_color
from beam_pipeline.images.ab_gamut import POINTS
from beam_pipeline.reading import dataset_dir, statistics, validation
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.records import tf_decode
from beam_pipeline.transforms import preprocessing_fn


def expected(folder: DatasetDir) -> Statistics:
    """Compute the same statistics with NumPy, in float64."""
    examples = list(dataset.examples(folder.path))
    lab = np.concatenate(
        [
            lab_color.unscale_lab(one["image_l"], one["image_ab"]).astype(float).reshape(-1, 3)
            for one in examples
        ]
    )
    embeddings = np.array(
        [one["image_embedding"] for one in examples if "image_embedding" in one], float
    ).reshape(len(examples), -1)
    # Bins centred at the multiples of ten from -110 to 110.
    edges = np.arange(-115, 116, 10)
    counts, _, _ = np.histogram2d(lab[:, 1], lab[:, 2], [edges, edges])
    return Statistics(
        len(examples),
        lab.mean(0),
        lab.var(0),
        embeddings.mean(0),
        embeddings.var(0),
        counts / counts.sum(),
    )


def assert_equal(reported: Statistics, wanted: Statistics) -> None:
    assert reported.examples == wanted.examples
    for name in ("lab_mean", "lab_variance", "embedding_mean", "embedding_variance"):
        np.testing.assert_allclose(
            getattr(reported, name), getattr(wanted, name), rtol=2e-4, atol=2e-4, err_msg=name
        )
    # A pixel on the edge of two bins may be counted in either.
    assert np.abs(reported.ab_frequency - wanted.ab_frequency).sum() < 2e-3
    assert reported.ab_frequency.sum() == pytest.approx(1)


def assert_has_prior(folder: DatasetDir) -> None:
    """Compare `prior_probs.npy` with NumPy on the pixels of the records."""
    points, prior = (
        np.load(f"{folder.path}/{name}.npy") for name in ("pts_in_hull", "prior_probs")
    )
    np.testing.assert_array_equal(points, POINTS)
    ab = np.concatenate(
        [127 * one["image_ab"].reshape(-1, 2) for one in dataset.examples(folder.path)]
    )
    # A pixel in the middle of two bins is in the upper one, as in `expected`.
    nearest = cKDTree(points).query(10 * np.floor(ab / 10 + 0.5))[1]
    counts = np.bincount(nearest, minlength=313)
    expected = np.zeros(313)
    for point, share in zip(points, counts / len(ab), strict=True):
        density = np.exp(-((points - point) ** 2).sum(axis=1) / (2 * 5**2))
        expected += share * density / density.sum()
    np.testing.assert_allclose(prior, expected, rtol=1e-3, atol=1e-7)
    assert prior.sum() == pytest.approx(1)


@pytest.mark.parametrize("encoding", ["lab_float32", "lab_uint8", "rgb_png"])
def test_every_statistic_is_numpys(tmp_path, encoding):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, encoding))
    analyze(folder, read_records(folder))
    assert_equal(statistics.read(folder), expected(folder))
    assert_has_prior(folder)
    assert not (tmp_path / "beam-temp-analysis").exists()


def test_commits_add_up(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8", embedding=False))
    records = read_records(folder)
    parts, files = (
        [records[:3], [], records[3:9], records[9:]],
        [f"{tmp_path}/{index}.sums" for index in range(3)],
    )
    for part, before, after in zip(parts, [None, *files], [*files, None], strict=True):
        assert not (tmp_path / "transform").exists()
        analyze(folder, part, before, after)
    assert_equal(statistics.read(folder), expected(folder))
    assert_has_prior(folder)


def test_no_example_at_all(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    analyze(folder, [])
    reported = statistics.read(folder)
    assert reported.examples == 0
    assert not reported.ab_frequency.any()
    for example in dataset.load(folder.path, transformed=True):
        assert np.isfinite(example["image_weight"]).all()
        assert not example["image_embedding"].numpy().any()


def weights(frequency: np.ndarray) -> np.ndarray:
    """An independent implementation of section 2.2 of Zhang et al. 2016."""
    reached = [(a // 10 + 11, b // 10 + 11) for a, b in POINTS.tolist()]
    smoothed = np.zeros((23, 23))
    for index in np.ndindex(23, 23):
        if frequency[index]:
            near = {
                other: np.exp(-100 * ((index[0] - other[0]) ** 2 + (index[1] - other[1]) ** 2) / 50)
                for other in reached
            }
            for other, share in near.items():
                smoothed[other] += frequency[index] * share / sum(near.values())
    inverse = 1 / (smoothed / 2 + 1 / (2 * len(reached)))
    return inverse / (frequency * inverse).sum()


def test_transformed_examples(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_float32"))
    analyze(folder, read_records(folder))
    plain = {
        example["image_name"]: example for example in dataset.load(folder.path).as_numpy_iterator()
    }
    changed = list(dataset.load(folder.path, transformed=True).as_numpy_iterator())
    scores = np.array([example["image_embedding"] for example in changed])
    np.testing.assert_allclose(scores.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scores.var(0), 1, atol=1e-4)
    table = weights(statistics.read(folder).ab_frequency.astype(float))
    shares = []
    for example in changed:
        other = plain[example["image_name"]]
        assert set(example) == {*other, "image_weight"}
        bins = np.floor(other["image_ab"] * 12.7 + 11.5).astype(int)
        shares.append(example["image_weight"].mean())
        np.testing.assert_allclose(
            example["image_weight"][..., 0], table[bins[..., 0], bins[..., 1]], rtol=1e-4
        )
        assert example["image_weight"].shape == (SIZE, SIZE, 1)
        for name in ("image_l", "image_ab", "image_url", "original_width"):
            np.testing.assert_array_equal(example[name], other[name])
    assert np.mean(shares) == pytest.approx(1, abs=1e-3)


def test_a_shard_that_lacks_examples_is_named_when_transformed_too(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    analyze(folder, read_records(folder))
    [shard] = tmp_path.glob("lab_images_00000-*.tfrecord")
    images = dataset.load(folder.path, transformed=True)
    cut_shard(shard, 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{shard} holds 2 examples, not 5"):
        list(images)


def test_rare_colours_weigh_more():
    frequency = np.zeros((23, 23))
    frequency[11, 11], frequency[14, 14] = 0.9, 0.1
    reported = (
        preprocessing_fn.rebalance(tf.constant(frequency.reshape(-1))).numpy().reshape(23, 23)
    )
    assert reported[11, 11] < 1 < reported[14, 14] < reported[5, 16]
    assert (frequency * reported).sum() == pytest.approx(1)
    np.testing.assert_allclose(reported[11, 11], weights(frequency)[11, 11])


def test_tfx_reads_what_is_written(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    analyze(folder, read_records(folder))
    output = tft.TFTransformOutput(str(tmp_path / "transform"))
    assert output.raw_feature_spec() == tf_decode.feature_spec(folder.info.features)
    assert output.transformed_feature_spec()["image_weight"] == tf.io.FixedLenFeature(
        [SIZE, SIZE, 1], tf.float32
    )
    [path] = (tmp_path / "transform" / "metadata").rglob("schema.pbtxt")
    schema = text_format.Parse(path.read_text(), schema_pb2.Schema())
    assert {feature.name for feature in schema.feature} == set(folder.info.features)


@pytest.fixture
def photographs(tmp_path) -> str:
    (tmp_path / "photographs").mkdir()
    for index in range(9):
        (tmp_path / "photographs" / f"{index}.jpg").write_bytes(image(f"{index}.jpg"))
    return str(tmp_path / "photographs" / "*.jpg")


@pytest.mark.parametrize("commits", [[], ["--urls_per_commit", "4"]])
def test_a_run_learns_of_its_training_examples(photographs, tmp_path, commits):
    output = tmp_path / "dataset"
    options = (
        "--checkpoint none --image_size 24 --validation_fraction 0.3 --statistics "
        f"--report=false --output {output}"
    )
    assert run.main(["--images", photographs, *options.split(), *commits]) == 0
    folder = dataset_dir.open_dataset_dir(output)
    assert_equal(statistics.read(folder), expected(folder))
    assert_has_prior(folder)
    assert {"pts_in_hull.npy", "prior_probs.npy"} < set(folder.info.file_sizes)
    listed = {name for name in folder.info.file_sizes if not name.startswith("transform/")}
    assert {path.name for path in Path(output).iterdir()} == {
        *listed,
        *folder.info.index_names,
        *("README.md", "croissant.json", "dataset.json"),
        "metrics.json",
        "transform",
    }
    assert validation.check(folder)[0] == []
    (output / "transform" / "transform_fn" / "saved_model.pb").write_bytes(b"")
    (output / "transform" / "stranger").write_bytes(b"")
    one, other = validation.check(folder)[0]
    assert one.startswith("transform/transform_fn/saved_model.pb has 0 bytes")
    assert other == "transform is unknown: dataset.json does not list all in it"
    (output / "transform" / "stranger").unlink()

    assert (
        run.main(
            [
                "--images",
                photographs,
                *options.split(),
                *commits,
                "--overwrite",
                "--statistics=false",
            ]
        )
        == 0
    )
    assert not (output / "transform").exists()
    assert not list(output.glob("*.npy"))
