"""Tests of decoding in the graph: what an image carries to the network and to its record."""

from __future__ import annotations

import io

import numpy as np
import pytest
import skimage.data
from apache_beam.pvalue import TaggedOutput
from output_folder import make_config
from PIL import Image

from beam_pipeline.elements import EmbeddedImage, EncodedImage, ImageRef, RgbImage
from beam_pipeline.images import lab_color, measures
from beam_pipeline.transforms.decode_images import check_body, decode_image
from beam_pipeline.transforms.encode_examples import encode_example

REF = ImageRef("n1", "http://a/1.jpg")


def jpeg(width: int = 64, height: int = 32, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(skimage.data.astronaut()).resize((width, height)).convert(mode)
    image.save(file, "JPEG")
    return file.getvalue()


def decode(config, data: bytes | None = None, **fields) -> RgbImage:
    image = EncodedImage(REF, data or jpeg(), 1, "http://b/1.jpg", sha256="ab", **fields)
    decoded = decode_image(image, config)
    assert isinstance(decoded, RgbImage)
    return decoded


def test_measures_are_those_of_the_image_without_padding(tmp_path):
    image = decode(make_config(tmp_path, image_size=32))
    inside = image.pixels[8:24]
    assert (image.pixels[:8] == 255).all() and (image.pixels[24:] == 255).all()
    assert image.measures == measures.measure(inside, lab_color.rgb_to_lab(inside))
    assert image.original_size == (64, 32) and image.final_url == "http://b/1.jpg"


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_without_padding_the_square_is_measured(tmp_path, resize):
    image = decode(make_config(tmp_path, image_size=32, resize=resize))
    lab = lab_color.rgb_to_lab(image.pixels)
    assert image.measures == measures.measure(image.pixels, lab)


def test_lab_waits_for_the_network(tmp_path):
    config = make_config(tmp_path, image_size=32, checkpoint="untrained")
    image = decode(config)
    assert image.network_pixels is not None and image.lab is not None
    np.testing.assert_array_equal(image.lab, lab_color.rgb_to_lab(image.pixels))
    # The record is the same without it.
    embedded = EmbeddedImage(image, np.zeros(1001, np.float32))
    bare = EmbeddedImage(decode(config), np.zeros(1001, np.float32))
    object.__setattr__(bare.image, "lab", None)
    assert encode_example(embedded, config, None) == encode_example(bare, config, None)


@pytest.mark.parametrize("options", [{"encoding": "rgb_png"}, {"image_size": 800}])
def test_lab_that_is_not_needed_or_large_is_not_kept(tmp_path, options):
    config = make_config(tmp_path, **{"image_size": 32, "checkpoint": "untrained", **options})
    image = decode(config)
    assert image.lab is None and image.measures is not None


@pytest.mark.parametrize("near_duplicates", [True, False])
def test_the_hash_is_optional(tmp_path, near_duplicates):
    image = decode(make_config(tmp_path, image_size=64, near_duplicates=near_duplicates))
    assert (image.hash is not None) is near_duplicates


def test_what_is_no_image_is_a_failure(tmp_path):
    image = EncodedImage(REF, b"<html>", 2, "http://b/", sha256="ab")
    failed = decode_image(image, make_config(tmp_path))
    assert isinstance(failed, TaggedOutput) and failed.tag == "failures"
    assert (failed.value.stage, failed.value.reason) == ("decode", "not_an_image")
    assert (failed.value.attempts, failed.value.final_url) == (2, "http://b/")


def test_a_body_is_counted_and_checked():
    image = EncodedImage(REF, b"body", 1, "http://b/")
    digest, passed = check_body(image, frozenset())
    assert isinstance(digest, TaggedOutput) and digest.tag == "digests"
    sha256, counted = digest.value
    assert counted == (1, "http://a/1.jpg")
    assert isinstance(passed, EncodedImage) and passed.sha256 == sha256
    _, failed = check_body(image, frozenset([sha256]))
    assert isinstance(failed, TaggedOutput) and failed.value.reason == "placeholder"
