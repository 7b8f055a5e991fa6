"""Tests of the network against the published TF-Slim definition, up to the records of a run."""

import concurrent.futures
import json
import threading
from pathlib import Path

import apache_beam as beam
import keras
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from PIL import Image
from test_checkpoints import write_checkpoint

from beam_pipeline import dataset, run
from beam_pipeline.elements import ImageRef, RgbImage
from beam_pipeline.embedding import inception_resnet_v2

REFERENCE = np.load(Path(__file__).parents[1] / "data" / "logits.npz")
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def network() -> inception_resnet_v2.Network:
    # Layers of another model take names from the same counter as the network's layers.
    keras.Sequential(
        [keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization(), keras.layers.Conv2D(2, 3)]
    )
    return inception_resnet_v2.load_network("untrained", "float32")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index, pixels in enumerate(REFERENCE["pixels"]):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_logits_are_the_references(network):
    np.testing.assert_allclose(
        network.embed(REFERENCE["pixels"]), REFERENCE["logits"], atol=TOLERANCE, rtol=0
    )


def test_logits_do_not_depend_on_the_batch(network):
    alone = network.embed(REFERENCE["pixels"][2:3])
    np.testing.assert_allclose(alone, REFERENCE["logits"][2:3], atol=TOLERANCE, rtol=0)


def test_front_end_sees_the_references_grey(network):
    grey = np.repeat(REFERENCE["grey"][..., np.newaxis], 3, axis=-1)
    np.testing.assert_allclose(network.embed(grey), REFERENCE["logits"], atol=TOLERANCE, rtol=0)


def test_the_network_sees_its_own_square_of_an_image(network):
    stored = np.zeros((64, 64, 3), np.uint8)
    images = [
        RgbImage(ImageRef("", ""), stored, (500, 375), pixels) for pixels in REFERENCE["pixels"][:2]
    ]
    images.append(RgbImage(ImageRef("", ""), REFERENCE["pixels"][2], (500, 375)))
    embedded = list(
        inception_resnet_v2.EmbeddingHandler("untrained", "float32", 3).run_inference(
            images, network
        )
    )
    logits = np.stack([image.embedding for image in embedded if image.embedding is not None])
    np.testing.assert_allclose(logits, REFERENCE["logits"][:3], atol=TOLERANCE, rtol=0)
    # The pixels are not needed any more, and each array takes 0.3 MB.
    assert all(image.image.network_pixels is None for image in embedded)


def test_threads_share_one_network(monkeypatch):
    made, all_ask = [], threading.Event()

    class SlowNetwork:
        def __init__(self, *unused_arguments):
            made.append(self)
            all_ask.wait(1)

        def embed(self, pixels):
            return pixels

    monkeypatch.setattr(inception_resnet_v2, "_networks", {})
    monkeypatch.setattr(inception_resnet_v2, "Network", SlowNetwork)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        asked = [
            threads.submit(inception_resnet_v2.load_network, "untrained", "float32")
            for _ in range(8)
        ]
        all_ask.set()
        assert {future.result() for future in asked} == set(made)
    assert len(made) == 1


def test_building_leaves_the_dtype_policy_of_the_process_alone(network):
    assert keras.config.dtype_policy().name == "float32"


def test_handler_keeps_each_embedding_with_its_image(network):
    handler = inception_resnet_v2.EmbeddingHandler("untrained", "float32", 2)
    batch = [
        RgbImage(ImageRef("", str(index)), pixels, (1, 1))
        for index, pixels in enumerate(REFERENCE["pixels"])
    ]
    embedded = list(handler.run_inference(batch, network))
    assert [image.ref.url for image in embedded] == ["0", "1", "2", "3"]
    for image, logits in zip(embedded, REFERENCE["logits"], strict=True):
        assert image.embedding is not None and image.embedding.dtype == np.float32
        np.testing.assert_allclose(image.embedding, logits, atol=TOLERANCE, rtol=0)
    assert handler.get_num_bytes(batch) == REFERENCE["pixels"].nbytes


@pytest.mark.parametrize("version", [1, 2])
def test_records_of_a_run_hold_the_references_logits(version, images, tmp_path, monkeypatch):
    monkeypatch.setattr(inception_resnet_v2, "_networks", {})
    made, network = [], inception_resnet_v2.Network

    def build(*arguments: str) -> inception_resnet_v2.Network:
        made.append(arguments)
        return network(*arguments)

    monkeypatch.setattr(inception_resnet_v2, "Network", build)
    checkpoint = write_checkpoint(tmp_path / "model.ckpt", version)
    output = tmp_path / "dataset"
    status = run.main(
        [
            "--images",
            f"{images}/*.png",
            "--output",
            str(output),
            "--checkpoint",
            str(checkpoint),
            "--batch_size",
            "3",
            "--urls_per_commit",
            "2",
        ]
    )
    assert status == 0
    assert len(made) == 1, "each commit has loaded the network anew"
    examples = {
        Path(example["image_url"].numpy().decode()).stem: example
        for example in dataset.load(str(output))
    }
    assert sorted(examples) == ["0", "1", "2", "3"]
    for index, logits in enumerate(REFERENCE["logits"]):
        embedding = examples[str(index)]["image_embedding"]
        assert embedding.dtype == tf.float32
        np.testing.assert_allclose(embedding.numpy(), logits, atol=TOLERANCE, rtol=0)


def test_records_in_bfloat16_are_near_those_in_float32(network, tmp_path, monkeypatch):
    """Only the network may add an error: all later steps hold embeddings as float32."""
    monkeypatch.setattr(inception_resnet_v2, "_networks", {("untrained", "float32", None): network})
    embeddings = {}
    for index, pixels in enumerate(REFERENCE["pixels"]):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    for precision in ("float32", "bfloat16"):
        output = tmp_path / precision
        options = (
            f"--checkpoint untrained --precision {precision} --statistics=false --report=false"
        )
        assert (
            run.main(["--images", f"{tmp_path}/*.png", "--output", str(output), *options.split()])
            == 0
        )
        examples = sorted(dataset.examples(output), key=lambda example: example["image_url"])
        assert (
            json.loads((output / "dataset.json").read_text())["options"]["precision"] == precision
        )
        embeddings[precision] = np.array([example["image_embedding"] for example in examples])
        assert embeddings[precision].dtype == np.float32
    np.testing.assert_allclose(embeddings["float32"], REFERENCE["logits"], atol=TOLERANCE, rtol=0)
    difference = np.abs(embeddings["bfloat16"] - embeddings["float32"])
    # bfloat16 has 8 bits of precision: it differs, but far less than images do.
    assert 0 < difference.max() < 0.25 * _deviation()
    assert difference.mean() < 0.05 * _deviation()
    # Each image is its own nearest neighbour.
    distances = np.linalg.norm(
        embeddings["bfloat16"][:, None] - embeddings["float32"][None], axis=-1
    )
    assert (distances.argmin(axis=1) == np.arange(len(distances))).all()


def _deviation() -> float:
    """Return the mean standard deviation of a logit over the images.

    The part that all images share carries no information.
    """
    return float(REFERENCE["logits"].std(axis=0).mean())


@pytest.mark.parametrize(("size", "batches"), [(32, [4, 4, 8, 16, 32, 32]), (3, [3, 3, 3])])
def test_batches_grow_to_the_size_that_is_asked_for(size, batches):
    handler = inception_resnet_v2.EmbeddingHandler("untrained", "float32", size)
    with TestPipeline(runner=FnApiRunner()) as pipeline:
        elements = pipeline | beam.Create(range(sum(batches)), reshuffle=False)
        sizes = elements | beam.BatchElements(**handler.batch_elements_kwargs()) | beam.Map(len)
        assert_that(sizes, equal_to(batches))
