"""From the bodies of image files to pixels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

from apache_beam.pvalue import TaggedOutput

from beam_pipeline.config import NETWORK_SIZE, Config
from beam_pipeline.elements import EncodedImage, Problem, RgbImage
from beam_pipeline.images import decoding, lab_color, measures, perceptual_hash, png_notes

# Many images wait for the network. Lab of a larger one is computed again for the record.
_MAX_LAB_BYTES = 4 * 2**20


def check_body(
    image: EncodedImage, excluded: frozenset[str]
) -> Iterator[EncodedImage | TaggedOutput]:
    """Separate placeholders from images, and count bodies.

    Yields:
      `(sha256 in hex, (1, URL))` with the tag "digests"; then the image, or a `Failure` with the
      tag "failures" if its sha256 is excluded, or its digest is not the expected one.
    """
    digest = hashlib.sha256(image.data).hexdigest()
    yield TaggedOutput("digests", (digest, (1, image.ref.url_text)))
    problem = None
    if digest in excluded:
        problem = Problem("placeholder", f"its sha256 {digest} is excluded")
    elif image.ref.digest and not image.is_resized:
        kind, expected = image.ref.digest.split(":")
        found = digest if kind == "sha256" else _md5(image.data)
        if found != expected:
            problem = Problem("wrong_digest", f"its {kind} is {found}, not {expected}")
    if problem:
        yield TaggedOutput("failures", image.fail("fetch", problem))
    else:
        yield dataclasses.replace(image, sha256=digest)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def decode_image(image: EncodedImage, config: Config) -> RgbImage | TaggedOutput:
    """Decode an image and measure it; return a `Failure` with the tag "failures" otherwise."""
    try:
        network_size = NETWORK_SIZE if config.has_network else None
        decoded = decoding.decode(
            image.data, config.image_size, config.resize, config.max_image_pixels, network_size
        )
        original_size = png_notes.read_note(image.data) if image.is_resized else None
        # An image that an earlier run kept has no attempts.
        is_downloaded = image.attempts and image.ref.location is None
        body = image.data if config.original_dir and is_downloaded else None
        rgb = RgbImage(
            image.ref,
            decoded.pixels,
            original_size or decoded.original_size,
            decoded.network_pixels,
            body,
            "" if image.is_resized else image.sha256,
            image.final_url if image.attempts else "",
            image_source=image.image_source,
        )
        return _measure(rgb, config)
    except decoding.DecodeError as error:
        failure = image.fail("decode", Problem(error.reason, error.detail))
        return TaggedOutput("failures", failure)


def _measure(image: RgbImage, config: Config) -> RgbImage:
    """Add the measures, the hash if it is needed, and Lab if the record needs it."""
    lab, size = lab_color.rgb_to_lab(image.pixels), image.original_size
    pixels, colors = image.pixels, lab
    if config.resize == "pad":
        pixels, colors = (decoding.crop_padding(square, size) for square in (pixels, lab))
    is_kept = config.encoding != "rgb_png" and lab.nbytes <= _MAX_LAB_BYTES
    return dataclasses.replace(
        image,
        lab=lab if is_kept else None,
        measures=measures.measure(pixels, colors),
        hash=perceptual_hash.compute_hash(pixels) if config.has_near_duplicates else None,
    )
