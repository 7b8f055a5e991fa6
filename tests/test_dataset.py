"""The same tensors come back from every encoding."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.io import tfrecordio

from beam_pipeline import books, color, dataset, records
from beam_pipeline.config import Config
from beam_pipeline.elements import EmbeddedImage, ImageRef, RgbImage
from beam_pipeline.sinks import Shard

SIZE = 16
RNG = np.random.default_rng(0)
PIXELS = [RNG.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for _ in range(12)]
PIXELS[0][:] = 0
PIXELS[1][:] = 255
EMBEDDINGS = RNG.standard_normal((len(PIXELS), 1001)).astype(np.float32)


def write_dataset(folder, encoding, compression="none", embedding=True):
    """Writes twelve images in three shards, two of them for training, as a run does."""
    options = Config(
        input="urls.txt",
        output=str(folder),
        encoding=encoding,
        compression=compression,
        image_size=SIZE,
        checkpoint="untrained" if embedding else "none",
    )
    shards = []
    for number, (prefix, part) in enumerate(
        [("lab_images", range(0, 5)), ("lab_images", range(5, 10)), ("val_lab_images", range(10, 12))]
    ):
        name = f"{prefix}-{number:05}-of-00003.tfrecord" + (".gz" if compression == "gzip" else "")
        with tf.io.TFRecordWriter(str(folder / name), "GZIP" if compression == "gzip" else "") as writer:
            for index in part:
                image = RgbImage(ImageRef(f"id{index}", f"http://a/{index}"), PIXELS[index])
                writer.write(records.encode_example(EmbeddedImage(image, EMBEDDINGS[index] if embedding else None), encoding))
        shards.append(Shard(name, len(part), (folder / name).stat().st_size))
    books.close_commit(options, 0, True, "", None, {"lines": 12}, shards[:2], shards[2:], [], [])
    return str(folder)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(
    ("encoding", "l_error", "ab_error"),
    [("lab_float32", 0, 0), ("lab_uint8", 0.5 / 2.55 / 50 + 1e-6, 0.5 / 127 + 1e-6), ("rgb_png", 1e-4, 1e-4)],
)
def test_gives_the_same_tensors_for_every_encoding(tmp_path, encoding, l_error, ab_error, compression):
    examples = list(dataset.load(write_dataset(tmp_path, encoding, compression)))
    assert sorted(example["image_url"].numpy().decode() for example in examples) == sorted(
        f"http://a/{index}" for index in range(10)
    )
    for example in examples:
        index = int(example["image_url"].numpy().decode().rpartition("/")[2])
        l, ab = color.scale_lab(color.rgb_to_lab(PIXELS[index]))
        for name, wanted, error in (("image_l", l, l_error), ("image_ab", ab, ab_error)):
            assert example[name].dtype == tf.float32
            assert example[name].shape == wanted.shape
            np.testing.assert_allclose(example[name].numpy(), wanted, atol=error, rtol=0)
        np.testing.assert_array_equal(example["image_embedding"].numpy(), EMBEDDINGS[index])
        assert example["image_id"].numpy().decode() == f"id{index}"
        assert example["image_name"].numpy().decode() == ImageRef("", f"http://a/{index}").name


def test_shapes_are_known_before_anything_is_read(tmp_path):
    for encoding in ("lab_float32", "lab_uint8", "rgb_png"):
        (folder := tmp_path / encoding).mkdir()
        spec = dataset.load(write_dataset(folder, encoding)).element_spec
        assert spec["image_l"] == tf.TensorSpec((SIZE, SIZE, 1), tf.float32)
        assert spec["image_ab"] == tf.TensorSpec((SIZE, SIZE, 2), tf.float32)
        assert spec["image_embedding"] == tf.TensorSpec((1001,), tf.float32)


def test_splits(tmp_path):
    folder = write_dataset(tmp_path, "lab_uint8")
    assert len(list(dataset.load(folder, "validation"))) == 2
    with pytest.raises(ValueError, match="'test' is not known"):
        dataset.load(folder, "test")


def test_no_network_no_embedding(tmp_path):
    [first, *_] = dataset.load(write_dataset(tmp_path, "lab_float32", embedding=False))
    assert "image_embedding" not in first


def test_reads_only_what_the_description_lists(tmp_path):
    folder = write_dataset(tmp_path, "lab_float32")
    (tmp_path / "lab_images-00000-of-00009.tfrecord").write_bytes(b"left by something else")
    assert len(list(dataset.load(folder))) == 10


def test_order_is_the_same_each_time(tmp_path):
    folder = write_dataset(tmp_path, "lab_uint8")
    first, again = ([example["image_url"].numpy() for example in dataset.load(folder)] for _ in range(2))
    assert first == again


def test_an_unfinished_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        dataset.load(str(tmp_path))


def test_lab_in_tensorflow_is_that_of_scikit_image():
    levels = np.array([0, 1, 5, 9, 10, 11, 12, 13, 60, 128, 200, 254, 255], np.uint8)
    pixels = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, len(levels), 3)
    lab = dataset.rgb_to_lab(pixels).numpy()
    assert lab.dtype == np.float32
    np.testing.assert_allclose(lab, color.rgb_to_lab(pixels), atol=1e-3, rtol=0)


def test_feeds_keras_as_the_docstring_says(tmp_path):
    images = dataset.load(write_dataset(tmp_path, "rgb_png"))
    pairs = images.map(lambda image: ((image["image_l"], image["image_embedding"]), image["image_ab"]))
    plane, embedding = keras.Input((SIZE, SIZE, 1)), keras.Input((1001,))
    hint = keras.layers.Reshape((1, 1, 2))(keras.layers.Dense(2)(embedding))
    model = keras.Model([plane, embedding], keras.layers.Conv2D(2, 3, padding="same")(plane) + hint)
    model.compile("adam", "mse")
    history = model.fit(pairs.shuffle(10).batch(4).prefetch(tf.data.AUTOTUNE), epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])


def test_beam_reads_the_records_too(tmp_path):
    folder = write_dataset(tmp_path, "lab_uint8")
    with open(f"{folder}/lab_images-00000-of-00003.tfrecord", "rb") as file:
        record = tfrecordio._TFRecordUtil.read_record(file)
    assert tf.train.Example.FromString(record).features.feature["image_id"].bytes_list.value == [b"id0"]
