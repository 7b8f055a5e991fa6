"""Other sources of an image that is gone: stored copies, and captures of an archive."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib

import yarl

from beam_pipeline.config import CAPTURE_TIME, GONE, Config
from beam_pipeline.elements import EncodedImage, Failure, ImageRef, Problem
from beam_pipeline.fetching import http_urls, stored_images
from beam_pipeline.fetching.web_client import Bundle, WebClient
from beam_pipeline.redaction import redact


class Fallback:
    """Asks the sources of `--fallback_images` and `--fallback` once for each image that is gone."""

    def __init__(self, config: Config, web: WebClient, slots: asyncio.Semaphore):
        """Initialize the fallback.

        Args:
          config: The options.
          web: Fetches captures.
          slots: Held while a stored copy is read.
        """
        self._config, self._web, self._slots = config, web, slots

    async def rescue(
        self, outcome: EncodedImage | Failure, bundle: Bundle
    ) -> EncodedImage | Failure:
        """Return an image of another source for one that is gone, and any other outcome unchanged.

        If no source has it, the failure keeps the reason of the origin, with all of them in
        `detail`.
        """
        failure = _find_placeholder(outcome, bundle)
        if isinstance(failure, EncodedImage) or failure.reason not in GONE:
            return failure
        gone, details = Problem(failure.reason, failure.detail), [failure.detail]
        attempts = failure.attempts
        for source in (self._read_copy, self._fetch_capture):
            found = await source(failure.ref, bundle)
            if found is None:
                continue
            attempts += found.attempts
            if isinstance(found, EncodedImage):
                return dataclasses.replace(found, ref=failure.ref, attempts=attempts, gone=gone)
            details.append(f"fallback: {found.reason}: {found.detail}")
        return dataclasses.replace(failure, detail="; ".join(details), attempts=attempts)

    async def _read_copy(self, ref: ImageRef, bundle: Bundle) -> EncodedImage | Failure | None:
        if ref.fallback is None:
            return None
        url, location = ref.fallback
        copy = dataclasses.replace(ref, url=url, location=location)
        async with self._slots:
            read = stored_images.read_file
            found = await asyncio.to_thread(read, copy, self._config.max_image_bytes)
            if isinstance(found, EncodedImage):
                await self._web.reserve(bundle, found.data)
        return found

    async def _fetch_capture(self, ref: ImageRef, bundle: Bundle) -> EncodedImage | Failure | None:
        captures = captures_of(self._config.fallback_url)
        if self._config.fallback == "none" or ref.url.startswith(captures):
            return None
        if redact(ref.url) != ref.url:
            detail = "the archive is not asked, because the URL holds credentials"
            return Failure(ref, "fetch", "disallowed", detail)
        url = http_urls.parse(ref.url)
        return await self._web.fetch_from(ref, capture_url(captures, url), bundle)


def captures_of(archive: str) -> str:
    """Return the URL with which those of an archive's captures begin.

    >>> captures_of("https://web.archive.org")
    'https://web.archive.org/web/'
    """
    base = archive.rstrip("/")
    has_path = base.count("/") > 2  # those of https://
    return f"{base}/" if has_path else f"{base}/web/"


def capture_url(captures: str, url: yarl.URL) -> yarl.URL:
    """Return the URL that an archive redirects to the earliest capture of a URL, as it was sent.

    Args:
      captures: The result of `captures_of`.
      url: A URL that `http_urls.parse` returned.
    """
    return http_urls.parse(f"{captures}{CAPTURE_TIME}id_/{url.origin()}{url.raw_path}")


def _find_placeholder(outcome: EncodedImage | Failure, bundle: Bundle) -> EncodedImage | Failure:
    """Return the failure of an image whose body is excluded, and any other outcome unchanged."""
    if isinstance(outcome, Failure) or not bundle.excluded:
        return outcome
    digest = hashlib.sha256(outcome.data).hexdigest()
    if digest not in bundle.excluded:
        return outcome
    bundle.release(outcome.data)
    return outcome.fail("fetch", Problem("placeholder", f"its sha256 {digest} is excluded"))
