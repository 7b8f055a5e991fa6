"""From the bodies of image files to pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from apache_beam.pvalue import TaggedOutput

from beam_pipeline.config import NETWORK_SIZE, Config
from beam_pipeline.elements import EncodedImage, Failure, RgbImage
from beam_pipeline.images import decoding, png_notes


def check_body(
    image: EncodedImage, excluded: frozenset[str]
) -> Iterator[EncodedImage | TaggedOutput]:
    """Separate placeholders from images, and count bodies.

    Yields:
      `(sha256 in hex, (1, URL))` with the tag "digests"; then the image, or a `Failure` with the
      tag "failures" if its sha256 is excluded.
    """
    digest = hashlib.sha256(image.data).hexdigest()
    yield TaggedOutput("digests", (digest, (1, image.ref.url_text)))
    if digest in excluded:
        detail = f"its sha256 {digest} is excluded"
        yield TaggedOutput(
            "failures",
            Failure(image.ref, "fetch", "placeholder", detail, image.attempts, image.final_url),
        )
    else:
        yield image


def decode_image(image: EncodedImage, config: Config) -> RgbImage | TaggedOutput:
    try:
        network_size = NETWORK_SIZE if config.has_network else None
        decoded = decoding.decode(
            image.data, config.image_size, config.resize, config.max_image_pixels, network_size
        )
        original_size = png_notes.read_note(image.data) if image.is_resized else None
        # An image that an earlier run kept has no attempts.
        body = image.data if config.original_dir and image.attempts and not config.images else None
        return RgbImage(
            image.ref,
            decoded.pixels,
            original_size or decoded.original_size,
            decoded.network_pixels,
            body,
        )
    except decoding.DecodeError as error:
        failure = Failure(
            image.ref, "decode", error.reason, error.detail, image.attempts, image.final_url
        )
        return TaggedOutput("failures", failure)
