"""Measure the library calls that do the job's task, each alone in a loop.

The unit is processor milliseconds per image. For one of the calls, rgb2lab, the job has a faster
implementation of its own.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
import google_crc32c
import numpy as np
from PIL import Image, ImageOps
from skimage import color

from benchmarks import photographs

SIDE = 299


def milliseconds(function: Callable[[Any], Any], images: Iterable[Any]) -> float:
    """Return the median of five rounds."""
    images, rounds = list(images), []
    for _ in range(5):
        began = time.process_time()
        for image in images:
            function(image)
        rounds.append((time.process_time() - began) / len(images) * 1000)
    return float(np.median(rounds))


def main(origin: str) -> None:
    files = photographs.make_photographs()
    decoded = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    fitted = (SIDE, round(SIDE * photographs.HEIGHT / photographs.WIDTH))
    resized = [image.resize(fitted, Image.Resampling.LANCZOS) for image in decoded]
    pixels = [np.asarray(ImageOps.pad(image, (SIDE, SIDE), color="white")) for image in resized]
    labs = [color.rgb2lab(image.astype(np.float32) / 255) for image in pixels]
    planes = [(lab[..., :1] / 50 - 1).tobytes() + (lab[..., 1:] / 127).tobytes() for lab in labs]
    padded = [ImageOps.pad(image, (SIDE, SIDE), color="white") for image in resized]
    pngs = [_png(image) for image in padded]
    with tempfile.TemporaryFile(buffering=0) as file:
        milliseconds_of = {
            "decode": milliseconds(lambda data: Image.open(io.BytesIO(data)).load(), files),
            "resize": milliseconds(
                lambda image: image.resize(fitted, Image.Resampling.LANCZOS), decoded
            ),
            "rgb2lab": milliseconds(
                lambda image: color.rgb2lab(image.astype(np.float32) / 255), pixels
            ),
            "scale": milliseconds(lambda lab: (lab[..., :1] / 50 - 1, lab[..., 1:] / 127), labs),
            "png": milliseconds(_png, padded),
            "crc": milliseconds(google_crc32c.value, planes),
            "write": milliseconds(file.write, planes),
            "crc png": milliseconds(google_crc32c.value, pngs),
            "write png": milliseconds(file.write, pngs),
            "request": asyncio.run(_request(origin)),
        }
    print(json.dumps(milliseconds_of))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_type=zlib.Z_RLE)
    return file.getvalue()


async def _request(origin: str) -> float:
    async with aiohttp.ClientSession() as session:

        async def get(index: int) -> None:
            async with session.get(f"{origin}/0.0/{index}.jpg") as answer:
                await answer.read()

        await get(0)
        began = time.process_time()
        for index in range(500):
            await get(index)
        return (time.process_time() - began) / 500 * 1000


def repeat(seconds: str) -> None:
    """Decode, resize and convert for `seconds`; print images per second.

    This is the upper bound for one process on one processor.
    """
    files = photographs.make_photographs()
    began, images = time.monotonic(), 0
    while time.monotonic() - began < float(seconds):
        image = (
            Image.open(io.BytesIO(files[images % len(files)]))
            .convert("RGB")
            .resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        )
        color.rgb2lab(np.asarray(image).astype(np.float32) / 255)
        images += 1
    print(images / (time.monotonic() - began))


if __name__ == "__main__":
    main(sys.argv[1])
