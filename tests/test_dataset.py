"""Tests of reading a dataset: every encoding returns the same tensors."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apache_beam as beam
import keras
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.testing.util import assert_that, equal_to
from store import PREFIX
from written_dataset import EMBEDDINGS, PIXELS, SIZE, cut_shard, write_dataset

from beam_pipeline import dataset
from beam_pipeline.elements import ImageRef
from beam_pipeline.images import lab_color
from beam_pipeline.records import tf_decode, tfrecord


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(
    ("encoding", "l_error", "ab_error"),
    [
        ("lab_float32", 0, 0),
        ("lab_uint8", 0.5 / 2.55 / 50 + 1e-6, 0.5 / 127 + 1e-6),
        ("rgb_png", 1e-4, 1e-4),
    ],
)
def test_gives_the_same_tensors_for_every_encoding(
    tmp_path, encoding, l_error, ab_error, compression
):
    examples = list(dataset.load(write_dataset(tmp_path, encoding, compression)))
    assert sorted(example["image_url"].numpy().decode() for example in examples) == sorted(
        f"http://a/{index}" for index in range(10)
    )
    for example in examples:
        index = int(example["image_url"].numpy().decode().rpartition("/")[2])
        l, ab = lab_color.scale_lab(lab_color.rgb_to_lab(PIXELS[index]))
        for name, wanted, error in (("image_l", l, l_error), ("image_ab", ab, ab_error)):
            assert example[name].dtype == tf.float32
            assert example[name].shape == wanted.shape
            np.testing.assert_allclose(example[name].numpy(), wanted, atol=error, rtol=0)
        np.testing.assert_array_equal(example["image_embedding"].numpy(), EMBEDDINGS[index])
        assert example["image_id"].numpy().decode() == f"n0000000{index % 3}_{index}"
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
    (tmp_path / "lab_images_00000-of-00009.tfrecord").write_bytes(b"left by something else")
    assert len(list(dataset.load(folder))) == 10


def test_order_is_the_same_each_time(tmp_path):
    folder = write_dataset(tmp_path, "lab_uint8")
    first, again = (
        [example["image_url"].numpy() for example in dataset.load(folder)] for _ in range(2)
    )
    assert first == again


def test_an_unfinished_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        dataset.load(str(tmp_path))


def test_lab_in_tensorflow_is_that_of_scikit_image():
    levels = np.array([0, 1, 5, 9, 10, 11, 12, 13, 60, 128, 200, 254, 255], np.uint8)
    pixels = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, len(levels), 3)
    lab = tf_decode.rgb_to_lab(pixels).numpy()
    assert lab.dtype == np.float32
    np.testing.assert_allclose(lab, lab_color.rgb_to_lab(pixels), atol=1e-3, rtol=0)


def test_feeds_keras_as_the_docstring_says(tmp_path):
    images = dataset.load(write_dataset(tmp_path, "rgb_png"))
    pairs = images.map(
        lambda image: ((image["image_l"], image["image_embedding"]), image["image_ab"])
    )
    plane, embedding = keras.Input((SIZE, SIZE, 1)), keras.Input((1001,))
    hint = keras.layers.Reshape((1, 1, 2))(keras.layers.Dense(2)(embedding))
    model = keras.Model([plane, embedding], keras.layers.Conv2D(2, 3, padding="same")(plane) + hint)
    model.compile("adam", "mse")
    history = model.fit(pairs.shuffle(10).batch(4).prefetch(tf.data.AUTOTUNE), epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])


def test_beam_reads_the_records_too(tmp_path):
    folder = write_dataset(tmp_path, "lab_uint8")
    with beam.Pipeline() as pipeline:
        names = (
            pipeline
            | beam.io.ReadFromTFRecord(f"{folder}/lab_images_00000-of-00003.tfrecord")
            | beam.Map(tf.train.Example.FromString)
            | beam.Map(lambda example: example.features.feature["image_id"].bytes_list.value[0])
        )
        assert_that(names, equal_to([b"n0000000%d_%d" % (n % 3, n) for n in range(5)]))


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("encoding", ["lab_float32", "lab_uint8", "rgb_png"])
def test_examples_are_what_tensorflow_reads(tmp_path, encoding, compression):
    folder = write_dataset(tmp_path, encoding, compression)
    for split in ("train", "validation"):
        theirs = {
            example["image_name"]: example
            for example in dataset.load(folder, split).as_numpy_iterator()
        }
        ours = list(dataset.examples(folder, split))
        assert len(ours) == len(theirs) == len(dataset.examples(folder, split))
        for example in ours:
            other = theirs[example["image_name"]]
            assert set(example) == set(other)
            for name, value in example.items():
                if isinstance(value, np.ndarray):
                    assert (value.dtype, value.shape, value.flags.writeable) == (
                        np.float32,
                        other[name].shape,
                        True,
                    )
                    np.testing.assert_allclose(value, other[name], atol=2e-6, rtol=0, err_msg=name)
                else:
                    assert value == other[name]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_examples_are_found_by_number(tmp_path, compression):
    examples = dataset.examples(write_dataset(tmp_path, "lab_uint8", compression))
    urls = [example["image_url"] for example in examples]
    order = np.random.default_rng(1).permutation(len(examples))
    again = pickle.loads(pickle.dumps(examples))
    assert [again[number]["image_url"] for number in order] == [urls[number] for number in order]
    assert examples[-1]["image_url"] == urls[-1]
    assert [example["image_url"] for example in examples[3:9:2]] == urls[3:9:2]
    for number in (10, -11):
        with pytest.raises(IndexError, match=f"example {number} of 10"):
            examples[number]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda number: examples[number]["image_url"], range(10))) == urls


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["disk", "store"])
def test_an_index_replaces_the_search_for_records(tmp_path, prefix, monkeypatch):
    folder = prefix + write_dataset(tmp_path, "lab_uint8")
    urls = [example["image_url"] for example in dataset.examples(folder)]
    searched = []
    find_records = tfrecord.find_records

    def note(file, name):
        searched.append(name)
        return find_records(file, name)

    monkeypatch.setattr(tfrecord, "find_records", note)
    examples = dataset.examples(folder)
    assert [examples[index]["image_url"] for index in range(10)] == urls
    assert searched == []
    for index_file in tmp_path.glob("*.idx"):
        index_file.unlink()
    examples = dataset.examples(folder)
    assert [examples[index]["image_url"] for index in range(10)] == urls
    assert len(searched) == 2


@pytest.mark.parametrize(
    "content", [b"", b"x", b"0 10\n", b"0 99999999999999999999\n" * 5, b"-1 2"]
)
def test_a_wrong_index_is_named(tmp_path, content):
    folder = write_dataset(tmp_path, "lab_uint8")
    index = tmp_path / "lab_images_00001-of-00003.tfrecord.idx"
    index.write_bytes(content)
    assert dataset.examples(folder)[0]["image_url"] == b"http://a/0"
    with pytest.raises(ValueError, match=f"{index} is"):
        dataset.examples(folder)[5]


def test_an_index_of_wrong_places_gives_no_wrong_example(tmp_path):
    folder = write_dataset(tmp_path, "lab_uint8")
    index = tmp_path / "lab_images_00001-of-00003.tfrecord.idx"
    sizes = [int(line.split()[1]) for line in index.read_text().splitlines()]
    index.write_bytes(tfrecord.format_index([sizes[0] + 1, sizes[1] - 1, *sizes[2:]]))
    examples = dataset.examples(folder)
    for number in (5, 6):
        with pytest.raises(ValueError, match=r"00003\.tfrecord does not match its index"):
            examples[number]
    assert examples[7]["image_url"] == b"http://a/7"


def test_examples_need_neither_tensorflow_nor_beam(tmp_path):
    for encoding in ("lab_float32", "rgb_png"):
        (tmp_path / encoding).mkdir()
        write_dataset(tmp_path / encoding, encoding)
    program = """
import sys

class OnlyThese:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in THESE and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(name)

SKIMAGES_OWN = {"scipy", "lazy_loader", "packaging"}
OURS = {"beam_pipeline", "msgspec", "numpy", "PIL", "skimage"}
THESE = {*OURS, *SKIMAGES_OWN, *sys.stdlib_module_names}
sys.meta_path.insert(0, OnlyThese())
from beam_pipeline import dataset
for folder in sys.argv[1:]:
    examples = dataset.examples(folder)
    assert len(list(examples)) == 10 and examples[7]["image_ab"].shape == (16, 16, 2)
"""
    folders = [str(tmp_path / encoding) for encoding in ("lab_float32", "rgb_png")]
    done = subprocess.run(
        [sys.executable, "-c", program, *folders],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr


def test_examples_name_the_shard_that_is_broken(tmp_path):
    folder = write_dataset(tmp_path, "lab_uint8")
    shard = tmp_path / "lab_images_00001-of-00003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{shard} is cut off in record 4"):
        list(dataset.examples(folder))
    with pytest.raises(ValueError, match=f"{shard} does not match its index"):
        dataset.examples(folder)[9]
    other = tf.train.Example().SerializeToString()
    with tf.io.TFRecordWriter(str(shard)) as writer:
        writer.write(other)
    with pytest.raises(
        ValueError,
        match=f"{shard} contains a record that is not an example of this dataset: it contains "
        "nothing",
    ):
        list(dataset.examples(folder))
    with pytest.raises(ValueError, match=f"{shard} does not match its index"):
        dataset.examples(folder)[5]
    Path(f"{shard}.idx").unlink()
    with pytest.raises(ValueError, match=f"{shard} holds 1 examples, not 5"):
        dataset.examples(folder)[5]


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data[:-6] + bytes([data[-6] ^ 1]) + data[-5:]]
)
def test_examples_name_the_compressed_shard_that_is_broken(tmp_path, change):
    folder = write_dataset(tmp_path, "lab_uint8", "gzip")
    shard = tmp_path / "lab_images_00001-of-00003.tfrecord.gz"
    shard.write_bytes(change(shard.read_bytes()))
    with pytest.raises(ValueError, match=f"{shard} cannot be read"):
        list(dataset.examples(folder))
    with pytest.raises(ValueError, match=f"{shard} does not match its index"):
        dataset.examples(folder)[9]


def test_examples_are_what_a_data_loader_batches(tmp_path):
    # PyTorch's default_collate stacks arrays and numbers, and lists bytes.
    batch = dataset.examples(write_dataset(tmp_path, "lab_uint8"))[:4]
    for name, first in batch[0].items():
        values = [example[name] for example in batch]
        assert all(type(value) is type(first) for value in values)
        if isinstance(first, np.ndarray):
            assert np.stack(values).shape == (4, *first.shape)


def test_without_statistics_nothing_is_transformed(tmp_path):
    with pytest.raises(FileNotFoundError, match="made without --statistics"):
        dataset.load(write_dataset(tmp_path, "lab_uint8"), transformed=True)


@pytest.mark.parametrize("kept", [0, 3])
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["disk", "store"])
def test_a_shard_that_lacks_examples_is_named(tmp_path, prefix, compression, kept):
    folder = prefix + write_dataset(tmp_path, "lab_uint8", compression)
    [shard] = tmp_path.glob("lab_images_00001-*[dz]")  # not its index
    images = dataset.load(folder)
    cut_shard(shard, kept)
    message = f"{prefix}{shard} holds {kept} examples, not 5"
    for _ in range(2):  # in each epoch
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            list(images)
    with pytest.raises(ValueError, match=message):
        list(dataset.examples(folder))
    with pytest.raises(ValueError, match=rf"{prefix}{shard} has \d+ bytes, dataset.json lists"):
        dataset.load(folder)


def test_a_shard_with_too_many_examples_is_named(tmp_path):
    folder = write_dataset(tmp_path, "lab_uint8")
    first, second = sorted(tmp_path.glob("lab_images_*.tfrecord"))
    images = dataset.load(folder)
    first.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{first} holds more examples, not 5"):
        list(images)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_shard_that_is_cut_inside_a_record_is_named(tmp_path, compression):
    folder = write_dataset(tmp_path, "lab_uint8", compression)
    [shard] = tmp_path.glob("lab_images_00001-*[dz]")  # not its index
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(ValueError, match=f"{shard} has"):
        dataset.load(folder)
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard} has no bytes"):
        dataset.load(folder)


def test_the_shards_of_a_store_are_read(tmp_path):
    folder = write_dataset(tmp_path, "lab_uint8")
    names = [example["image_name"].numpy() for example in dataset.load(folder)]
    assert [example["image_name"].numpy() for example in dataset.load(PREFIX + folder)] == names
    assert sorted(example["image_name"] for example in dataset.examples(PREFIX + folder)) == sorted(
        names
    )


def test_several_datasets_are_read_as_one(tmp_path):
    """As one and what a later run made of the images that had failed."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, encoding, name in zip(
        folders, ("lab_uint8", "rgb_png"), ("http://a/{}", "http://b/{}"), strict=True
    ):
        folder.mkdir()
        write_dataset(folder, encoding, urls=name)
    urls = {f"http://{host}/{index}".encode() for host in "ab" for index in range(10)}
    images = dataset.load(folders)
    order = [example["image_url"].numpy() for example in images]
    assert set(order) == urls and len(order) == 20
    assert order == [example["image_url"].numpy() for example in images]
    # They are mixed.
    assert {url[:9] for url in order[:10]} == {b"http://a/", b"http://b/"}
    examples = dataset.examples(folders)
    assert [example["image_url"] for example in examples] == [
        examples[index]["image_url"] for index in range(20)
    ]
    assert {example["image_url"] for example in examples} == urls
    assert len(dataset.examples(folders, "validation")) == 4
    assert len(list(dataset.load(folders, "validation"))) == 4


def test_datasets_of_different_shapes_are_not_read_as_one(tmp_path):
    for name, embedding in (("first", True), ("second", False)):
        (tmp_path / name).mkdir()
        write_dataset(tmp_path / name, "lab_uint8", embedding=embedding)
    for read in (dataset.load, dataset.examples):
        with pytest.raises(ValueError, match=r"second has the embedding_size 0, but .*first"):
            read([tmp_path / "first", tmp_path / "second"])
        with pytest.raises(ValueError, match="No folder is given"):
            read([])
    with pytest.raises(ValueError, match="transformed=True needs one folder"):
        dataset.load([tmp_path / "first"] * 2, transformed=True)
