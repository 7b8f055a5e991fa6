"""A sample of the filtered images with pictures, `filtered_sample.jsonl`.

For each reason it holds the images whose names, which are hashes, are the smallest: the same on
every run and runner.
"""

from __future__ import annotations

import base64
import collections
import heapq
import json
from collections.abc import Iterable

from beam_pipeline.elements import DroppedImage
from beam_pipeline.images import decoding, lab_color, thumbnails
from beam_pipeline.redaction import redact

MAX_IMAGES = 12  # for each reason; fills rows of two, three or four

# The name of an image, and its line.
Line = tuple[str, str]


def describe(dropped: DroppedImage, is_padded: bool) -> Line:
    """Return the line of a filtered image: a JSON object with the JPEG of `thumbnails.make_pair`.

    Args:
      dropped: The image.
      is_padded: Whether it was resized with `pad`.
    """
    image, failure = dropped
    pixels = image.pixels
    if is_padded:
        pixels = decoding.crop_padding(pixels, image.original_size)
    picture, size = thumbnails.make_pair(lab_color.rgb_to_lab(pixels))
    fields = {
        **failure.as_json(),
        "url": redact(image.ref.url_text),
        "original_size": image.original_size,
        "picture": base64.b64encode(picture).decode(),
        "picture_size": size,
    }
    return image.ref.name, json.dumps(fields)


def merge(samples: Iterable[Iterable[Line]]) -> list[Line]:
    """Return the lines of the smallest names in samples of one reason."""
    return heapq.nsmallest(MAX_IMAGES, {line for sample in samples for line in sample})


def serialize(lines: Iterable[Line]) -> bytes:
    """Return the content of a file with lines, by the names of the images."""
    return "".join(f"{line}\n" for _, line in sorted(lines)).encode()


def merge_files(files: Iterable[bytes]) -> list[Line]:
    """Return the merged lines of files, which are results of `serialize`."""
    samples: dict[str, list[Line]] = collections.defaultdict(list)
    for content in files:
        for line in content.decode().splitlines():
            fields = json.loads(line)
            lines = samples[fields["reason"]]
            lines[:] = merge([lines, [(fields["name"], line)]])
    return [line for lines in samples.values() for line in lines]
