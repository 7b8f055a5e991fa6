"""Tests of the sample of filtered images."""

from __future__ import annotations

import base64
import io
import json
import random

import numpy as np
from PIL import Image

from beam_pipeline.elements import DroppedImage, Failure, ImageRef, RgbImage
from beam_pipeline.records import filtered_sample
from beam_pipeline.records.filtered_sample import MAX_IMAGES


def make_line(number: int, reason: str = "grey", **fields) -> filtered_sample.Line:
    ref = ImageRef(f"id {number}", f"https://me:secret@a/{number}\u2028.jpg")
    image = RgbImage(ref, np.zeros((40, 40, 3), np.uint8), (400, 200), **fields)
    failure = Failure(ref, "filter", reason, "max_chroma_ab is 0, at most 5")
    return filtered_sample.describe(DroppedImage(image, failure), is_padded=True)


def test_a_line_has_the_failure_and_a_picture_without_padding():
    name, line = make_line(7)
    fields = json.loads(line)
    assert name == fields["name"] == ImageRef("", "https://me:secret@a/7\u2028.jpg").name
    assert (fields["id"], fields["stage"], fields["reason"]) == ("id 7", "filter", "grey")
    assert "secret" not in line and fields["original_size"] == [400, 200]
    with Image.open(io.BytesIO(base64.b64decode(fields["picture"]))) as image:
        assert list(image.size) == fields["picture_size"] == [80, 20]


def test_any_order_of_bundles_and_commits_gives_the_same_sample():
    lines = [make_line(number, reason) for number in range(30) for reason in ("grey", "tinted")]
    by_reason = {
        reason: sorted(line for line in lines if json.loads(line[1])["reason"] == reason)
        for reason in ("grey", "tinted")
    }
    expected = sorted(line for each in by_reason.values() for line in each[:MAX_IMAGES])
    for seed in range(3):
        random.Random(seed).shuffle(lines)
        files = [
            filtered_sample.serialize(
                line
                for reason in by_reason
                for line in filtered_sample.merge(
                    [line for line in lines[half] if json.loads(line[1])["reason"] == reason][k::2]
                    for k in range(2)
                )
            )
            for half in (slice(0, 25), slice(25, None))
        ]
        assert sorted(filtered_sample.merge_files(files)) == expected
    assert filtered_sample.merge_files([]) == [] and filtered_sample.serialize([]) == b""
