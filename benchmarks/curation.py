"""The cost of measures and hashes, and recall and precision of near-duplicates.

    python -m benchmarks.curation --photographs FOLDER

Makes versions of photographs (JPEG quality 40 to 95, scale 0.5 to 1, cut by up to 5%, brightness
+-10%), hashes them as a run does, and compares the pairs that bands find with those of comparing
all. Then measures finding pairs among random hashes, a twentieth of which are like another one.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from beam_pipeline.images import decoding, lab_color, measures, near_duplicates
from beam_pipeline.images.near_duplicates import BANDS, MAX_DISTANCE, MIN_QUALITY
from beam_pipeline.images.perceptual_hash import compute_hash
from benchmarks import photographs
from benchmarks.kernels import milliseconds

_VERSIONS, _SIDE = 8, 299


def measure_costs() -> None:
    """Print the processor milliseconds of the measures, and of the hash, for an image, as JSON."""
    files = photographs.make_photographs()
    pixels = [prepare(Image.open(io.BytesIO(file))) for file in files]
    both = [(image, lab_color.rgb_to_lab(image)) for image in pixels]
    costs = {
        "measures": milliseconds(lambda images: measures.measure(*images), both),
        "hash": milliseconds(compute_hash, pixels),
    }
    print(json.dumps(costs))


def vary(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a version of a photograph."""
    width, height = image.size
    left, top, right, bottom = rng.uniform(0, 0.025, 4) * [width, height, width, height]
    image = image.crop((int(left), int(top), int(width - right), int(height - bottom)))
    scale = rng.uniform(0.5, 1)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.9, 1.1))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(40, 96)))
    return Image.open(file)


def prepare(image: Image.Image) -> np.ndarray:
    """Return the pixels that a run hashes."""
    square = np.asarray(decoding.make_square(image.convert("RGB"), _SIDE, "pad"))
    return np.ascontiguousarray(decoding.crop_padding(square, image.size))


def read_versions(folder: Path) -> Iterator[tuple[int, np.ndarray]]:
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted(folder.glob("*.jpg"))):
        with Image.open(path) as image:
            photograph = image.convert("RGB")
        yield number, prepare(photograph)
        for _ in range(_VERSIONS):
            yield number, prepare(vary(photograph, rng))


def measure_recall(folder: Path) -> None:
    versions = list(read_versions(folder))
    began = time.process_time()
    found = [compute_hash(pixels) for _, pixels in versions]
    seconds = time.process_time() - began
    good = np.array([one.quality >= MIN_QUALITY for one in found])
    hashes = np.array([np.frombuffer(one.pdq, np.uint8) for one in found])[good]
    sources = np.array([number for number, _ in versions])[good]
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=-1)
    one, other = np.nonzero(np.triu(distances <= MAX_DISTANCE, 1))
    forest = near_duplicates.find_similar(hashes, range(BANDS))
    labels = np.arange(len(hashes))
    labels[forest.rows] = forest.roots
    first, second = np.nonzero(np.triu(labels[:, None] == labels[None], 1))
    versions_of_one = np.nonzero(np.triu(sources[:, None] == sources[None], 1))
    print(f"{len(found)} images of {sources.max() + 1} photographs, {(~good).sum()} left out")
    print(f"hash: {1000 * seconds / len(found):.2f} ms of a processor an image")
    print(f"pairs at a distance of at most {MAX_DISTANCE}: {len(one)}")
    print(f"  found in one cluster: {(labels[one] == labels[other]).mean():.4f}")
    direct = np.zeros(len(one), bool)
    bits = np.unpackbits(hashes[one] ^ hashes[other], axis=1)
    for band in range(BANDS):
        direct |= ~bits[:, near_duplicates.band_bits(band)].any(axis=1)
    print(f"  compared in a band: {direct.mean():.4f}")
    print(f"pairs in one cluster: {len(first)}")
    print(f"  of one photograph: {(sources[first] == sources[second]).mean():.4f}")
    share = (labels[versions_of_one[0]] == labels[versions_of_one[1]]).mean()
    print(f"pairs of one photograph: {len(versions_of_one[0])}, in one cluster: {share:.4f}")


def measure_cost(number: int) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (number, 32), np.uint8)
    copies = number // 20
    hashes[-copies:] = hashes[:copies]
    for _ in range(12):
        hashes[range(number - copies, number), rng.integers(0, 32, copies)] ^= 1
    wall, began = time.monotonic(), time.process_time()
    forest = near_duplicates.find_similar(hashes, range(BANDS))
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{number:,} hashes: {time.monotonic() - wall:.1f} s, {1e6 * seconds / number:.1f} us of a "
        f"processor an image, {peak:.1f} GB; {len(forest.rows):,} of {copies:,} found"
    )
    print(f"  emitted: {16 * len(forest.rows) / number:.2f} bytes an image and task")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, help="a folder of .jpg")
    parser.add_argument("--hashes", type=int, nargs="*", default=[100_000, 1_000_000])
    options = parser.parse_args()
    if options.photographs:
        measure_recall(options.photographs)
    for number in options.hashes:
        measure_cost(number)


if __name__ == "__main__":
    main()
