"""The inputs of the endurance run, and what must become of each image in them."""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import io
import itertools
import json
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

OK = ""  # the outcome of an image that becomes an example
BODIES = 256  # different images

# Paths of the tests' origin, with the reasons that are possible.
URLS: Mapping[str, tuple[str, ...]] = {
    "good/{}.jpg": (OK,),
    "good/{}.png": (OK,),
    "good/{}.webp": (OK,),
    "chunked/{}.jpg": (OK,),
    "gzip/{}.jpg": (OK,),
    "redirect/2/{}.jpg": (OK,),
    "delay/0.1/{}.jpg": (OK,),
}
FAULTY_URLS: Mapping[str, tuple[str, ...]] = {
    "status/404/{}.jpg": ("http_404",),
    "status/410/{}.jpg": ("http_410",),
    "status/500/{}.jpg": ("http_500",),
    "flaky/1/503/{}.jpg": (OK,),
    "retry-after/1/{}.jpg": (OK,),
    "redirect-loop?{}": ("too_many_redirects",),
    "redirect-nowhere?{}": ("http_302",),
    "redirect-to?url=ftp://a/{}": ("unsupported_scheme",),
    "redirect-to?url=http://127.0.0.1:1/{}": ("connect",),
    "html/{}.jpg": ("not_an_image",),
    "cut/{}.jpg": ("connection_lost",),
    "half/{}.jpg": ("truncated",),
    "empty/{}.jpg": ("empty",),
    "slow/0.3/{}.jpg": ("timeout",),
    "hang?{}": ("timeout",),
    "endless/{}.jpg": ("too_large",),
    "endless-headers?{}": ("connection_lost",),
    "huge-header/100000/{}.jpg": ("connection_lost",),
    "reset?{}": ("connection_lost",),
    "reset-body/{}.jpg": ("connection_lost",),
    "garbage?{}": ("connection_lost",),
    "bomb/5000000/{}.jpg": ("too_large",),
    "large/4000000/{}.jpg": ("too_large",),
    "large-unannounced/4000000/{}.jpg": ("too_large",),
    "robots/{}.jpg?tag=noai": ("disallowed",),
    "type/text%2Fhtml/{}.jpg": (OK,),
}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The input of a command.

    Attributes:
      folder: Holds its files.
      arguments: The options that name it.
      outcomes: The possible outcomes of each image, by its URL: reasons of a failure, or `OK`.
      lines: Number of lines, of which some are ignored, or name the same image.
      ignored, duplicates: Numbers of these lines.
      damaged: Number of containers that are damaged, each of which is one failure more.
    """

    folder: Path
    arguments: list[str]
    outcomes: dict[str, tuple[str, ...]]
    lines: int
    ignored: int = 0
    duplicates: int = 0
    damaged: int = 0


def write_urls(folder: Path, images: int, origin: str, rng: random.Random) -> Inputs:
    """Write lists and tables of URLs, of which a third are faulty.

    Args:
      folder: An empty folder.
      images: Number of different images.
      origin: URL of the tests' origin.
      rng: Chooses the kinds of URLs.
    """
    outcomes: dict[str, tuple[str, ...]] = {}
    for index in range(images):
        kinds = FAULTY_URLS if rng.random() < 1 / 3 else URLS
        kind = rng.choice([*kinds])
        possible = kinds[kind]
        if OK not in possible:
            possible = (*possible, "timeout")  # on a busy machine a fault may come too late
        outcomes[origin + kind.format(index)] = possible
    urls = [*outcomes]
    repeated = rng.sample(urls, images // 50)
    # The last list also names images of the other files.
    parts = {name: urls[index :: len(_TABLES)] for index, name in enumerate(_TABLES)}
    parts["last.txt.gz"] = parts["last.txt.gz"] + repeated
    for name, part in parts.items():
        _TABLES[name](folder / name, part)
    comments = sum(name.endswith((".txt", ".txt.gz")) for name in _TABLES)
    return Inputs(
        folder,
        ["--input", ",".join(str(folder / name) for name in _TABLES), "--allow_private_addresses"],
        outcomes,
        images + len(repeated) + comments,
        ignored=comments,
        duplicates=len(repeated),
    )


def _write_list(path: Path, urls: list[str]) -> None:
    lines = ["# a comment", *(f"id{index}\t{url}" for index, url in enumerate(urls))]
    data = "\n".join([*lines, ""]).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _write_csv(path: Path, urls: list[str], delimiter: str = ",") -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["caption", "url"])
        writer.writerows([f'a "picture",\n{index}', url] for index, url in enumerate(urls))


def _write_json_lines(path: Path, urls: list[str]) -> None:
    path.write_text("".join(json.dumps({"url": url, "caption": "é"}) + "\n" for url in urls))


def _write_parquet(path: Path, urls: list[str]) -> None:
    table = pa.table({"caption": ["a picture"] * len(urls), "url": urls})
    pq.write_table(table, path, row_group_size=1000)


_TABLES: Mapping[str, Callable[[Path, list[str]], None]] = {
    "list.txt": _write_list,
    "table.csv": _write_csv,
    "table.tsv": functools.partial(_write_csv, delimiter="\t"),
    "table.jsonl": _write_json_lines,
    "table.parquet": _write_parquet,
    "last.txt.gz": _write_list,
}


@dataclasses.dataclass(frozen=True)
class _File:
    """An image file to be stored: its class, its name, its bytes and its possible outcomes."""

    folder: str
    name: str
    data: bytes
    outcomes: tuple[str, ...]


def write_images(folder: Path, images: int, rng: random.Random, kinds: str = "") -> Inputs:
    """Write containers of images, a tenth of them faulty, and a damaged archive.

    Args:
      folder: An empty folder.
      images: Number of images.
      rng: Chooses the faulty ones.
      kinds: Suffix of the containers to write; all by default.
    """
    bodies = [make_image(seed) for seed in range(min(images, BODIES))]
    chosen = [name for name in _CONTAINERS if name.endswith(kinds)]
    outcomes: dict[str, tuple[str, ...]] = {}
    for number, name in enumerate(chosen):
        files = list(_make_files(range(number, images, len(chosen)), bodies, rng))
        keys = _CONTAINERS[name](folder / name, files)
        outcomes.update(zip(keys, (file.outcomes for file in files), strict=True))
    if not kinds:
        chosen.append("damaged.tar")
        files = list(_make_files(range(5), bodies[:1], rng, faulty=0))
        keys = _write_damaged_tar(folder / "damaged.tar", files)
        outcomes.update(zip(keys, (file.outcomes for file in files), strict=True))
    damaged = "damaged.tar" in chosen
    paths = ",".join(str(folder / name) for name in chosen)
    return Inputs(
        folder, ["--images", paths], outcomes, len(outcomes) + damaged, damaged=int(damaged)
    )


def make_image(seed: int) -> bytes:
    """Return a JPEG of 96x72: soft patches of colour."""
    patches = Image.frombytes("RGB", (12, 9), random.Random(seed).randbytes(12 * 9 * 3))
    file = io.BytesIO()
    patches.resize((96, 72), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def _make_files(
    numbers: Iterable[int], bodies: list[bytes], rng: random.Random, faulty: float = 0.1
) -> Iterator[_File]:
    for number in numbers:
        data, outcomes = bodies[number % len(bodies)], (OK,)
        if rng.random() < faulty:
            data, outcomes = rng.choice(
                [
                    (data[: len(data) // 2], ("truncated",)),
                    (b"<!DOCTYPE html>", ("not_an_image",)),
                    (b"", ("empty",)),
                ]
            )
        yield _File(f"n{number % 7:08}", f"{number}.jpg", data, outcomes)


def _write_folder(path: Path, files: list[_File]) -> list[str]:
    for file in files:
        target = path / file.folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.data)
    return [str(path / file.folder / file.name) for file in files]


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    archive.addfile(header, io.BytesIO(data))


def _write_tar(path: Path, files: list[_File], mode: str = "w") -> list[str]:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for file in files:
            _add(archive, f"{file.folder}/{file.name}", file.data)
    return [f"{path}#{file.folder}/{file.name}" for file in files]


def _write_damaged_tar(path: Path, files: list[_File]) -> list[str]:
    """Write an archive that is damaged behind its last file."""
    urls = _write_tar(path, files)
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    with path.open("r+b") as file:
        file.seek(last.offset_data + -(-last.size // 512) * 512)
        file.write(b"\xff" * 512)
    return urls


def _write_tar_of_tars(path: Path, files: list[_File]) -> list[str]:
    by_folder = sorted(files, key=lambda file: file.folder)
    with tarfile.open(path, "w") as outer:
        for folder, own in itertools.groupby(by_folder, key=lambda file: file.folder):
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as inner:
                for file in own:
                    _add(inner, file.name, file.data)
            _add(outer, f"{folder}.tar", packed.getvalue())
    return [f"{path}#{file.folder}.tar/{file.name}" for file in files]


def _write_zip(path: Path, files: list[_File]) -> list[str]:
    with zipfile.ZipFile(path, "w") as archive:
        for index, file in enumerate(files):
            method = zipfile.ZIP_DEFLATED if index % 2 else zipfile.ZIP_STORED
            archive.writestr(f"{file.folder}/{file.name}", file.data, method)
    return [f"{path}#{file.folder}/{file.name}" for file in files]


def _write_webdataset(path: Path, files: list[_File]) -> list[str]:
    with tarfile.open(path, "w") as archive:
        for file in files:
            key = file.name.removesuffix(".jpg")
            _add(archive, f"{key}.jpg", file.data)
            _add(archive, f"{key}.cls", file.folder.encode())
            _add(archive, f"{key}.json", json.dumps({"caption": "é"}).encode())
    return [f"{path}#{file.name}" for file in files]


def _write_rows(path: Path, files: list[_File]) -> list[str]:
    rows = [{"image": {"bytes": file.data, "path": file.name}, "label": 1} for file in files]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=500)
    return [f"{path}#{number}" for number in range(len(files))]


_CONTAINERS: Mapping[str, Callable[[Path, list[_File]], list[str]]] = {
    "folder": _write_folder,
    "plain.tar": _write_tar,
    "tars.tar": _write_tar_of_tars,
    "packed.tar.gz": functools.partial(_write_tar, mode="w:gz"),
    "packed.zip": _write_zip,
    "webdataset.tar": _write_webdataset,
    "rows.parquet": _write_rows,
}
