"""Tests of the steps that filter images, and take a sample of the dropped ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from apache_beam.pvalue import TaggedOutput
from output_folder import make_config

from beam_pipeline.elements import DroppedImage, Failure, ImageRef, RgbImage
from beam_pipeline.images.filters import Filters
from beam_pipeline.images.measures import Measures
from beam_pipeline.records.filtered_sample import MAX_IMAGES
from beam_pipeline.transforms.filter_images import SampleDropped, filter_image, filters_of

GREY = Measures(0.0, 0.0, 1.0, 0.0, 0.1, 0.9, 7.0)


def make_image(number: int = 0) -> RgbImage:
    pixels = np.full((8, 8, 3), 99, np.uint8)
    ref = ImageRef("", f"http://a/{number}.jpg")
    return RgbImage(ref, pixels, (8, 4), final_url="http://b/1.jpg", measures=GREY)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Filters()),
        ({"filter_preset": "zhang2016"}, Filters(drop_grey=True)),
        ({"filter_preset": "bigcolor"}, Filters(min_colorfulness=15.0)),
        ({"filter_preset": "unicolor"}, Filters(min_colorfulness=10.0)),
        ({"filter_preset": "zhang2016", "drop_grey": False}, Filters()),
        (
            {"filter_preset": "bigcolor", "min_colorfulness": 0.0, "min_side": 64},
            Filters(min_side=64, min_colorfulness=0.0),
        ),
        (
            {"filter_preset": "zhang2016", "drop_tinted": True, "max_aspect_ratio": 3.0},
            Filters(max_aspect_ratio=3.0, drop_grey=True, drop_tinted=True),
        ),
    ],
)
def test_options_beside_a_preset_win(tmp_path, options, expected):
    assert filters_of(make_config(tmp_path, **options)) == expected


def test_a_dropped_image_is_a_failure(tmp_path):
    image = make_image()
    assert list(filter_image(image, make_config(tmp_path))) == [image]
    failed, dropped = filter_image(image, make_config(tmp_path, drop_grey=True))
    assert isinstance(failed, TaggedOutput) and isinstance(dropped, TaggedOutput)
    assert (failed.tag, dropped.tag) == ("failures", "dropped")
    detail = "max_chroma_ab is 1, at most 5"
    assert failed.value == Failure(image.ref, "filter", "grey", detail, final_url="http://b/1.jpg")
    assert dropped.value == DroppedImage(image, failed.value)


def test_a_bundle_samples_the_smallest_names():
    sampler = SampleDropped("pad")
    sampler.start_bundle()
    images = [make_image(number) for number in range(2 * MAX_IMAGES)]
    for image in images:
        failure = Failure(image.ref, "filter", "grey", "")
        sampler.process(DroppedImage(image, failure))
    [(reason, lines)] = [windowed.value for windowed in sampler.finish_bundle()]
    assert reason == "grey"
    assert (
        sorted(name for name, _ in lines) == sorted(image.ref.name for image in images)[:MAX_IMAGES]
    )
    # Without its padding, the picture is twice as wide as high, and beside its grey twin.
    assert json.loads(lines[0][1])["picture_size"] == [16, 4]
