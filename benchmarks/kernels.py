"""Measure the calls that do the job's task, each alone in a loop, in processor milliseconds.

They are those of the job: what the job takes beyond them is Beam, threads, the event loop and
bookkeeping.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
import google_crc32c
import numpy as np
from PIL import Image
from skimage import color

from beam_pipeline.images import decoding, lab_color, measures, png_notes, resizing
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
    resized = [np.asarray(resizing.resize(image, fitted)) for image in decoded]
    squares = [np.asarray(decoding.make_square(image, SIDE, "pad")) for image in decoded]
    labs = [lab_color.rgb_to_lab(square) for square in squares]
    pairs = list(zip(resized, [lab_color.rgb_to_lab(image) for image in resized], strict=True))
    planes = [b"".join(part.tobytes() for part in lab_color.scale_lab(lab)) for lab in labs]
    pngs = [png_notes.encode_png(square) for square in squares]
    with tempfile.TemporaryFile(buffering=0) as file:
        milliseconds_of = {
            "decode": milliseconds(lambda data: Image.open(io.BytesIO(data)).load(), files),
            "sha256": milliseconds(lambda data: hashlib.sha256(data).digest(), files),
            "resize": milliseconds(lambda image: resizing.resize(image, fitted), decoded),
            "lab": milliseconds(lab_color.rgb_to_lab, squares),
            "measures": milliseconds(lambda pair: measures.measure(*pair), pairs),
            "scale": milliseconds(lab_color.scale_lab, labs),
            "png": milliseconds(png_notes.encode_png, squares),
            "crc": milliseconds(google_crc32c.value, planes),
            "write": milliseconds(file.write, planes),
            "crc png": milliseconds(google_crc32c.value, pngs),
            "write png": milliseconds(file.write, pngs),
            "request": asyncio.run(_request(origin)),
        }
    print(json.dumps(milliseconds_of))


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
